"""The verbs about modes, caches, workers, metrics and requests, against a scripted daemon."""

import json
from pathlib import Path

import grpc
import pytest

from anyclaude.cache.v1 import cache_pb2
from anyclaude.cli.verbs.cache_explain import SENTENCES
from anyclaude.control.v1 import control_pb2
from anyclaude.frontend.v1 import frontend_pb2
from anyclaude.messages.enum_words import enum_word
from anyclaude.worker.v1 import worker_pb2
from tests.integration.cli.conftest import Commands, ready_status
from tests.integration.cli.scripted_control import Failure, ScriptedControl


def _cache(name: str) -> cache_pb2.Cache:
    cache = cache_pb2.Cache(
        name=name,
        kind=cache_pb2.CACHE_KIND_LINEAGE,
        session_id="s1",
        tokens=18_490,
        bytes=5_000_000_000,
        hits=3,
        request_class=worker_pb2.REQUEST_CLASS_MAIN,
    )
    cache.create_time.GetCurrentTime()
    cache.last_use_time.GetCurrentTime()
    return cache


def test_modes(commands: Commands, control: ScriptedControl) -> None:
    """`mode` marks the current mode and says why another is not ready."""
    control.answers["GetMode"] = control_pb2.GetModeResponse(
        mode="mlx-lm",
        modes=[
            control_pb2.Mode(name="mlx-lm", description="local model", ready=True),
            control_pb2.Mode(name="lmstudio", ready=False, reason="LM Studio does not run."),
        ],
    )

    for_people, as_json = commands.ctl("mode"), json.loads(commands.ctl("mode", "--json").stdout)

    assert "*  mlx-lm" in for_people.stdout
    assert "LM Studio does not run." in for_people.stdout
    assert as_json["mode"] == "mlx-lm"
    assert as_json["modes"][1]["ready"] is False


def test_mode_switch(commands: Commands, control: ScriptedControl) -> None:
    """`mode NAME` switches through the daemon, and prints its warning on standard error."""
    control.answers["SetMode"] = control_pb2.SetModeResponse(
        mode="mlx-lm", previous_mode="claude", warning="`local` is now `mlx-lm`."
    )

    done = commands.ctl("mode", "local", "--json")

    assert done.returncode == 0
    assert control.requests("SetMode")[0].mode == "local"
    assert json.loads(done.stdout)["previous_mode"] == "claude"
    assert "`local` is now `mlx-lm`." in done.stderr


def test_mode_that_is_not_ready_exits_5(commands: Commands, control: ScriptedControl) -> None:
    """A mode whose worker is not ready is refused with the daemon's reason; exit 5."""
    control.answers["SetMode"] = Failure(
        grpc.StatusCode.FAILED_PRECONDITION, "lmstudio is not ready.", "MODE_NOT_READY"
    )

    done = commands.ctl("mode", "lmstudio")

    assert done.returncode == 5
    assert "lmstudio is not ready." in done.stderr


def test_cache_list(commands: Commands, control: ScriptedControl) -> None:
    """`cache list` prints readable units for people and plain numbers in JSON."""
    answer = cache_pb2.ListCachesResponse(caches=[_cache("lineages/s1/main")])
    answer.memory.cache_bytes = 5_000_000_000
    answer.memory.cache_limit_bytes = 8_000_000_000
    control.answers["ListCaches"] = answer

    for_people = commands.ctl("cache", "list")
    document = json.loads(commands.ctl("cache", "list", "--json").stdout)

    assert "lineage   18490  5.0 GB" in for_people.stdout
    assert "1 cache, 5.0 GB of 8.0 GB" in for_people.stdout
    assert document["caches"][0]["bytes"] == 5_000_000_000
    assert document["caches"][0]["kind"] == "lineage"
    assert document["memory"]["cache_limit_bytes"] == 8_000_000_000
    assert "next_page_token" not in document


def test_cache_show(commands: Commands, control: ScriptedControl) -> None:
    """`cache show` prints one cache; an unknown name exits with 4 and the daemon's message."""
    control.answers["GetCache"] = cache_pb2.GetCacheResponse(cache=_cache("prefixes/1a"))
    found = commands.ctl("cache", "show", "prefixes/1a", "--json")
    for_people = commands.ctl("cache", "show", "prefixes/1a")
    control.answers["GetCache"] = Failure(
        grpc.StatusCode.NOT_FOUND, "No cache is named x.", "CACHE_NOT_FOUND"
    )
    missing = commands.ctl("cache", "show", "x")

    assert json.loads(found.stdout)["cache"]["name"] == "prefixes/1a"
    assert "5000000000 (5.0 GB)" in for_people.stdout
    assert missing.returncode == 4
    assert "No cache is named x." in missing.stderr


