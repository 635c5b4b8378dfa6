"""All settings: their names, types, defaults and bounds. Units are part of the names.

`anyclaude.runtime.loading` reads them. CONTRIBUTING.md, "Add a setting", lists the steps.
"""

from enum import StrEnum
from typing import Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from anyclaude.runtime.upstreams import (
    UpstreamSettings,
    default_upstreams,
    with_presets,
)


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class ServerSettings(_Section):
    """The HTTP endpoint that Claude Code talks to."""

    host: Literal["127.0.0.1", "::1", "localhost"] = "127.0.0.1"
    # 0 means any free port; `anyclaudectl status` shows it.
    port: int = Field(49152, ge=0, le=65535)
    # A file with the token that every request must present; empty: no token is needed.
    auth_token_file: str = ""
    # Names without a port that the Host header may have, besides those of loopback.
    allowed_hosts: list[str] = []
    # Origins of web pages to serve, besides those of loopback and of desktop apps.
    allowed_origins: list[str] = []
    max_body_bytes: int = Field(32 * 1024 * 1024, ge=1024, le=40 * 1024 * 1024)
    # Bytes of all request bodies that are in memory; further ones are read when others are done.
    # Each takes several times its size. Those that wait longer than the second get 529. Bodies
    # whose declared length is at most the third never wait.
    body_memory_bytes: int = Field(48 * 1024 * 1024, ge=1024)
    body_wait_seconds: float = Field(30.0, gt=0)
    small_body_bytes: int = Field(1024 * 1024, ge=0, le=40 * 1024 * 1024)
    ping_interval_seconds: float = Field(5.0, gt=0, le=10)
    # How long the HTTP status waits for the worker to accept or refuse the request.
    accept_wait_seconds: float = Field(3.0, ge=0, le=60)
    # How long a request waits for the next worker if its worker dies; 0: it ends in an error at
    # once.
    worker_restart_wait_seconds: float = Field(120.0, ge=0, le=3600)
    # The longest answer that the next worker continues; each token takes 4 bytes until its end.
    continued_answer_tokens: int = Field(131_072, ge=0)
    # Requests in progress at a time; further ones get 529.
    max_requests: int = Field(64, ge=1)
    drain_timeout_seconds: float = Field(10.0, ge=0, le=300)
    # The machine does not go to sleep by itself while a request runs, and for so long after it.
    keep_awake: bool = True
    keep_awake_seconds: float = Field(60.0, ge=0, le=86_400)
    # A client is disconnected when it reads nothing for this long while data is waiting for it, or
    # when the rest of its request does not arrive.
    client_stall_seconds: float = Field(60.0, gt=0)


class ModelSettings(_Section):
    """The local model."""

    # A folder, or a hub id that is in the local hub cache; empty: the demo model.
    path: str = ""
    # The name that clients see; empty: derived from the path.
    name: str = ""
    # A window smaller than the model's own saves memory; 0: the model's own.
    context_window_tokens: int = Field(0, ge=0)
    # Put earlier answers into later prompts with the tokens that the model generated, instead of
    # rendering them again with its template. "auto" does so where the client asks to keep all
    # thinking, as Claude Code does. `python -m benchmarks.spliced_turns` compares both.
    # At most `spliced_bytes` of answers are remembered, in memory and again on disk.
    spliced_turns: bool | Literal["auto"] = "auto"
    spliced_bytes: int = Field(64 * 1024**2, ge=1)
    # Used when a request names none; Claude Code always names one.
    temperature: float = Field(0.7, ge=0, le=2)


class AnswerSettings(_Section):
    """The answers of the local model."""

    # End an answer that repeats itself, with what was written and the reason.
    end_loops: bool = True
    # So many tokens at the end of an answer that are one sequence, ten times or more, are a loop:
    # in prose and thinking, and in calls and code blocks, where files have equal lines.
    loop_prose_tokens: int = Field(1_500, ge=100)
    loop_code_tokens: int = Field(12_000, ge=100)
    # So many equal calls in a row are a loop.
    loop_equal_calls: int = Field(4, ge=2)
    # After so many turns in a row whose calls could not be read, the answer is ended.
    unreadable_turns: int = Field(3, ge=0)


