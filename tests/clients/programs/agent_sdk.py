"""claude-agent-sdk, which runs the Claude Code that it carries."""

import asyncio
import os
import tempfile

from claude_agent_sdk import (
    ClaudeAgentOptions,
    ClaudeSDKClient,
    HookMatcher,
    Message,
    PermissionResultAllow,
    PermissionResultDeny,
    ResultMessage,
    ToolResultBlock,
    UserMessage,
    create_sdk_mcp_server,
    query,
    tool,
)
from report import BASE_URL, CALLING, COMMAND, LOOP_ENDS, check, report

home = tempfile.mkdtemp()
hooked: list[str] = []
asked: list[str] = []
last: list[ResultMessage] = []


@tool("greet", "Say hello.", {"name": str})
async def greet(arguments):
    return {"content": [{"type": "text", "text": "hello"}]}


async def before(given, use_id, context):
    hooked.append(given["tool_name"])
    return {}


async def permit(name, given, context):
    """Refuses the first call, and lets the others run."""
    asked.append(given["command"])
    return PermissionResultAllow() if len(asked) > 1 else PermissionResultDeny(message="not now")


def options(variables=(), **fields) -> ClaudeAgentOptions:
    return ClaudeAgentOptions(
        cwd=home,
        env={
            "HOME": home,
            "PATH": os.environ["PATH"],
            "ANTHROPIC_BASE_URL": BASE_URL,
            "ANTHROPIC_AUTH_TOKEN": "any",
            "ANTHROPIC_MODEL": "anyclaude-demo",
            "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
            "IS_SANDBOX": "1",
            **dict(variables),
        },
        mcp_servers={"local": create_sdk_mcp_server("local", tools=[greet])},
        **fields,
    )


async def converse(settings: ClaudeAgentOptions, *prompts: str) -> list[list[Message]]:
    """The messages that follow each prompt."""
    turns = []
    async with ClaudeSDKClient(settings) as client:
        for prompt in prompts:
            await client.query(prompt)
            turns.append([message async for message in client.receive_response()])
    return turns


def answer(turn: list[Message]) -> ResultMessage:
    return next(message for message in turn if isinstance(message, ResultMessage))


def results(turn: list[Message]) -> str:
    """What tools returned."""
    blocks = [
        block for message in turn if isinstance(message, UserMessage) for block in message.content
    ]
    return str([block.content for block in blocks if isinstance(block, ToolResultBlock)])


async def resume(**fields) -> ResultMessage:
    settings = options(resume=last[0].session_id, **fields)
    return answer([message async for message in query(prompt="And now?", options=settings)])


def tool_loop() -> None:
    """tool loop with a hook"""
    hooks = {"PreToolUse": [HookMatcher(matcher="Bash", hooks=[before])]}
    (turn,) = asyncio.run(converse(options(allowed_tools=["Bash"], hooks=hooks), "Go."))
    last.append(answer(turn))
    check(hooked == ["Bash"], hooked)
    check(LOOP_ENDS in str(last[0].result), last)


def own_tool() -> None:
    """call of a tool of an in-process MCP server (behind the relay a server that calls it)"""
    calling = {"ANTHROPIC_CUSTOM_HEADERS": CALLING, "ENABLE_TOOL_SEARCH": "false"}
    alone = options(calling, tools=[], allowed_tools=["mcp__local__greet"])
    (turn,) = asyncio.run(converse(alone, "Go."))
    check("hello" in results(turn) and not answer(turn).is_error, turn)


def permission() -> None:
    """permission callback, which refuses a call and then lets one run"""
    # Without this setting, Claude Code runs a harmless command without asking.
    asking = options(can_use_tool=permit, settings='{"permissions": {"ask": ["Bash"]}}')
    refused, ran = asyncio.run(converse(asking, "Go.", "Please run it again."))
    check(asked == [COMMAND, COMMAND], asked)
    check("not now" in results(refused), refused)
    check("hello from anyclaude" in results(ran), ran)


def resumed() -> None:
    """resume"""
    said = asyncio.run(resume())
    check(not said.is_error and said.session_id == last[0].session_id, said)


def forked() -> None:
    """fork"""
    said = asyncio.run(resume(fork_session=True))
    check(not said.is_error and said.session_id != last[0].session_id, said)


report(["claude-agent-sdk"], tool_loop, own_tool, permission, resumed, forked)