def test_prune_conditions_combine_in_a_dry_run(
    commands: Commands, control: ScriptedControl
) -> None:
    """All conditions reach the daemon together, without force unless --yes."""
    control.answers["PruneCaches"] = cache_pb2.PruneCachesResponse(
        caches=[_cache("lineages/s1/main")], freed_bytes=5_000_000_000, remaining_bytes=1000
    )
    conditions = ["--session", "s1", "--older-than", "2h", "--to", "2GB"]

    dry = commands.ctl("cache", "prune", *conditions)
    real = commands.ctl("cache", "prune", "--all", "--yes", "--json")

    first, second = control.requests("PruneCaches")
    assert first.filter.session_id == "s1"
    assert first.filter.older_than.seconds == 7200
    assert first.filter.to_bytes == 2_000_000_000
    assert (first.filter.all, first.force) == (False, False)
    assert "Would free 5.0 GB" in dry.stdout
    assert "--yes" in dry.stderr
    assert (second.filter.all, second.force) == (True, True)
    assert not second.filter.HasField("older_than")
    assert not second.filter.HasField("to_bytes")
    assert json.loads(real.stdout)["freed_bytes"] == 5_000_000_000
    assert json.loads(real.stdout)["dry_run"] is False


@pytest.mark.parametrize("arguments", [[], ["--older-than", "soon"], ["--to", "much"], ["--yes"]])
def test_prune_without_sound_conditions_exits_2(
    commands: Commands, control: ScriptedControl, arguments: list[str]
) -> None:
    """Without a valid condition nothing is sent to the daemon; exit 2."""
    done = commands.ctl("cache", "prune", *arguments)

    assert done.returncode == 2
    assert control.calls == []


def test_prune_to_nothing(commands: Commands, control: ScriptedControl) -> None:
    """`--to 0` is a condition, different from none."""
    commands.ctl("cache", "prune", "--to", "0")

    prune_filter = control.requests("PruneCaches")[0].filter
    assert prune_filter.HasField("to_bytes")
    assert prune_filter.to_bytes == 0


def test_workers(commands: Commands, control: ScriptedControl) -> None:
    """`worker list` and `worker restart NAME` show workers in one shape."""
    workers = ready_status().workers
    control.answers["ListWorkers"] = control_pb2.ListWorkersResponse(workers=workers)
    control.answers["RestartWorker"] = control_pb2.RestartWorkerResponse(worker=workers[1])

    listed = commands.ctl("worker", "list", "--json")
    restarted = commands.ctl("worker", "restart", "mlx", "--json")

    assert [worker["name"] for worker in json.loads(listed.stdout)["workers"]] == [
        "frontend",
        "mlx",
    ]
    assert control.requests("RestartWorker")[0].name == "mlx"
    assert json.loads(restarted.stdout)["worker"]["state"] == "ready"


def test_worker_forget(commands: Commands, control: ScriptedControl) -> None:
    """`worker forget MODE` prints what was learned of the mode's server."""
    learned = control_pb2.ForgetLearnedResponse(learned=["refuses top_k"])
    control.answers["ForgetLearned"] = learned
    done = commands.ctl("worker", "forget", "openrouter")
    assert "openrouter" in done.stdout
    assert "refuses top_k" in done.stdout
    assert control.requests("ForgetLearned")[0].mode == "openrouter"
    printed = json.loads(commands.ctl("worker", "forget", "openrouter", "--json").stdout)
    assert printed["learned"] == ["refuses top_k"]


def test_metrics(commands: Commands, control: ScriptedControl) -> None:
    """`metrics` prints a table, Prometheus text, or JSON with labels."""
    control.answers["GetMetrics"] = control_pb2.GetMetricsResponse(
        text=b'anyclaude_requests_total{mode="mlx-lm"} 3\n',
        metrics=[
            control_pb2.Metric(name="anyclaude_requests_total", labels={"mode": "mlx-lm"}, value=3),
            control_pb2.Metric(name="anyclaude_ratio", value=float("nan")),
        ],
    )

    as_table = commands.ctl("metrics")
    as_text = commands.ctl("metrics", "--prometheus")
    document = json.loads(commands.ctl("metrics", "--json").stdout)

    assert "3  anyclaude_requests_total{mode=mlx-lm}" in as_table.stdout
    assert "nan  anyclaude_ratio" in as_table.stdout
    assert as_text.stdout == 'anyclaude_requests_total{mode="mlx-lm"} 3\n'
    assert document["metrics"][0] == {
        "name": "anyclaude_requests_total",
        "labels": {"mode": "mlx-lm"},
        "value": 3.0,
    }
    assert document["metrics"][1]["value"] is None


