"""Chat templates of our own, each with the markup and the refusals of a family's template.

They show what a prompt renderer has to handle: thinking dropped from history, system messages
only at the start, roles that must alternate, one call per turn, ids of nine characters.
"""

from typing import Final

_JSON_CALLS: Final = """
{%- macro calls(message) -%}
  {%- for call in message.tool_calls or [] -%}
    {{- '\\n' if not loop.first or message.content -}}
    {{- '<tool_call>\\n{"name": "' ~ call.function.name ~ '", "arguments": ' -}}
    {{- (call.function.arguments | tojson) ~ '}\\n</tool_call>' -}}
  {%- endfor -%}
{%- endmacro -%}
"""

_RESULT: Final = """
{%- macro result(message, index) -%}
  {%- if index == 0 or messages[index - 1].role != 'tool' -%}{{- '<|im_start|>user' -}}{%- endif -%}
  {{- '\\n<tool_response>\\n' ~ message.content ~ '\\n</tool_response>' -}}
  {%- if index + 1 == messages | length or messages[index + 1].role != 'tool' -%}
    {{- '<|im_end|>\\n' -}}
  {%- endif -%}
{%- endmacro -%}
"""

_LAST_QUESTION: Final = """
{%- set ns = namespace(last=-1) -%}
{%- for message in messages -%}
  {%- if message.role == 'user' and not message.content.startswith('<tool_response>') -%}
    {%- set ns.last = loop.index0 -%}
  {%- endif -%}
{%- endfor -%}
"""

# Only appends text: nothing in the rendering depends on later messages.
CHATML: Final = (
    _JSON_CALLS
    + _RESULT
    + """
{%- if tools -%}
  {{- '<|im_start|>system\\nTools:\\n' ~ (tools | tojson) ~ '<|im_end|>\\n' -}}
{%- endif -%}
{%- for message in messages -%}
  {%- if message.role == 'tool' -%}
    {{- result(message, loop.index0) -}}
  {%- else -%}
    {{- '<|im_start|>' ~ message.role ~ '\\n' -}}
    {%- if message.reasoning_content -%}
      {{- '<think>\\n' ~ message.reasoning_content ~ '\\n</think>\\n\\n' -}}
    {%- endif -%}
    {{- message.content ~ calls(message) ~ '<|im_end|>\\n' -}}
  {%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- '<|im_start|>assistant\\n' -}}{%- endif -%}
"""
)

# Like Qwen3's: tools after the system text, thinking only since the last question, and empty
# thinking at the start of the answer if thinking is off.
QWEN3: Final = (
    _JSON_CALLS
    + _RESULT
    + _LAST_QUESTION
    + """
{%- if tools -%}
  {{- '<|im_start|>system\\n' -}}
  {%- if messages[0].role == 'system' -%}{{- messages[0].content ~ '\\n\\n' -}}{%- endif -%}
  {{- '# Tools\\n\\n<tools>' -}}
  {%- for tool in tools -%}{{- '\\n' ~ (tool | tojson) -}}{%- endfor -%}
  {{- '\\n</tools>\\n\\nAnswer within <tool_call></tool_call>.<|im_end|>\\n' -}}
{%- elif messages[0].role == 'system' -%}
  {{- '<|im_start|>system\\n' ~ messages[0].content ~ '<|im_end|>\\n' -}}
{%- endif -%}
{%- for message in messages -%}
  {%- if message.role == 'user' or (message.role == 'system' and not loop.first) -%}
    {{- '<|im_start|>' ~ message.role ~ '\\n' ~ message.content ~ '<|im_end|>\\n' -}}
  {%- elif message.role == 'assistant' -%}
    {%- set content = message.content -%}
    {%- set thought = message.reasoning_content or '' -%}
    {%- if not thought and '</think>' in content -%}
      {%- set thought = content.split('</think>')[0].split('<think>')[-1] -%}
      {%- set content = content.split('</think>')[-1].lstrip('\\n') -%}
    {%- endif -%}
    {{- '<|im_start|>assistant\\n' -}}
    {%- if loop.index0 > ns.last and (loop.last or thought) -%}
      {{- '<think>\\n' ~ thought.strip('\\n') ~ '\\n</think>\\n\\n' ~ content.lstrip('\\n') -}}
    {%- else -%}
      {{- content -}}
    {%- endif -%}
    {{- calls(message) ~ '<|im_end|>\\n' -}}
  {%- elif message.role == 'tool' -%}
    {{- result(message, loop.index0) -}}
  {%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}
  {{- '<|im_start|>assistant\\n' -}}
  {%- if enable_thinking is defined and enable_thinking is false -%}
    {{- '<think>\\n\\n</think>\\n\\n' -}}
  {%- endif -%}
{%- endif -%}
"""
)

