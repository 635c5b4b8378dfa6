"""claude-agent-sdk, which runs the Claude Code that it carries."""

import asyncio
import os
import tempfile

from claude_agent_sdk import (
    ClaudeAgentOptions,
    ClaudeSDKClient,
    HookMatcher,
    ResultMessage,
    create_sdk_mcp_server,
    query,
    tool,
)
from report import BASE_URL, LOOP_ENDS, check, report

home = tempfile.mkdtemp()
hooked: list[str] = []
last: list[ResultMessage] = []


@tool("greet", "Say hello.", {"name": str})
async def greet(arguments):
    return {"content": [{"type": "text", "text": "hello"}]}


async def before(given, use_id, context):
    hooked.append(given["tool_name"])
    return {}


def options(**fields) -> ClaudeAgentOptions:
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
        },
        allowed_tools=["Bash"],
        mcp_servers={"local": create_sdk_mcp_server("local", tools=[greet])},
        **fields,
    )


async def converse() -> None:
    settings = options(
        hooks={"PreToolUse": [HookMatcher(matcher="Bash", hooks=[before])]},
    )
    async with ClaudeSDKClient(settings) as client:
        await client.query("Go.")
        async for message in client.receive_response():
            if isinstance(message, ResultMessage):
                last.append(message)


async def resume(**fields) -> ResultMessage:
    settings = options(resume=last[0].session_id, **fields)
    found = [m async for m in query(prompt="And now?", options=settings)]
    return next(m for m in found if isinstance(m, ResultMessage))


def tool_loop() -> None:
    """tool loop with a hook, while a tool of an in-process MCP server is offered"""
    asyncio.run(converse())
    check(hooked == ["Bash"], hooked)
    check(LOOP_ENDS in str(last[0].result), last)


def resumed() -> None:
    """resume"""
    said = asyncio.run(resume())
    check(not said.is_error and said.session_id == last[0].session_id, said)


def forked() -> None:
    """fork"""
    said = asyncio.run(resume(fork_session=True))
    check(not said.is_error and said.session_id != last[0].session_id, said)


report(["claude-agent-sdk"], tool_loop, resumed, forked)
