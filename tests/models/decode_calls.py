"""Tool calls in the words of each family of templates."""

import json
from typing import Any

# Two calls as each family writes them: Bash with a command, a timeout; then Status.
CALLS = {
    "json_tools": '<tool_call>\n{"name": "Bash", "arguments": {"command": "ls", "timeout": 5}}\n'
    '</tool_call>\n<tool_call>\n{"name": "Status", "arguments": {}}\n</tool_call>',
    "qwen3_coder": "<tool_call>\n<function=Bash>\n<parameter=command>\nls\n</parameter>\n"
    "<parameter=timeout>\n5\n</parameter>\n</function>\n</tool_call>\n"
    "<tool_call>\n<function=Status>\n</function>\n</tool_call>",
    "glm47": "<tool_call>Bash\n<arg_key>command</arg_key>\n<arg_value>ls</arg_value>\n"
    "<arg_key>timeout</arg_key>\n<arg_value>5</arg_value>\n</tool_call>\n"
    "<tool_call>Status\n</tool_call>",
    "longcat": "<longcat_tool_call>Bash\n<longcat_arg_key>command</longcat_arg_key>\n"
    "<longcat_arg_value>ls</longcat_arg_value>\n<longcat_arg_key>timeout</longcat_arg_key>\n"
    "<longcat_arg_value>5</longcat_arg_value>\n</longcat_tool_call>\n"
    '<longcat_tool_call>{"name": "Status", "arguments": {}}</longcat_tool_call>',
    "minimax_m2": '<minimax:tool_call>\n<invoke name="Bash">\n<parameter name="command">ls'
    '</parameter>\n<parameter name="timeout">5</parameter>\n</invoke>\n'
    '<invoke name="Status">\n</invoke>\n</minimax:tool_call>',
    "mistral": '[TOOL_CALLS]Bash[ARGS]{"command": "ls", "timeout": 5}[TOOL_CALLS]Status[ARGS]{}',
    "kimi_k2": "<|tool_calls_section_begin|><|tool_call_begin|>functions.Bash:0"
    '<|tool_call_argument_begin|>{"command": "ls", "timeout": 5}<|tool_call_end|>'
    "<|tool_call_begin|>functions.Status:1<|tool_call_argument_begin|>{}<|tool_call_end|>"
    "<|tool_calls_section_end|>",
    "kimi_k3": '<|open|>tools<|sep|><|open|>call tool="Bash" index="1"<|sep|><|open|>argument '
    'key="command" type="string"<|sep|>ls<|close|>argument<|sep|><|open|>argument key="timeout" '
    'type="number"<|sep|>5<|close|>argument<|sep|><|close|>call<|sep|><|open|>call tool="Status" '
    'index="2"<|sep|><|close|>call<|sep|><|close|>tools<|sep|>',
    "pythonic": '<|tool_call_start|>[Bash(command="ls", timeout=5), Status()]<|tool_call_end|>',
    "gemma4": '<|tool_call>call:Bash{command:<|"|>ls<|"|>,timeout:5}<tool_call|>'
    "<|tool_call>call:Status{}<tool_call|>",
    "function_gemma": "<start_function_call>call:Bash{command:<escape>ls<escape>,timeout:5}"
    "<end_function_call><start_function_call>call:Status{}<end_function_call>",
    "minicpm5": '<function name="Bash"><param name="command">ls</param><param name="timeout">5'
    '</param></function>\n<function name="Status"></function>',
    "muse_spark": 'to=Bash<|message|><atem:function_calls>\n<atem:invoke name="Bash">\n'
    '<atem:parameter name="command">ls</atem:parameter>\n<atem:parameter name="timeout">5'
    '</atem:parameter>\n</atem:invoke>\n<atem:invoke name="Status">\n</atem:invoke>\n'
    "</atem:function_calls>",
}


def tagged(family: str, **arguments: str) -> str:
    """One call of Bash in the words of a family."""
    if family == "qwen3_coder":
        body = "".join(f"<parameter={k}>\n{v}\n</parameter>\n" for k, v in arguments.items())
        return f"<tool_call>\n<function=Bash>\n{body}</function>\n</tool_call>"
    if family == "glm47":
        body = "".join(
            f"<arg_key>{k}</arg_key>\n<arg_value>{v}</arg_value>\n" for k, v in arguments.items()
        )
        return f"<tool_call>Bash\n{body}</tool_call>"
    body = "".join(f'<parameter name="{k}">{v}</parameter>\n' for k, v in arguments.items())
    return f'<minimax:tool_call>\n<invoke name="Bash">\n{body}</invoke>\n</minimax:tool_call>'


def json_call(arguments: Any, name: str = "Bash") -> str:
    return f"<tool_call>{json.dumps({'name': name, 'arguments': arguments})}</tool_call>"