_XML_CALLS: Final = """
{%- macro calls(message) -%}
  {%- for call in message.tool_calls or [] -%}
    {{- '\\n<tool_call>\\n<function=' ~ call.function.name ~ '>\\n' -}}
    {%- for name, value in call.function.arguments | items -%}
      {{- '<parameter=' ~ name ~ '>\\n' -}}
      {{- value if value is string else (value | string) -}}
      {{- '\\n</parameter>\\n' -}}
    {%- endfor -%}
    {{- '</function>\\n</tool_call>' -}}
  {%- endfor -%}
{%- endmacro -%}
"""

# Like Qwen3-Coder's: calls as XML, and schema keys as tags.
QWEN3_CODER: Final = (
    _XML_CALLS
    + _RESULT
    + """
{%- if messages[0].role == 'system' or tools -%}
  {{- '<|im_start|>system\\n' -}}
  {{- messages[0].content if messages[0].role == 'system' else 'You are a helpful assistant.' -}}
  {%- if tools -%}
    {{- '\\n\\n<tools>' -}}
    {%- for tool in tools -%}
      {{- '\\n<function>\\n<name>' ~ tool.function.name ~ '</name>' -}}
      {{- '\\n<description>' ~ (tool.function.description | trim) ~ '</description>' -}}
      {%- for key, value in tool.function.parameters | items -%}
        {{- '\\n<' ~ key ~ '>' ~ (value | tojson) ~ '</' ~ key ~ '>' -}}
      {%- endfor -%}
      {{- '\\n</function>' -}}
    {%- endfor -%}
    {{- '\\n</tools>' -}}
  {%- endif -%}
  {{- '<|im_end|>\\n' -}}
{%- endif -%}
{%- for message in messages -%}
  {%- if message.role == 'tool' -%}
    {{- result(message, loop.index0) -}}
  {%- elif not (loop.first and message.role == 'system') -%}
    {{- '<|im_start|>' ~ message.role ~ '\\n' -}}
    {{- message.content ~ calls(message) ~ '<|im_end|>\\n' -}}
  {%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- '<|im_start|>assistant\\n' -}}{%- endif -%}
"""
)

# Like Qwen3.5's: tools before the system text, system text only at the start, and a switch to keep
# thinking in history.
QWEN3_5: Final = (
    _XML_CALLS
    + _RESULT
    + _LAST_QUESTION
    + """
{%- if ns.last < 0 -%}{{- raise_exception('No user query found in messages.') -}}{%- endif -%}
{%- if tools or messages[0].role == 'system' -%}
  {{- '<|im_start|>system\\n' -}}
  {%- for tool in tools or [] -%}{{- (tool | tojson) ~ '\\n' -}}{%- endfor -%}
  {%- if messages[0].role == 'system' -%}{{- messages[0].content | trim -}}{%- endif -%}
  {{- '<|im_end|>\\n' -}}
{%- endif -%}
{%- for message in messages -%}
  {%- set content = message.content | trim -%}
  {%- if message.role == 'system' -%}
    {%- if not loop.first -%}
      {{- raise_exception('System message must be at the beginning.') -}}
    {%- endif -%}
  {%- elif message.role == 'user' -%}
    {{- '<|im_start|>user\\n' ~ content ~ '<|im_end|>\\n' -}}
  {%- elif message.role == 'assistant' -%}
    {{- '<|im_start|>assistant\\n' -}}
    {%- if loop.index0 > ns.last or (preserve_thinking is defined and preserve_thinking) -%}
      {{- '<think>\\n' ~ (message.reasoning_content or '') | trim ~ '\\n</think>\\n\\n' -}}
    {%- endif -%}
    {{- content ~ calls(message) ~ '<|im_end|>\\n' -}}
  {%- elif message.role == 'tool' -%}
    {{- result(message, loop.index0) -}}
  {%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}
  {{- '<|im_start|>assistant\\n<think>\\n' -}}
  {%- if enable_thinking is defined and enable_thinking is false -%}
    {{- '\\n</think>\\n\\n' -}}
  {%- endif -%}
{%- endif -%}
"""
)