def test_cache_explain(commands: Commands, control: ScriptedControl) -> None:
    """Table and document have the cause, tiers, changed fields and both texts."""
    explanation = cache_pb2.Explanation(
        request_id="req_1",
        session_id="s1",
        cause=worker_pb2.REUSE_CAUSE_TOOLS_CHANGED,
        prompt_tokens=100,
        reused_memory_tokens=20,
        reused_disk_tokens=10,
        reused_ahead_tokens=15,
        computed_tokens=70,
        divergence=cache_pb2.Divergence(offset=30, before="Runs", kept=" one\n", came=" two\n"),
        tools=[
            cache_pb2.ToolChange(
                name="Bash", kind=cache_pb2.CHANGE_KIND_CHANGED, fields=["description"]
            )
        ],
    )
    control.answers["ExplainCache"] = cache_pb2.ExplainCacheResponse(explanation=explanation)

    for_people = commands.ctl("cache", "explain", "req_1").stdout
    document = json.loads(commands.ctl("cache", "explain", "req_1", "--json").stdout)["explanation"]

    assert control.requests("ExplainCache")[0].request_id == "req_1"
    control.answers["ListRequests"] = control_pb2.ListRequestsResponse(
        records=[frontend_pb2.RequestRecord(request_id=each) for each in ("req_20", "req_17")]
    )
    commands.ctl("cache", "explain", "req_1")
    assert control.requests("ExplainCache")[-1].request_id == "req_17"
    assert "tools_changed: the tools changed" in for_people
    assert "30 of 100 tokens (20 memory, 10 disk)" in for_people
    assert "15 of them computed while nobody waited" in for_people
    assert "Bash changed: description" in for_people
    assert "' one\\n'" in for_people
    assert document["cause"] == "tools_changed"
    assert document["divergence"]["came"] == " two\n"
    assert document["divergence"]["message"] is None


def test_every_cause_has_its_sentence() -> None:
    """The CLI has a sentence for every cause of the contract."""
    kind = worker_pb2.ReuseCause.DESCRIPTOR
    causes = {enum_word(kind, number) for number in kind.values_by_number}

    assert causes - SENTENCES.keys() == {"unspecified"}


def test_requests(commands: Commands, control: ScriptedControl) -> None:
    """`requests -n N` requests N records and shows tokens and times within 80 columns."""
    record = frontend_pb2.RequestRecord(
        request_id="req_0123456789abcdef01234567",
        status=200,
        outcome=frontend_pb2.OUTCOME_COMPLETED,
        identity=worker_pb2.Identity(request_class=worker_pb2.REQUEST_CLASS_MAIN),
        reuse_cause=worker_pb2.REUSE_CAUSE_EXTENDED,
        usage=worker_pb2.Usage(
            input_tokens=1, cache_read_tokens=18_000, cache_creation_tokens=49, output_tokens=7
        ),
    )
    record.start_time.GetCurrentTime()
    record.time_to_first_token.FromMilliseconds(310)
    record.duration.FromMilliseconds(1500)
    control.answers["ListRequests"] = control_pb2.ListRequestsResponse(records=[record])

    for_people = commands.ctl("requests", "-n", "5")
    document = json.loads(commands.ctl("requests", "--json").stdout)

    assert control.requests("ListRequests")[0].page_size == 5
    shown = " ".join(for_people.stdout.split())
    assert "18,000 50 7 0.31 s req_01234567 completed" in shown
    assert all(len(line) <= 80 for line in for_people.stdout.splitlines())
    assert document["requests"][0]["time_to_first_token"] == 0.31
    assert document["requests"][0]["outcome"] == "completed"
    assert document["requests"][0]["timings"] is None


def _transcript(commands: Commands, session: str) -> Path:
    """The path of the file that Claude Code keeps of a session."""
    folder = Path(commands.environ["HOME"]) / ".claude/projects/-home-me-shop"
    folder.mkdir(parents=True)
    return folder / f"{session}.jsonl"


def test_caches_are_shown_by_conversation(commands: Commands, control: ScriptedControl) -> None:
    """The transcript's title stands behind the name of a cache without a label."""
    line = {"type": "user", "message": {"content": "Sort the orders"}, "cwd": "/home/me/shop"}
    _transcript(commands, "s1").write_text(json.dumps(line))
    control.answers["ListCaches"] = cache_pb2.ListCachesResponse(
        caches=[
            cache_pb2.Cache(name="lineages/s1/main", session_id="s1"),
            cache_pb2.Cache(name="lineages/s1/agent", session_id="s1", label="mine"),
            cache_pb2.Cache(name="lineages/s2/main", session_id="s2"),
        ]
    )

    done = commands.ctl("cache", "list")

    shown = [line.split("  ")[-1].strip() for line in done.stdout.splitlines()[1:4]]
    assert shown == [
        "lineages/s1/main shop: Sort the orders",
        'lineages/s1/agent "mine"',
        "lineages/s2/main",
    ]