class DocumentSettings(_Section):
    """How much of a PDF document is read for a model that reads text only."""

    pdf_max_pages: int = Field(600, ge=1)
    # Of the pages' content, expanded; reading takes about a second for each megabyte.
    pdf_max_content_bytes: int = Field(8 * 1024**2, ge=1)
    # Of the text; the default is more than fits into a window of a million tokens.
    pdf_max_characters: int = Field(4_000_000, ge=1)
    # PDFs whose text is kept, since a conversation sends its documents again with each turn.
    cached_pdfs: int = Field(4, ge=0)


class SearchBackend(StrEnum):
    NONE = ""
    SEARXNG = "searxng"
    BRAVE = "brave"
    TAVILY = "tavily"


class SearchSettings(_Section):
    """What answers web searches. Without a backend, nothing is searched."""

    backend: SearchBackend = SearchBackend.NONE
    # The backend's address; empty: the service's own, or SearXNG at 127.0.0.1:8080.
    url: str = ""
    # The file with the key that Brave and Tavily need.
    api_key_file: str = ""
    max_results: int = Field(8, ge=1, le=20)
    timeout_seconds: float = Field(15.0, gt=0)

    @field_validator("url")
    @classmethod
    def _check_url(cls, url: str) -> str:
        if url and not url.startswith(("http://", "https://")):
            raise ValueError("expected an address like http://127.0.0.1:8080")
        return url


class VisionSettings(_Section):
    """What describes images to the local model, which reads text only."""

    # A mode whose server sees images, such as lmstudio; empty: images are only mentioned.
    mode: str = ""
    # How long one description may take and be, and how many are kept, the newest ones.
    timeout_seconds: float = Field(120.0, gt=0)
    max_tokens: int = Field(1024, ge=16)
    max_descriptions: int = Field(1000, ge=1)


class CacheSettings(_Section):
    """The KV caches."""

    # 0: the machine's memory minus the weights decides.
    memory_limit_bytes: int = Field(0, ge=0)
    # The share of the caches that is evicted when the limit is exceeded, oldest first.
    prune_fraction: float = Field(0.2, gt=0, le=1)
    # Checkpoints per conversation, for layers that cannot be cut at any length.
    checkpoints_per_lineage: int = Field(8, ge=2)
    # Stable prefixes (tools and instructions) that are kept.
    max_prefixes: int = Field(16, ge=1)
    # A shorter prefix is not kept: computing it again is cheaper.
    min_prefix_tokens: int = Field(256, ge=1)
    # The share of `memory_limit_bytes` that pinned caches may use.
    max_pinned_fraction: float = Field(0.5, ge=0, le=1)
    # After this long without a request, a conversation's live cache is moved to the prefix tree.
    live_idle_seconds: float = Field(120.0, ge=0)
    # What the live caches of several active conversations may use, as a share of the prefix tree.
    live_fraction: float = Field(0.5, ge=0)
    # For the caches of all models together; 0: nothing is stored on disk.
    disk_limit_bytes: int = Field(20 * 1024**3, ge=0)
    # Their number, since the worker keeps about three kilobytes in memory for each.
    disk_max_records: int = Field(5000, ge=100)
    # Load the stored stable prefixes before the first request.
    warm_at_start: bool = True
    # What `cache explain` may remember, in memory only: conversations, bytes, explanations.
    explain_conversations: int = Field(256, ge=1)
    explain_memory_bytes: int = Field(64 * 1024**2, ge=0)
    explain_requests: int = Field(1000, ge=1)
    # How often the machine's memory pressure is checked.
    pressure_check_seconds: float = Field(5.0, gt=0)
    # How long `status` and `anyclaude` show what a change of model did to the caches.
    notice_seconds: float = Field(3600.0, ge=0)
    # 8 or 4 quantises the KV caches from the first token; 0: the model's own type.
    kv_bits: Literal[0, 4, 8] = 0