# Like Mistral's: alternating roles, ids of nine characters, and no header for answers.
MISTRAL: Final = """
{{- bos_token -}}
{%- set turns = messages -%}
{%- if messages[0].role == 'system' -%}
  {{- '[SYSTEM_PROMPT]' ~ messages[0].content ~ '[/SYSTEM_PROMPT]' -}}
  {%- set turns = messages[1:] -%}
{%- endif -%}
{%- if tools -%}
  {{- '[AVAILABLE_TOOLS]' ~ (tools | tojson) ~ '[/AVAILABLE_TOOLS]' -}}
{%- endif -%}
{%- set ns = namespace(index=0) -%}
{%- for message in turns -%}
  {%- if message.role in ['user', 'assistant'] and not message.tool_calls -%}
    {%- if (message.role == 'user') != (ns.index % 2 == 0) -%}
      {{- raise_exception('Conversation roles must alternate user/assistant/...') -}}
    {%- endif -%}
    {%- set ns.index = ns.index + 1 -%}
  {%- endif -%}
  {%- if message.role == 'user' -%}
    {{- '[INST]' ~ message.content ~ '[/INST]' -}}
  {%- elif message.role == 'assistant' -%}
    {{- message.content -}}
    {%- for call in message.tool_calls or [] -%}
      {%- if call.id | length != 9 -%}
        {{- raise_exception('Tool call IDs should be alphanumeric strings with length 9!') -}}
      {%- endif -%}
      {{- '[TOOL_CALLS]' ~ (call.function | tojson) ~ call.id -}}
    {%- endfor -%}
    {{- eos_token -}}
  {%- elif message.role == 'tool' -%}
    {{- '[TOOL_RESULTS]' ~ message.tool_call_id ~ ': ' ~ message.content ~ '[/TOOL_RESULTS]' -}}
  {%- else -%}
    {{- raise_exception('Only user, assistant and tool roles are supported!') -}}
  {%- endif -%}
{%- endfor -%}
"""

# Like Mistral Small 3.2's: the tools stand before the last question, and move with each new one.
MISTRAL_SMALL: Final = MISTRAL.replace(
    """{%- if tools -%}
  {{- '[AVAILABLE_TOOLS]' ~ (tools | tojson) ~ '[/AVAILABLE_TOOLS]' -}}
{%- endif -%}
""",
    "",
).replace(
    "{{- '[INST]' ~",
    """{%- if tools and message == (turns | selectattr('role', 'equalto', 'user') | list)[-1] -%}
      {{- '[AVAILABLE_TOOLS]' ~ (tools | tojson) ~ '[/AVAILABLE_TOOLS]' -}}
    {%- endif -%}
    {{- '[INST]' ~""",
)

# Like Llama 3's: trimmed content, one call per turn, arguments as JSON text.
LLAMA3: Final = """
{{- bos_token -}}
{%- for message in messages -%}
  {%- set role = 'ipython' if message.role == 'tool' else message.role -%}
  {{- '<|start_header_id|>' ~ role ~ '<|end_header_id|>\\n\\n' ~ (message.content | trim) -}}
  {%- if tools and loop.first -%}
    {{- '\\n\\n' ~ (tools | tojson) -}}
  {%- endif -%}
  {%- if message.tool_calls -%}
    {%- if message.tool_calls | length != 1 -%}
      {{- raise_exception('This model only supports single tool-calls at once!') -}}
    {%- endif -%}
    {%- set call = message.tool_calls[0].function -%}
    {{- '{"name": "' + call.name + '", "parameters": ' + call.arguments + '}' -}}
  {%- endif -%}
  {{- '<|eot_id|>' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}
  {{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' -}}
{%- endif -%}
"""