def test_requests_are_shown_by_conversation(commands: Commands, control: ScriptedControl) -> None:
    """Claude Code's own transcript has the folder and the first words; a failure comes first."""
    transcript = _transcript(commands, "s1")
    lines: list[object] = [
        {"type": "summary", "summary": "x"},
        ["not an object"],
        {"type": "user", "isMeta": True, "message": {"content": "Caveat"}, "cwd": "/home/me/shop"},
        {"type": "user", "message": {"content": "<command-name>/clear</command-name>"}},
        {
            "type": "user",
            "message": {
                "content": [
                    {"type": "text", "text": "<system-reminder>x</system-reminder>"},
                    {"type": "text", "text": "Sort\nthe\x1b[31m orders by their date"},
                ]
            },
            "cwd": "/home/me/shop",
        },
    ]
    text = "\n".join(json.dumps(line) for line in lines)
    transcript.write_text(f"{text}\n{{cut")
    completed = frontend_pb2.OUTCOME_COMPLETED
    records = [
        frontend_pb2.RequestRecord(
            outcome=outcome,
            error_message=message,
            identity=worker_pb2.Identity(session_id=session, request_class=kind),
        )
        for session, kind, outcome, message in (
            ("s1", worker_pb2.REQUEST_CLASS_MAIN, completed, ""),
            ("s1", worker_pb2.REQUEST_CLASS_SUBAGENT, completed, ""),
            ("s1", worker_pb2.REQUEST_CLASS_MAIN, frontend_pb2.OUTCOME_FAILED, "No memory."),
            ("s2", worker_pb2.REQUEST_CLASS_MAIN, completed, ""),
        )
    ]
    control.answers["ListRequests"] = control_pb2.ListRequestsResponse(records=records)

    done = commands.ctl("requests")

    shown = [line.split("  ")[-1].strip() for line in done.stdout.splitlines()[1:]]
    assert shown == [
        "shop: Sort the[31m order",
        "subagent shop: Sort the[",
        "No memory.; shop: Sort the[31m order",
        "completed",
    ]
    assert "orders" not in commands.ctl("requests", "--json").stdout


def test_cache_export(commands: Commands, control: ScriptedControl) -> None:
    """The path is relative to the command's folder, and left-out segments are printed."""
    control.answers["ExportCaches"] = cache_pb2.ExportCachesResponse(
        segments=3, tokens=500, lineages=2, bytes=1_500_000, left_out_segments=1
    )

    done = commands.ctl("cache", "export", "caches", "--session", "s1", "--force", "--json")
    for_people = commands.ctl("cache", "export", "caches")

    sent = control.requests("ExportCaches")[0]
    path = str(commands.home / "caches")
    assert (sent.path, sent.session_id, sent.overwrite) == (path, "s1", True)
    assert (done.returncode, json.loads(done.stdout)["path"]) == (0, path)
    assert "Segments left out: 1." in done.stderr
    assert "500 tokens in 3 segments of 2 conversations, 1.5 MB" in for_people.stdout


def test_cache_import_without_room_exits_1(commands: Commands, control: ScriptedControl) -> None:
    """Segments that do not fit, or lose their pin, are counted, with the setting to raise."""
    control.answers["ImportCaches"] = cache_pb2.ImportCachesResponse(
        segments=1, left_out_segments=2, unpinned_segments=1
    )

    done = commands.ctl("cache", "import", "caches", "--json")

    assert done.returncode == 1
    assert json.loads(done.stdout)["left_out_segments"] == 2
    assert "Segments that did not fit: 2." in done.stderr
    assert "cache.max_pinned_fraction" in done.stderr


@pytest.mark.parametrize(
    ("code", "exit_code"),
    [
        (grpc.StatusCode.NOT_FOUND, 4),
        (grpc.StatusCode.DATA_LOSS, 1),
        (grpc.StatusCode.FAILED_PRECONDITION, 5),
        (grpc.StatusCode.RESOURCE_EXHAUSTED, 5),
    ],
)
def test_cache_import_refused(
    commands: Commands, control: ScriptedControl, code: grpc.StatusCode, exit_code: int
) -> None:
    """Each refusal has its exit code and the daemon's message."""
    control.answers["ImportCaches"] = Failure(code, "It is not for here.", "EXPORT_REFUSED")

    done = commands.ctl("cache", "import", "caches")

    assert (done.returncode, done.stdout) == (exit_code, "")
    assert "It is not for here." in done.stderr