# From this share of Metal's working set on, macOS may compress the model.
NEAR_WORKING_SET: Final = 0.9


class MlxSettings(_Section):
    """The MLX worker's scheduler."""

    # 0: about a second of work by measured speed, from 256 to 2,048.
    prefill_chunk_tokens: int = Field(0, ge=0, le=8192)
    # A smaller chunk while another request decodes, so that its answer keeps its pace.
    shared_prefill_chunk_tokens: int = Field(256, ge=16, le=8192)
    # Smaller chunks where attention without a fused kernel would use more memory for its scores.
    attention_scores_bytes: int = Field(1024**3, ge=1)
    decode_steps_per_turn: int = Field(8, ge=1)
    # How many requests may share a pass of the model when they decode (1: none).
    max_batch: int = Field(8, ge=1, le=64)
    # How many guessed tokens one pass of the model may verify at most (0: none), and how many
    # of the last tokens must have come before, in this order, for a guess.
    draft_tokens: int = Field(15, ge=0, le=127)
    draft_match_tokens: int = Field(3, ge=1, le=16)
    # Whether to compute what a next question will begin with while nobody waits: never, on mains
    # power, or always; and after how long without a request.
    compute_ahead: Literal["never", "mains", "always"] = "mains"
    compute_ahead_after_seconds: float = Field(2.0, ge=0)
    max_running_requests: int = Field(8, ge=1)
    max_queued_requests: int = Field(64, ge=0)
    # How much earlier than a main conversation's request a subagent's must have come to start
    # before it, and a utility call's before a subagent's.
    class_delay_seconds: float = Field(30.0, ge=0)
    # The pool of freed buffers that MLX keeps.
    buffer_cache_limit_bytes: int = Field(2 * 1024**3, ge=0)
    # Refuse a model or a request that does not fit into the machine's memory.
    memory_check: bool = True
    # The part of that memory that stays free for everything else, prefill's temporaries included.
    memory_reserve_bytes: int = Field(256 * 1024**2, ge=0)
    # Memory of MLX that macOS may not compress or swap out; 0: MLX's default, which is none.
    wired_limit_bytes: int = Field(0, ge=0)
    stop_grace_seconds: float = Field(5.0, ge=0)


class GrammarSettings(_Section):
    """The grammars that keep tool calls and structured answers valid for their schemas."""

    # How many compiled grammars and prepared tools are kept. A request of 1,000 tools uses 1,000.
    cached_grammars: int = Field(16, ge=1)
    cached_tools: int = Field(4096, ge=1)
    # Work of llguidance after which a schema counts as too large: about 50,000 steps take a
    # millisecond when a grammar is compiled, and about 14,000 for each token.
    compile_steps: int = Field(1_000_000, ge=1)
    token_steps: int = Field(200_000, ge=1)
    # Sizes after which it counts as too large; a state takes about 2 kB.
    max_enum_values: int = Field(2000, ge=1)
    max_symbols: int = Field(500_000, ge=1)
    max_states: int = Field(250_000, ge=1)
    # Random tokens that are written to try a grammar whose cost only shows while it is used.
    trial_tokens: int = Field(32, ge=1)


class RelaySettings(_Section):
    """The relay worker; its servers are in `upstreams`."""

    # How long responses in progress may take to finish when the worker stops.
    stop_grace_seconds: float = Field(5.0, ge=0)


class AutoRule(_Section):
    """`[[auto.rules]]`: a request that meets all conditions uses these modes, in this order."""

    # Empty: every class.
    classes: list[Literal["main", "subagent", "compaction", "utility"]] = []
    tools_offered: bool | None = None
    # Whether the conversation already contains a tool call.
    tools_used: bool | None = None
    # The prompt's tokens, estimated from the length of the request.
    over_tokens: int = Field(0, ge=0)
    # When a mode fails before its first byte, the next one is tried.
    use: list[str] = Field(min_length=1)