# Like gpt-oss's: channels, the first system text in its own message, results only after a call,
# thinking under another name, and no thinking beside the text of a call.
GPT_OSS: Final = """
{%- set ns = namespace(tool=none) -%}
{{- '<|start|>system<|message|>Reasoning: medium<|end|>' -}}
{%- set turns = messages -%}
{%- if messages[0].role == 'system' or tools -%}
  {{- '<|start|>developer<|message|>' -}}
  {%- if messages[0].role == 'system' -%}
    {{- messages[0].content -}}
    {%- set turns = messages[1:] -%}
  {%- endif -%}
  {%- for tool in tools or [] -%}{{- '\\n// ' ~ (tool.function | tojson) -}}{%- endfor -%}
  {{- '<|end|>' -}}
{%- endif -%}
{%- for message in turns -%}
  {%- if message.role == 'assistant' -%}
    {%- if message.tool_calls -%}
      {%- if message.content and message.thinking -%}
        {{- raise_exception('Cannot pass both content and thinking with tool calls!') -}}
      {%- endif -%}
      {%- set thought = message.thinking or message.content -%}
      {%- set later = turns[loop.index:] | selectattr('role', 'equalto', 'assistant') -%}
      {%- if thought and not later | rejectattr('tool_calls') | list -%}
        {{- '<|start|>assistant<|channel|>analysis<|message|>' ~ thought ~ '<|end|>' -}}
      {%- endif -%}
      {%- set ns.tool = message.tool_calls[0].function.name -%}
      {{- '<|start|>assistant to=functions.' ~ ns.tool ~ '<|channel|>commentary json' -}}
      {{- '<|message|>' ~ (message.tool_calls[0].function.arguments | tojson) ~ '<|call|>' -}}
    {%- else -%}
      {%- if message.thinking and loop.last -%}
        {{- '<|start|>assistant<|channel|>analysis<|message|>' ~ message.thinking ~ '<|end|>' -}}
      {%- endif -%}
      {{- '<|start|>assistant<|channel|>final<|message|>' ~ message.content -}}
      {{- '<|return|>' if loop.last else '<|end|>' -}}
      {%- set ns.tool = none -%}
    {%- endif -%}
  {%- elif message.role == 'tool' -%}
    {%- if ns.tool is none -%}
      {{- raise_exception('Message has tool role, but there was no previous tool call!') -}}
    {%- endif -%}
    {{- '<|start|>functions.' ~ ns.tool ~ ' to=assistant<|channel|>commentary<|message|>' -}}
    {{- (message.content | tojson) ~ '<|end|>' -}}
  {%- elif message.role == 'user' -%}
    {{- '<|start|>user<|message|>' ~ message.content ~ '<|end|>' -}}
  {%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- '<|start|>assistant' -}}{%- endif -%}
"""

# Like GLM's: a control token for each role, and none that closes a turn.
GLM: Final = (
    _LAST_QUESTION
    + """
{{- '[gMASK]<sop>' -}}
{%- if tools -%}{{- '<|system|>\\n# Tools\\n' ~ (tools | tojson) -}}{%- endif -%}
{%- for message in messages -%}
  {%- if message.role == 'tool' -%}
    {%- if loop.first or messages[loop.index0 - 1].role != 'tool' -%}
      {{- '<|observation|>' -}}
    {%- endif -%}
    {{- '\\n<tool_response>\\n' ~ message.content ~ '\\n</tool_response>' -}}
  {%- else -%}
    {{- '<|' ~ message.role ~ '|>\\n' -}}
    {%- if message.role == 'assistant' -%}
      {%- set keep = clear_thinking is defined and not clear_thinking -%}
      {{- '<think>' -}}
      {%- if keep or loop.index0 > ns.last -%}{{- message.reasoning_content or '' -}}{%- endif -%}
      {{- '</think>\\n' -}}
    {%- endif -%}
    {{- message.content -}}
    {%- for call in message.tool_calls or [] -%}
      {{- '\\n<tool_call>' ~ call.function.name -}}
      {%- for name, value in call.function.arguments | items -%}
        {{- '\\n<arg_key>' ~ name ~ '</arg_key>\\n<arg_value>' ~ value ~ '</arg_value>' -}}
      {%- endfor -%}
      {{- '\\n</tool_call>' -}}
    {%- endfor -%}
  {%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}
  {{- '<|assistant|>\\n' -}}
  {%- if not enable_thinking -%}{{- '<think></think>\\n' -}}{%- endif -%}
{%- endif -%}
"""
)

