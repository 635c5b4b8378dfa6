import datetime

from google.protobuf import duration_pb2 as _duration_pb2
from google.protobuf import timestamp_pb2 as _timestamp_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class RequestClass(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    REQUEST_CLASS_UNSPECIFIED: _ClassVar[RequestClass]
    REQUEST_CLASS_MAIN: _ClassVar[RequestClass]
    REQUEST_CLASS_SUBAGENT: _ClassVar[RequestClass]
    REQUEST_CLASS_COMPACTION: _ClassVar[RequestClass]
    REQUEST_CLASS_UTILITY: _ClassVar[RequestClass]

class CacheMissReason(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    CACHE_MISS_REASON_UNSPECIFIED: _ClassVar[CacheMissReason]
    CACHE_MISS_REASON_MODEL_CHANGED: _ClassVar[CacheMissReason]
    CACHE_MISS_REASON_SYSTEM_CHANGED: _ClassVar[CacheMissReason]
    CACHE_MISS_REASON_TOOLS_CHANGED: _ClassVar[CacheMissReason]
    CACHE_MISS_REASON_MESSAGES_CHANGED: _ClassVar[CacheMissReason]
    CACHE_MISS_REASON_PREVIOUS_MESSAGE_NOT_FOUND: _ClassVar[CacheMissReason]
    CACHE_MISS_REASON_UNAVAILABLE: _ClassVar[CacheMissReason]

class StopReason(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    STOP_REASON_UNSPECIFIED: _ClassVar[StopReason]
    STOP_REASON_END_TURN: _ClassVar[StopReason]
    STOP_REASON_MAX_TOKENS: _ClassVar[StopReason]
    STOP_REASON_STOP_SEQUENCE: _ClassVar[StopReason]
    STOP_REASON_TOOL_USE: _ClassVar[StopReason]
    STOP_REASON_REFUSAL: _ClassVar[StopReason]
    STOP_REASON_MODEL_CONTEXT_WINDOW_EXCEEDED: _ClassVar[StopReason]
    STOP_REASON_PAUSE_TURN: _ClassVar[StopReason]

class ReuseCause(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    REUSE_CAUSE_UNSPECIFIED: _ClassVar[ReuseCause]
    REUSE_CAUSE_FIRST_SIGHT: _ClassVar[ReuseCause]
    REUSE_CAUSE_NEW_LINEAGE: _ClassVar[ReuseCause]
    REUSE_CAUSE_EXTENDED: _ClassVar[ReuseCause]
    REUSE_CAUSE_EDITED_HISTORY: _ClassVar[ReuseCause]
    REUSE_CAUSE_REJOINED: _ClassVar[ReuseCause]
    REUSE_CAUSE_NOT_KEPT: _ClassVar[ReuseCause]
    REUSE_CAUSE_EVICTED: _ClassVar[ReuseCause]
    REUSE_CAUSE_PRUNED: _ClassVar[ReuseCause]
    REUSE_CAUSE_CORRUPT_RECORD: _ClassVar[ReuseCause]
    REUSE_CAUSE_CHECKPOINT: _ClassVar[ReuseCause]
    REUSE_CAUSE_TOOLS_CHANGED: _ClassVar[ReuseCause]
    REUSE_CAUSE_INSTRUCTIONS_CHANGED: _ClassVar[ReuseCause]
    REUSE_CAUSE_THINKING_CHANGED: _ClassVar[ReuseCause]
    REUSE_CAUSE_MODEL_CHANGED: _ClassVar[ReuseCause]
    REUSE_CAUSE_THINKING_DROPPED: _ClassVar[ReuseCause]
    REUSE_CAUSE_ANSWER_RENDERED_DIFFERENTLY: _ClassVar[ReuseCause]
    REUSE_CAUSE_TEMPLATE_VARIED: _ClassVar[ReuseCause]
    REUSE_CAUSE_FORGOTTEN: _ClassVar[ReuseCause]
    REUSE_CAUSE_UNKNOWN: _ClassVar[ReuseCause]
    REUSE_CAUSE_COMPUTED_AHEAD: _ClassVar[ReuseCause]

class DiskState(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    DISK_STATE_UNSPECIFIED: _ClassVar[DiskState]
    DISK_STATE_SERVING: _ClassVar[DiskState]
    DISK_STATE_FAILING: _ClassVar[DiskState]
    DISK_STATE_SHARED: _ClassVar[DiskState]
    DISK_STATE_STOPPED: _ClassVar[DiskState]

class Dialect(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    DIALECT_UNSPECIFIED: _ClassVar[Dialect]
    DIALECT_OPENAI: _ClassVar[Dialect]
    DIALECT_ANTHROPIC: _ClassVar[Dialect]

class BreakerState(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    BREAKER_STATE_UNSPECIFIED: _ClassVar[BreakerState]
    BREAKER_STATE_CLOSED: _ClassVar[BreakerState]
    BREAKER_STATE_OPEN: _ClassVar[BreakerState]
    BREAKER_STATE_HALF_OPEN: _ClassVar[BreakerState]

class Reachability(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    REACHABILITY_UNSPECIFIED: _ClassVar[Reachability]
    REACHABILITY_REACHABLE: _ClassVar[Reachability]
    REACHABILITY_UNREACHABLE: _ClassVar[Reachability]

class MemoryPressure(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    MEMORY_PRESSURE_UNSPECIFIED: _ClassVar[MemoryPressure]
    MEMORY_PRESSURE_NORMAL: _ClassVar[MemoryPressure]
    MEMORY_PRESSURE_WARN: _ClassVar[MemoryPressure]
    MEMORY_PRESSURE_CRITICAL: _ClassVar[MemoryPressure]
REQUEST_CLASS_UNSPECIFIED: RequestClass
REQUEST_CLASS_MAIN: RequestClass
REQUEST_CLASS_SUBAGENT: RequestClass
REQUEST_CLASS_COMPACTION: RequestClass
REQUEST_CLASS_UTILITY: RequestClass
CACHE_MISS_REASON_UNSPECIFIED: CacheMissReason
CACHE_MISS_REASON_MODEL_CHANGED: CacheMissReason
CACHE_MISS_REASON_SYSTEM_CHANGED: CacheMissReason
CACHE_MISS_REASON_TOOLS_CHANGED: CacheMissReason
CACHE_MISS_REASON_MESSAGES_CHANGED: CacheMissReason
CACHE_MISS_REASON_PREVIOUS_MESSAGE_NOT_FOUND: CacheMissReason
CACHE_MISS_REASON_UNAVAILABLE: CacheMissReason
STOP_REASON_UNSPECIFIED: StopReason
STOP_REASON_END_TURN: StopReason
STOP_REASON_MAX_TOKENS: StopReason
STOP_REASON_STOP_SEQUENCE: StopReason
STOP_REASON_TOOL_USE: StopReason
STOP_REASON_REFUSAL: StopReason
STOP_REASON_MODEL_CONTEXT_WINDOW_EXCEEDED: StopReason
STOP_REASON_PAUSE_TURN: StopReason
REUSE_CAUSE_UNSPECIFIED: ReuseCause
REUSE_CAUSE_FIRST_SIGHT: ReuseCause
REUSE_CAUSE_NEW_LINEAGE: ReuseCause
REUSE_CAUSE_EXTENDED: ReuseCause
REUSE_CAUSE_EDITED_HISTORY: ReuseCause
REUSE_CAUSE_REJOINED: ReuseCause
REUSE_CAUSE_NOT_KEPT: ReuseCause
REUSE_CAUSE_EVICTED: ReuseCause
REUSE_CAUSE_PRUNED: ReuseCause
REUSE_CAUSE_CORRUPT_RECORD: ReuseCause
REUSE_CAUSE_CHECKPOINT: ReuseCause
REUSE_CAUSE_TOOLS_CHANGED: ReuseCause
REUSE_CAUSE_INSTRUCTIONS_CHANGED: ReuseCause
REUSE_CAUSE_THINKING_CHANGED: ReuseCause
REUSE_CAUSE_MODEL_CHANGED: ReuseCause
REUSE_CAUSE_THINKING_DROPPED: ReuseCause
REUSE_CAUSE_ANSWER_RENDERED_DIFFERENTLY: ReuseCause
REUSE_CAUSE_TEMPLATE_VARIED: ReuseCause
REUSE_CAUSE_FORGOTTEN: ReuseCause
REUSE_CAUSE_UNKNOWN: ReuseCause
REUSE_CAUSE_COMPUTED_AHEAD: ReuseCause
DISK_STATE_UNSPECIFIED: DiskState
DISK_STATE_SERVING: DiskState
DISK_STATE_FAILING: DiskState
DISK_STATE_SHARED: DiskState
DISK_STATE_STOPPED: DiskState
DIALECT_UNSPECIFIED: Dialect
DIALECT_OPENAI: Dialect
DIALECT_ANTHROPIC: Dialect
BREAKER_STATE_UNSPECIFIED: BreakerState
BREAKER_STATE_CLOSED: BreakerState
BREAKER_STATE_OPEN: BreakerState
BREAKER_STATE_HALF_OPEN: BreakerState
REACHABILITY_UNSPECIFIED: Reachability
REACHABILITY_REACHABLE: Reachability
REACHABILITY_UNREACHABLE: Reachability
MEMORY_PRESSURE_UNSPECIFIED: MemoryPressure
MEMORY_PRESSURE_NORMAL: MemoryPressure
MEMORY_PRESSURE_WARN: MemoryPressure
MEMORY_PRESSURE_CRITICAL: MemoryPressure

class Identity(_message.Message):
    __slots__ = ("session_id", "agent_id", "parent_agent_id", "request_class")
    SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    AGENT_ID_FIELD_NUMBER: _ClassVar[int]
    PARENT_AGENT_ID_FIELD_NUMBER: _ClassVar[int]
    REQUEST_CLASS_FIELD_NUMBER: _ClassVar[int]
    session_id: str
    agent_id: str
    parent_agent_id: str
    request_class: RequestClass
    def __init__(self, session_id: _Optional[str] = ..., agent_id: _Optional[str] = ..., parent_agent_id: _Optional[str] = ..., request_class: _Optional[_Union[RequestClass, str]] = ...) -> None: ...

class GenerateRequest(_message.Message):
    __slots__ = ("request_id", "body_json", "identity", "mode", "message_id", "generated_token_ids")
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    BODY_JSON_FIELD_NUMBER: _ClassVar[int]
    IDENTITY_FIELD_NUMBER: _ClassVar[int]
    MODE_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_ID_FIELD_NUMBER: _ClassVar[int]
    GENERATED_TOKEN_IDS_FIELD_NUMBER: _ClassVar[int]
    request_id: str
    body_json: bytes
    identity: Identity
    mode: str
    message_id: str
    generated_token_ids: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, request_id: _Optional[str] = ..., body_json: _Optional[bytes] = ..., identity: _Optional[_Union[Identity, _Mapping]] = ..., mode: _Optional[str] = ..., message_id: _Optional[str] = ..., generated_token_ids: _Optional[_Iterable[int]] = ...) -> None: ...

class GenerateResponse(_message.Message):
    __slots__ = ("started", "progress", "block_start", "block_delta", "block_stop", "finished", "failed", "token_ids")
    STARTED_FIELD_NUMBER: _ClassVar[int]
    PROGRESS_FIELD_NUMBER: _ClassVar[int]
    BLOCK_START_FIELD_NUMBER: _ClassVar[int]
    BLOCK_DELTA_FIELD_NUMBER: _ClassVar[int]
    BLOCK_STOP_FIELD_NUMBER: _ClassVar[int]
    FINISHED_FIELD_NUMBER: _ClassVar[int]
    FAILED_FIELD_NUMBER: _ClassVar[int]
    TOKEN_IDS_FIELD_NUMBER: _ClassVar[int]
    started: Started
    progress: Progress
    block_start: BlockStart
    block_delta: BlockDelta
    block_stop: BlockStop
    finished: Finished
    failed: Failed
    token_ids: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, started: _Optional[_Union[Started, _Mapping]] = ..., progress: _Optional[_Union[Progress, _Mapping]] = ..., block_start: _Optional[_Union[BlockStart, _Mapping]] = ..., block_delta: _Optional[_Union[BlockDelta, _Mapping]] = ..., block_stop: _Optional[_Union[BlockStop, _Mapping]] = ..., finished: _Optional[_Union[Finished, _Mapping]] = ..., failed: _Optional[_Union[Failed, _Mapping]] = ..., token_ids: _Optional[_Iterable[int]] = ...) -> None: ...

class Started(_message.Message):
    __slots__ = ("usage", "diagnostics")
    USAGE_FIELD_NUMBER: _ClassVar[int]
    DIAGNOSTICS_FIELD_NUMBER: _ClassVar[int]
    usage: Usage
    diagnostics: Diagnostics
    def __init__(self, usage: _Optional[_Union[Usage, _Mapping]] = ..., diagnostics: _Optional[_Union[Diagnostics, _Mapping]] = ...) -> None: ...

class Diagnostics(_message.Message):
    __slots__ = ("cache_miss_reason", "cache_missed_input_tokens")
    CACHE_MISS_REASON_FIELD_NUMBER: _ClassVar[int]
    CACHE_MISSED_INPUT_TOKENS_FIELD_NUMBER: _ClassVar[int]
    cache_miss_reason: CacheMissReason
    cache_missed_input_tokens: int
    def __init__(self, cache_miss_reason: _Optional[_Union[CacheMissReason, str]] = ..., cache_missed_input_tokens: _Optional[int] = ...) -> None: ...

class Progress(_message.Message):
    __slots__ = ("prefilled_tokens", "prompt_tokens")
    PREFILLED_TOKENS_FIELD_NUMBER: _ClassVar[int]
    PROMPT_TOKENS_FIELD_NUMBER: _ClassVar[int]
    prefilled_tokens: int
    prompt_tokens: int
    def __init__(self, prefilled_tokens: _Optional[int] = ..., prompt_tokens: _Optional[int] = ...) -> None: ...

class BlockStart(_message.Message):
    __slots__ = ("index", "text", "thinking", "tool_use")
    INDEX_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    THINKING_FIELD_NUMBER: _ClassVar[int]
    TOOL_USE_FIELD_NUMBER: _ClassVar[int]
    index: int
    text: TextBlock
    thinking: ThinkingBlock
    tool_use: ToolUseBlock
    def __init__(self, index: _Optional[int] = ..., text: _Optional[_Union[TextBlock, _Mapping]] = ..., thinking: _Optional[_Union[ThinkingBlock, _Mapping]] = ..., tool_use: _Optional[_Union[ToolUseBlock, _Mapping]] = ...) -> None: ...

class TextBlock(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ThinkingBlock(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ToolUseBlock(_message.Message):
    __slots__ = ("id", "name")
    ID_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    id: str
    name: str
    def __init__(self, id: _Optional[str] = ..., name: _Optional[str] = ...) -> None: ...

class BlockDelta(_message.Message):
    __slots__ = ("index", "text", "thinking", "signature", "partial_json")
    INDEX_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    THINKING_FIELD_NUMBER: _ClassVar[int]
    SIGNATURE_FIELD_NUMBER: _ClassVar[int]
    PARTIAL_JSON_FIELD_NUMBER: _ClassVar[int]
    index: int
    text: str
    thinking: str
    signature: str
    partial_json: str
    def __init__(self, index: _Optional[int] = ..., text: _Optional[str] = ..., thinking: _Optional[str] = ..., signature: _Optional[str] = ..., partial_json: _Optional[str] = ...) -> None: ...

class BlockStop(_message.Message):
    __slots__ = ("index",)
    INDEX_FIELD_NUMBER: _ClassVar[int]
    index: int
    def __init__(self, index: _Optional[int] = ...) -> None: ...

class Finished(_message.Message):
    __slots__ = ("stop_reason", "stop_sequence", "usage", "timings", "reuse_cause", "applied_edits", "decoded")
    STOP_REASON_FIELD_NUMBER: _ClassVar[int]
    STOP_SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    USAGE_FIELD_NUMBER: _ClassVar[int]
    TIMINGS_FIELD_NUMBER: _ClassVar[int]
    REUSE_CAUSE_FIELD_NUMBER: _ClassVar[int]
    APPLIED_EDITS_FIELD_NUMBER: _ClassVar[int]
    DECODED_FIELD_NUMBER: _ClassVar[int]
    stop_reason: StopReason
    stop_sequence: str
    usage: Usage
    timings: Timings
    reuse_cause: ReuseCause
    applied_edits: _containers.RepeatedCompositeFieldContainer[AppliedEdit]
    decoded: Decoded
    def __init__(self, stop_reason: _Optional[_Union[StopReason, str]] = ..., stop_sequence: _Optional[str] = ..., usage: _Optional[_Union[Usage, _Mapping]] = ..., timings: _Optional[_Union[Timings, _Mapping]] = ..., reuse_cause: _Optional[_Union[ReuseCause, str]] = ..., applied_edits: _Optional[_Iterable[_Union[AppliedEdit, _Mapping]]] = ..., decoded: _Optional[_Union[Decoded, _Mapping]] = ...) -> None: ...

class AppliedEdit(_message.Message):
    __slots__ = ("type", "cleared_input_tokens", "cleared_tool_uses", "cleared_thinking_turns")
    TYPE_FIELD_NUMBER: _ClassVar[int]
    CLEARED_INPUT_TOKENS_FIELD_NUMBER: _ClassVar[int]
    CLEARED_TOOL_USES_FIELD_NUMBER: _ClassVar[int]
    CLEARED_THINKING_TURNS_FIELD_NUMBER: _ClassVar[int]
    type: str
    cleared_input_tokens: int
    cleared_tool_uses: int
    cleared_thinking_turns: int
    def __init__(self, type: _Optional[str] = ..., cleared_input_tokens: _Optional[int] = ..., cleared_tool_uses: _Optional[int] = ..., cleared_thinking_turns: _Optional[int] = ...) -> None: ...

class Decoded(_message.Message):
    __slots__ = ("passes", "drafted_tokens", "accepted_tokens")
    PASSES_FIELD_NUMBER: _ClassVar[int]
    DRAFTED_TOKENS_FIELD_NUMBER: _ClassVar[int]
    ACCEPTED_TOKENS_FIELD_NUMBER: _ClassVar[int]
    passes: int
    drafted_tokens: int
    accepted_tokens: int
    def __init__(self, passes: _Optional[int] = ..., drafted_tokens: _Optional[int] = ..., accepted_tokens: _Optional[int] = ...) -> None: ...

class Usage(_message.Message):
    __slots__ = ("input_tokens", "cache_read_tokens", "cache_creation_tokens", "output_tokens", "disk_read_tokens")
    INPUT_TOKENS_FIELD_NUMBER: _ClassVar[int]
    CACHE_READ_TOKENS_FIELD_NUMBER: _ClassVar[int]
    CACHE_CREATION_TOKENS_FIELD_NUMBER: _ClassVar[int]
    OUTPUT_TOKENS_FIELD_NUMBER: _ClassVar[int]
    DISK_READ_TOKENS_FIELD_NUMBER: _ClassVar[int]
    input_tokens: int
    cache_read_tokens: int
    cache_creation_tokens: int
    output_tokens: int
    disk_read_tokens: int
    def __init__(self, input_tokens: _Optional[int] = ..., cache_read_tokens: _Optional[int] = ..., cache_creation_tokens: _Optional[int] = ..., output_tokens: _Optional[int] = ..., disk_read_tokens: _Optional[int] = ...) -> None: ...

class Timings(_message.Message):
    __slots__ = ("queue", "render", "prefill", "decode", "first_token")
    QUEUE_FIELD_NUMBER: _ClassVar[int]
    RENDER_FIELD_NUMBER: _ClassVar[int]
    PREFILL_FIELD_NUMBER: _ClassVar[int]
    DECODE_FIELD_NUMBER: _ClassVar[int]
    FIRST_TOKEN_FIELD_NUMBER: _ClassVar[int]
    queue: _duration_pb2.Duration
    render: _duration_pb2.Duration
    prefill: _duration_pb2.Duration
    decode: _duration_pb2.Duration
    first_token: _duration_pb2.Duration
    def __init__(self, queue: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., render: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., prefill: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., decode: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., first_token: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ...) -> None: ...

class Failed(_message.Message):
    __slots__ = ("status", "type", "message", "retry_after_seconds", "should_retry", "worker_stops")
    STATUS_FIELD_NUMBER: _ClassVar[int]
    TYPE_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    RETRY_AFTER_SECONDS_FIELD_NUMBER: _ClassVar[int]
    SHOULD_RETRY_FIELD_NUMBER: _ClassVar[int]
    WORKER_STOPS_FIELD_NUMBER: _ClassVar[int]
    status: int
    type: str
    message: str
    retry_after_seconds: int
    should_retry: bool
    worker_stops: bool
    def __init__(self, status: _Optional[int] = ..., type: _Optional[str] = ..., message: _Optional[str] = ..., retry_after_seconds: _Optional[int] = ..., should_retry: bool = ..., worker_stops: bool = ...) -> None: ...

class HttpHeader(_message.Message):
    __slots__ = ("name", "value")
    NAME_FIELD_NUMBER: _ClassVar[int]
    VALUE_FIELD_NUMBER: _ClassVar[int]
    name: str
    value: str
    def __init__(self, name: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...

class ForwardRequest(_message.Message):
    __slots__ = ("head", "body")
    HEAD_FIELD_NUMBER: _ClassVar[int]
    BODY_FIELD_NUMBER: _ClassVar[int]
    head: ForwardRequestHead
    body: bytes
    def __init__(self, head: _Optional[_Union[ForwardRequestHead, _Mapping]] = ..., body: _Optional[bytes] = ...) -> None: ...

class ForwardRequestHead(_message.Message):
    __slots__ = ("request_id", "method", "path", "query", "headers", "mode")
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    METHOD_FIELD_NUMBER: _ClassVar[int]
    PATH_FIELD_NUMBER: _ClassVar[int]
    QUERY_FIELD_NUMBER: _ClassVar[int]
    HEADERS_FIELD_NUMBER: _ClassVar[int]
    MODE_FIELD_NUMBER: _ClassVar[int]
    request_id: str
    method: str
    path: str
    query: str
    headers: _containers.RepeatedCompositeFieldContainer[HttpHeader]
    mode: str
    def __init__(self, request_id: _Optional[str] = ..., method: _Optional[str] = ..., path: _Optional[str] = ..., query: _Optional[str] = ..., headers: _Optional[_Iterable[_Union[HttpHeader, _Mapping]]] = ..., mode: _Optional[str] = ...) -> None: ...

class ForwardResponse(_message.Message):
    __slots__ = ("head", "body", "failed")
    HEAD_FIELD_NUMBER: _ClassVar[int]
    BODY_FIELD_NUMBER: _ClassVar[int]
    FAILED_FIELD_NUMBER: _ClassVar[int]
    head: ForwardResponseHead
    body: bytes
    failed: Failed
    def __init__(self, head: _Optional[_Union[ForwardResponseHead, _Mapping]] = ..., body: _Optional[bytes] = ..., failed: _Optional[_Union[Failed, _Mapping]] = ...) -> None: ...

class ForwardResponseHead(_message.Message):
    __slots__ = ("status", "headers")
    STATUS_FIELD_NUMBER: _ClassVar[int]
    HEADERS_FIELD_NUMBER: _ClassVar[int]
    status: int
    headers: _containers.RepeatedCompositeFieldContainer[HttpHeader]
    def __init__(self, status: _Optional[int] = ..., headers: _Optional[_Iterable[_Union[HttpHeader, _Mapping]]] = ...) -> None: ...

class CountTokensRequest(_message.Message):
    __slots__ = ("request_id", "body_json", "mode")
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    BODY_JSON_FIELD_NUMBER: _ClassVar[int]
    MODE_FIELD_NUMBER: _ClassVar[int]
    request_id: str
    body_json: bytes
    mode: str
    def __init__(self, request_id: _Optional[str] = ..., body_json: _Optional[bytes] = ..., mode: _Optional[str] = ...) -> None: ...

class CountTokensResponse(_message.Message):
    __slots__ = ("input_tokens", "failed", "is_estimate", "cleared_input_tokens")
    INPUT_TOKENS_FIELD_NUMBER: _ClassVar[int]
    FAILED_FIELD_NUMBER: _ClassVar[int]
    IS_ESTIMATE_FIELD_NUMBER: _ClassVar[int]
    CLEARED_INPUT_TOKENS_FIELD_NUMBER: _ClassVar[int]
    input_tokens: int
    failed: Failed
    is_estimate: bool
    cleared_input_tokens: int
    def __init__(self, input_tokens: _Optional[int] = ..., failed: _Optional[_Union[Failed, _Mapping]] = ..., is_estimate: bool = ..., cleared_input_tokens: _Optional[int] = ...) -> None: ...

class GetStatusRequest(_message.Message):
    __slots__ = ("check_mode",)
    CHECK_MODE_FIELD_NUMBER: _ClassVar[int]
    check_mode: str
    def __init__(self, check_mode: _Optional[str] = ...) -> None: ...

class GetStatusResponse(_message.Message):
    __slots__ = ("model", "memory", "running_requests", "queued_requests", "totals", "upstreams", "disk", "model_change", "caches", "answer_repairs", "loosened_schemas", "batch", "blas")
    class AnswerRepairsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: int
        def __init__(self, key: _Optional[str] = ..., value: _Optional[int] = ...) -> None: ...
    MODEL_FIELD_NUMBER: _ClassVar[int]
    MEMORY_FIELD_NUMBER: _ClassVar[int]
    RUNNING_REQUESTS_FIELD_NUMBER: _ClassVar[int]
    QUEUED_REQUESTS_FIELD_NUMBER: _ClassVar[int]
    TOTALS_FIELD_NUMBER: _ClassVar[int]
    UPSTREAMS_FIELD_NUMBER: _ClassVar[int]
    DISK_FIELD_NUMBER: _ClassVar[int]
    MODEL_CHANGE_FIELD_NUMBER: _ClassVar[int]
    CACHES_FIELD_NUMBER: _ClassVar[int]
    ANSWER_REPAIRS_FIELD_NUMBER: _ClassVar[int]
    LOOSENED_SCHEMAS_FIELD_NUMBER: _ClassVar[int]
    BATCH_FIELD_NUMBER: _ClassVar[int]
    BLAS_FIELD_NUMBER: _ClassVar[int]
    model: ModelInfo
    memory: MemoryStatus
    running_requests: int
    queued_requests: int
    totals: TokenTotals
    upstreams: _containers.RepeatedCompositeFieldContainer[UpstreamStatus]
    disk: DiskStatus
    model_change: ModelChange
    caches: int
    answer_repairs: _containers.ScalarMap[str, int]
    loosened_schemas: _containers.RepeatedScalarFieldContainer[str]
    batch: BatchStatus
    blas: str
    def __init__(self, model: _Optional[_Union[ModelInfo, _Mapping]] = ..., memory: _Optional[_Union[MemoryStatus, _Mapping]] = ..., running_requests: _Optional[int] = ..., queued_requests: _Optional[int] = ..., totals: _Optional[_Union[TokenTotals, _Mapping]] = ..., upstreams: _Optional[_Iterable[_Union[UpstreamStatus, _Mapping]]] = ..., disk: _Optional[_Union[DiskStatus, _Mapping]] = ..., model_change: _Optional[_Union[ModelChange, _Mapping]] = ..., caches: _Optional[int] = ..., answer_repairs: _Optional[_Mapping[str, int]] = ..., loosened_schemas: _Optional[_Iterable[str]] = ..., batch: _Optional[_Union[BatchStatus, _Mapping]] = ..., blas: _Optional[str] = ...) -> None: ...

class BatchStatus(_message.Message):
    __slots__ = ("passes", "tokens", "exact_rows", "inexact_rows", "largest_difference", "unsupported")
    PASSES_FIELD_NUMBER: _ClassVar[int]
    TOKENS_FIELD_NUMBER: _ClassVar[int]
    EXACT_ROWS_FIELD_NUMBER: _ClassVar[int]
    INEXACT_ROWS_FIELD_NUMBER: _ClassVar[int]
    LARGEST_DIFFERENCE_FIELD_NUMBER: _ClassVar[int]
    UNSUPPORTED_FIELD_NUMBER: _ClassVar[int]
    passes: int
    tokens: int
    exact_rows: _containers.RepeatedScalarFieldContainer[int]
    inexact_rows: _containers.RepeatedScalarFieldContainer[int]
    largest_difference: float
    unsupported: str
    def __init__(self, passes: _Optional[int] = ..., tokens: _Optional[int] = ..., exact_rows: _Optional[_Iterable[int]] = ..., inexact_rows: _Optional[_Iterable[int]] = ..., largest_difference: _Optional[float] = ..., unsupported: _Optional[str] = ...) -> None: ...

class ModelChange(_message.Message):
    __slots__ = ("previous_model", "time", "disk_records", "disk_bytes")
    PREVIOUS_MODEL_FIELD_NUMBER: _ClassVar[int]
    TIME_FIELD_NUMBER: _ClassVar[int]
    DISK_RECORDS_FIELD_NUMBER: _ClassVar[int]
    DISK_BYTES_FIELD_NUMBER: _ClassVar[int]
    previous_model: str
    time: _timestamp_pb2.Timestamp
    disk_records: int
    disk_bytes: int
    def __init__(self, previous_model: _Optional[str] = ..., time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., disk_records: _Optional[int] = ..., disk_bytes: _Optional[int] = ...) -> None: ...

class DiskStatus(_message.Message):
    __slots__ = ("folder", "state", "records", "bytes", "budget_bytes", "pending_bytes", "written_records", "loaded_records", "failed_writes", "skipped_writes", "quarantined_records", "last_error", "other_version_records", "pending_writes", "damaged_answers")
    FOLDER_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    RECORDS_FIELD_NUMBER: _ClassVar[int]
    BYTES_FIELD_NUMBER: _ClassVar[int]
    BUDGET_BYTES_FIELD_NUMBER: _ClassVar[int]
    PENDING_BYTES_FIELD_NUMBER: _ClassVar[int]
    WRITTEN_RECORDS_FIELD_NUMBER: _ClassVar[int]
    LOADED_RECORDS_FIELD_NUMBER: _ClassVar[int]
    FAILED_WRITES_FIELD_NUMBER: _ClassVar[int]
    SKIPPED_WRITES_FIELD_NUMBER: _ClassVar[int]
    QUARANTINED_RECORDS_FIELD_NUMBER: _ClassVar[int]
    LAST_ERROR_FIELD_NUMBER: _ClassVar[int]
    OTHER_VERSION_RECORDS_FIELD_NUMBER: _ClassVar[int]
    PENDING_WRITES_FIELD_NUMBER: _ClassVar[int]
    DAMAGED_ANSWERS_FIELD_NUMBER: _ClassVar[int]
    folder: str
    state: DiskState
    records: int
    bytes: int
    budget_bytes: int
    pending_bytes: int
    written_records: int
    loaded_records: int
    failed_writes: int
    skipped_writes: int
    quarantined_records: int
    last_error: str
    other_version_records: int
    pending_writes: int
    damaged_answers: int
    def __init__(self, folder: _Optional[str] = ..., state: _Optional[_Union[DiskState, str]] = ..., records: _Optional[int] = ..., bytes: _Optional[int] = ..., budget_bytes: _Optional[int] = ..., pending_bytes: _Optional[int] = ..., written_records: _Optional[int] = ..., loaded_records: _Optional[int] = ..., failed_writes: _Optional[int] = ..., skipped_writes: _Optional[int] = ..., quarantined_records: _Optional[int] = ..., last_error: _Optional[str] = ..., other_version_records: _Optional[int] = ..., pending_writes: _Optional[int] = ..., damaged_answers: _Optional[int] = ...) -> None: ...

class UpstreamStatus(_message.Message):
    __slots__ = ("name", "base_url", "is_loopback", "dialect", "breaker", "reachability", "model", "has_key", "last_error", "last_error_time", "running_requests", "learned")
    NAME_FIELD_NUMBER: _ClassVar[int]
    BASE_URL_FIELD_NUMBER: _ClassVar[int]
    IS_LOOPBACK_FIELD_NUMBER: _ClassVar[int]
    DIALECT_FIELD_NUMBER: _ClassVar[int]
    BREAKER_FIELD_NUMBER: _ClassVar[int]
    REACHABILITY_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    HAS_KEY_FIELD_NUMBER: _ClassVar[int]
    LAST_ERROR_FIELD_NUMBER: _ClassVar[int]
    LAST_ERROR_TIME_FIELD_NUMBER: _ClassVar[int]
    RUNNING_REQUESTS_FIELD_NUMBER: _ClassVar[int]
    LEARNED_FIELD_NUMBER: _ClassVar[int]
    name: str
    base_url: str
    is_loopback: bool
    dialect: Dialect
    breaker: BreakerState
    reachability: Reachability
    model: ModelInfo
    has_key: bool
    last_error: str
    last_error_time: _timestamp_pb2.Timestamp
    running_requests: int
    learned: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, name: _Optional[str] = ..., base_url: _Optional[str] = ..., is_loopback: bool = ..., dialect: _Optional[_Union[Dialect, str]] = ..., breaker: _Optional[_Union[BreakerState, str]] = ..., reachability: _Optional[_Union[Reachability, str]] = ..., model: _Optional[_Union[ModelInfo, _Mapping]] = ..., has_key: bool = ..., last_error: _Optional[str] = ..., last_error_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., running_requests: _Optional[int] = ..., learned: _Optional[_Iterable[str]] = ...) -> None: ...

class ForgetLearnedRequest(_message.Message):
    __slots__ = ("mode",)
    MODE_FIELD_NUMBER: _ClassVar[int]
    mode: str
    def __init__(self, mode: _Optional[str] = ...) -> None: ...

class ForgetLearnedResponse(_message.Message):
    __slots__ = ("learned",)
    LEARNED_FIELD_NUMBER: _ClassVar[int]
    learned: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, learned: _Optional[_Iterable[str]] = ...) -> None: ...

class ModelInfo(_message.Message):
    __slots__ = ("id", "display_name", "path", "fingerprint", "context_window_tokens", "is_demo", "has_tools", "has_thinking", "takes_images", "longest_token_characters")
    ID_FIELD_NUMBER: _ClassVar[int]
    DISPLAY_NAME_FIELD_NUMBER: _ClassVar[int]
    PATH_FIELD_NUMBER: _ClassVar[int]
    FINGERPRINT_FIELD_NUMBER: _ClassVar[int]
    CONTEXT_WINDOW_TOKENS_FIELD_NUMBER: _ClassVar[int]
    IS_DEMO_FIELD_NUMBER: _ClassVar[int]
    HAS_TOOLS_FIELD_NUMBER: _ClassVar[int]
    HAS_THINKING_FIELD_NUMBER: _ClassVar[int]
    TAKES_IMAGES_FIELD_NUMBER: _ClassVar[int]
    LONGEST_TOKEN_CHARACTERS_FIELD_NUMBER: _ClassVar[int]
    id: str
    display_name: str
    path: str
    fingerprint: str
    context_window_tokens: int
    is_demo: bool
    has_tools: bool
    has_thinking: bool
    takes_images: bool
    longest_token_characters: int
    def __init__(self, id: _Optional[str] = ..., display_name: _Optional[str] = ..., path: _Optional[str] = ..., fingerprint: _Optional[str] = ..., context_window_tokens: _Optional[int] = ..., is_demo: bool = ..., has_tools: bool = ..., has_thinking: bool = ..., takes_images: bool = ..., longest_token_characters: _Optional[int] = ...) -> None: ...

class MemoryStatus(_message.Message):
    __slots__ = ("active_bytes", "peak_bytes", "weights_bytes", "cache_bytes", "cache_limit_bytes", "available_bytes", "prompt_bytes", "footprint_bytes", "pressure", "refused_requests", "working_set_bytes")
    ACTIVE_BYTES_FIELD_NUMBER: _ClassVar[int]
    PEAK_BYTES_FIELD_NUMBER: _ClassVar[int]
    WEIGHTS_BYTES_FIELD_NUMBER: _ClassVar[int]
    CACHE_BYTES_FIELD_NUMBER: _ClassVar[int]
    CACHE_LIMIT_BYTES_FIELD_NUMBER: _ClassVar[int]
    AVAILABLE_BYTES_FIELD_NUMBER: _ClassVar[int]
    PROMPT_BYTES_FIELD_NUMBER: _ClassVar[int]
    FOOTPRINT_BYTES_FIELD_NUMBER: _ClassVar[int]
    PRESSURE_FIELD_NUMBER: _ClassVar[int]
    REFUSED_REQUESTS_FIELD_NUMBER: _ClassVar[int]
    WORKING_SET_BYTES_FIELD_NUMBER: _ClassVar[int]
    active_bytes: int
    peak_bytes: int
    weights_bytes: int
    cache_bytes: int
    cache_limit_bytes: int
    available_bytes: int
    prompt_bytes: int
    footprint_bytes: int
    pressure: MemoryPressure
    refused_requests: int
    working_set_bytes: int
    def __init__(self, active_bytes: _Optional[int] = ..., peak_bytes: _Optional[int] = ..., weights_bytes: _Optional[int] = ..., cache_bytes: _Optional[int] = ..., cache_limit_bytes: _Optional[int] = ..., available_bytes: _Optional[int] = ..., prompt_bytes: _Optional[int] = ..., footprint_bytes: _Optional[int] = ..., pressure: _Optional[_Union[MemoryPressure, str]] = ..., refused_requests: _Optional[int] = ..., working_set_bytes: _Optional[int] = ...) -> None: ...

class TokenTotals(_message.Message):
    __slots__ = ("reused_tokens", "computed_tokens", "generated_tokens", "evictions", "ahead_computed_tokens", "ahead_used_tokens", "ahead_given_up", "decode_passes", "drafted_tokens", "accepted_tokens")
    REUSED_TOKENS_FIELD_NUMBER: _ClassVar[int]
    COMPUTED_TOKENS_FIELD_NUMBER: _ClassVar[int]
    GENERATED_TOKENS_FIELD_NUMBER: _ClassVar[int]
    EVICTIONS_FIELD_NUMBER: _ClassVar[int]
    AHEAD_COMPUTED_TOKENS_FIELD_NUMBER: _ClassVar[int]
    AHEAD_USED_TOKENS_FIELD_NUMBER: _ClassVar[int]
    AHEAD_GIVEN_UP_FIELD_NUMBER: _ClassVar[int]
    DECODE_PASSES_FIELD_NUMBER: _ClassVar[int]
    DRAFTED_TOKENS_FIELD_NUMBER: _ClassVar[int]
    ACCEPTED_TOKENS_FIELD_NUMBER: _ClassVar[int]
    reused_tokens: int
    computed_tokens: int
    generated_tokens: int
    evictions: int
    ahead_computed_tokens: int
    ahead_used_tokens: int
    ahead_given_up: int
    decode_passes: int
    drafted_tokens: int
    accepted_tokens: int
    def __init__(self, reused_tokens: _Optional[int] = ..., computed_tokens: _Optional[int] = ..., generated_tokens: _Optional[int] = ..., evictions: _Optional[int] = ..., ahead_computed_tokens: _Optional[int] = ..., ahead_used_tokens: _Optional[int] = ..., ahead_given_up: _Optional[int] = ..., decode_passes: _Optional[int] = ..., drafted_tokens: _Optional[int] = ..., accepted_tokens: _Optional[int] = ...) -> None: ...