class AutoSettings(_Section):
    """Mode `auto`; without a matching rule only servers of this machine are used, mlx-lm first."""

    rules: list[AutoRule] = []


class ChooserSettings(_Section):
    """What `anyclaude` shows on a terminal: a question if no mode is given, and a summary."""

    show: bool = True
    summary: bool = True
    # The mode behind each workflow.
    analysis: str = "mlx-lm"
    edit: str = "lmstudio"
    cloud: str = "claude"


class SupervisorSettings(_Section):
    """How child processes are started, stopped and restarted."""

    # Open descriptors that each process is allowed, as far as the hard limit permits.
    descriptors: int = Field(8192, ge=64)
    start_timeout_seconds: float = Field(600.0, gt=0)
    stop_timeout_seconds: float = Field(15.0, gt=0)
    # A child that makes no progress for so long is ended, with its stack in the log, and started
    # again: its event loop, a prefill chunk, a turn of decode steps, and a command between turns.
    loop_timeout_seconds: float = Field(15.0, ge=5)
    prefill_chunk_timeout_seconds: float = Field(120.0, ge=5)
    decode_turn_timeout_seconds: float = Field(60.0, ge=5)
    command_timeout_seconds: float = Field(600.0, ge=5)
    # How long a child that is ended so may take to write its stack before it is killed.
    abort_timeout_seconds: float = Field(5.0, gt=0)
    # How long running requests and pending writes may take before a stop-first mode starts.
    make_room_timeout_seconds: float = Field(300.0, gt=0)
    backoff_initial_seconds: float = Field(0.5, gt=0)
    backoff_max_seconds: float = Field(30.0, gt=0)
    # A child that is ready for this long resets the backoff, and its death does not count.
    stable_seconds: float = Field(60.0, gt=0)
    # After this many deaths within `crash_window_seconds` the supervisor gives up.
    crash_limit: int = Field(5, ge=1)
    crash_window_seconds: float = Field(120.0, gt=0)
    # Then it tries once after each such pause.
    give_up_retry_seconds: float = Field(900.0, gt=0)


class LogSettings(_Section):
    """The daemon's log file, and its records of requests."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    file_max_bytes: int = Field(10 * 1024 * 1024, ge=4096)
    file_count: int = Field(5, ge=1)
    # Request records that are kept, and whether also over a restart of the daemon.
    max_records: int = Field(1000, ge=1)
    keep_records: bool = True


# The daemon's own children, from which servers that the service runs are told apart by name.
_CHILD_NAMES: Final = frozenset({"frontend", "mlx", "relay"})


class Settings(_Section):
    """All settings; also the shape of config.toml."""

    mode: str = "mlx-lm"
    server: ServerSettings = ServerSettings()
    model: ModelSettings = ModelSettings()
    answers: AnswerSettings = AnswerSettings()
    documents: DocumentSettings = DocumentSettings()
    search: SearchSettings = SearchSettings()
    vision: VisionSettings = VisionSettings()
    cache: CacheSettings = CacheSettings()
    mlx: MlxSettings = MlxSettings()
    grammar: GrammarSettings = GrammarSettings()
    relay: RelaySettings = RelaySettings()
    auto: AutoSettings = AutoSettings()
    chooser: ChooserSettings = ChooserSettings()
    # By mode. The presets are always there.
    upstreams: dict[str, UpstreamSettings] = Field(default_factory=default_upstreams)
    supervisor: SupervisorSettings = SupervisorSettings()
    log: LogSettings = LogSettings()

    @field_validator("upstreams")
    @classmethod
    def _check_commands(cls, tables: dict[str, UpstreamSettings]) -> dict[str, UpstreamSettings]:
        for name, table in tables.items():
            if table.command and name in _CHILD_NAMES:
                raise ValueError(f"a server with a command cannot be named {name}: a process is")
        return tables

    @field_validator("upstreams", mode="before")
    @classmethod
    def _complete_upstreams(cls, tables: Any) -> Any:
        return with_presets(tables)