# Like Gemma 4's: a whole tool loop is one turn of the model, without a header for each answer.
GEMMA4: Final = (
    _LAST_QUESTION
    + """
{{- bos_token -}}
{%- if tools -%}
  {{- '<|turn>system\n<|tool>' ~ (tools | tojson) ~ '<tool|><turn|>\n' -}}
{%- endif -%}
{%- set state = namespace(role='') -%}
{%- for message in messages -%}
  {%- if message.role == 'tool' -%}
    {{- '<|tool_response>response:' ~ message.name ~ '{' ~ message.content ~ '}' -}}
    {{- '<tool_response|>' -}}
  {%- else -%}
    {%- set role = 'model' if message.role == 'assistant' else message.role -%}
    {%- if not (role == 'model' and state.role == 'model') -%}
      {{- '<|turn>' ~ role ~ '\n' -}}
    {%- endif -%}
    {%- set state.role = role -%}
    {%- if message.reasoning_content and message.tool_calls and loop.index0 > ns.last -%}
      {{- '<|channel>thought\n' ~ message.reasoning_content ~ '\n<channel|>' -}}
    {%- endif -%}
    {{- message.content | trim -}}
    {%- for call in message.tool_calls or [] -%}
      {{- '<|tool_call>call:' ~ call.function.name -}}
      {{- (call.function.arguments | tojson) ~ '<tool_call|>' -}}
    {%- endfor -%}
    {%- if not message.tool_calls -%}
      {{- '<turn|>\n' -}}
      {%- set state.role = '' if role == 'model' else state.role -%}
    {%- elif loop.last or messages[loop.index0 + 1].role != 'tool' -%}
      {{- '<|tool_response>' -}}
    {%- endif -%}
  {%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt and state.role != 'model' -%}{{- '<|turn>model\n' -}}{%- endif -%}
"""
)

# Like Gemma 2's: no system role, alternating roles, trimmed content.
GEMMA2: Final = """
{{- bos_token -}}
{%- for message in messages -%}
  {%- if message.role == 'system' -%}
    {{- raise_exception('System role not supported') -}}
  {%- endif -%}
  {%- if (message.role == 'user') != (loop.index0 % 2 == 0) -%}
    {{- raise_exception('Conversation roles must alternate user/assistant/...') -}}
  {%- endif -%}
  {{- '<start_of_turn>' ~ ('model' if message.role == 'assistant' else message.role) ~ '\\n' -}}
  {{- (message.content | trim) ~ '<end_of_turn>\\n' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- '<start_of_turn>model\\n' -}}{%- endif -%}
"""

# A template without control tokens.
BARE: Final = """
{%- for message in messages -%}
  {{- message.role ~ ': ' ~ message.content ~ '\\n' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- 'assistant: ' -}}{%- endif -%}
"""

TEMPLATES: Final = {
    "bare": BARE,
    "chatml": CHATML,
    "gemma2": GEMMA2,
    "gemma4": GEMMA4,
    "glm": GLM,
    "gpt_oss": GPT_OSS,
    "llama3": LLAMA3,
    "mistral": MISTRAL,
    "mistral_small": MISTRAL_SMALL,
    "qwen3": QWEN3,
    "qwen3_5": QWEN3_5,
    "qwen3_coder": QWEN3_CODER,
}
