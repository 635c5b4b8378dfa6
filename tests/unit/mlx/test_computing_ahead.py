"""When computing ahead begins, for which conversation, and when it does not."""

import asyncio
from types import SimpleNamespace
from typing import Any

from anyclaude.mlx.ahead import ComputingAhead, Emit
from anyclaude.mlx.engine.job import Job
from anyclaude.mlx.kv.lineage import LineageKey


class _Renderer:
    """Notes the conversations that it is asked for, and finds nothing to compute in them."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.fails = False

    async def __call__(self, answering: Any, emit: Emit) -> Job | None:
        self.asked.append(answering.job.lineage.session_id)
        if self.fails:
            raise ValueError("no template")
        return None


def _answered(session: str) -> Any:
    return SimpleNamespace(job=SimpleNamespace(lineage=LineageKey(session, "", "")))


def _ahead(render: _Renderer, *, allowed: bool = True, seconds: float = 0.0) -> ComputingAhead:
    async def is_allowed() -> bool:
        return allowed

    engine: Any = None
    return ComputingAhead(
        engine, render, is_allowed=is_allowed, after_seconds=seconds, max_conversations=2
    )


async def _let_run() -> None:
    """Gives its task more turns than it needs, since nothing in it waits for anything real."""
    for _ in range(100):
        await asyncio.sleep(0)


def test_the_latest_answers_come_first() -> None:
    """The conversation answered last is computed first, and only so many are remembered."""

    async def scenario() -> None:
        render = _Renderer()
        ahead = _ahead(render)
        for session in ("a", "b", "c"):
            ahead.answered(_answered(session))
        ahead.resume()
        await _let_run()
        assert render.asked == ["c", "b"]

    asyncio.run(scenario())


def test_a_conversation_that_went_on_is_left_out() -> None:
    """Once the next question has come, nothing is computed for it; later answers are."""

    async def scenario() -> None:
        render = _Renderer()
        ahead = _ahead(render)
        ahead.answered(_answered("a"))
        ahead.asked(_answered("a").job.lineage)
        ahead.resume()
        await _let_run()
        assert render.asked == []
        ahead.answered(_answered("a"))
        ahead.resume()
        await _let_run()
        assert render.asked == ["a"]

    asyncio.run(scenario())


def test_nothing_is_computed_on_battery() -> None:
    """Where the machine may not work for nobody, nothing is even rendered."""

    async def scenario() -> None:
        render = _Renderer()
        ahead = _ahead(render, allowed=False)
        ahead.answered(_answered("a"))
        ahead.resume()
        await _let_run()
        assert render.asked == []
        assert ahead.is_active
        ahead.pause()

    asyncio.run(scenario())


def test_an_arriving_request_ends_the_pause() -> None:
    """A request within the pause puts everything off until nobody waits again."""

    async def scenario() -> None:
        render = _Renderer()
        ahead = _ahead(render, seconds=600.0)
        ahead.answered(_answered("a"))
        ahead.resume()
        await asyncio.sleep(0)
        ahead.pause()
        assert not ahead.is_active
        assert render.asked == []

    asyncio.run(scenario())


def test_an_error_costs_nothing_but_the_saving() -> None:
    """A conversation that cannot be rendered is left out, and the next one is computed."""

    async def scenario() -> None:
        render = _Renderer()
        render.fails = True
        ahead = _ahead(render)
        ahead.answered(_answered("a"))
        ahead.answered(_answered("b"))
        ahead.resume()
        await _let_run()
        assert render.asked == ["b", "a"]

    asyncio.run(scenario())
