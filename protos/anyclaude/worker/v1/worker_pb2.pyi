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

class ChangeKind(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    CHANGE_KIND_UNSPECIFIED: _ClassVar[ChangeKind]
    CHANGE_KIND_ADDED: _ClassVar[ChangeKind]
    CHANGE_KIND_REMOVED: _ClassVar[ChangeKind]
    CHANGE_KIND_CHANGED: _ClassVar[ChangeKind]
    CHANGE_KIND_MOVED: _ClassVar[ChangeKind]

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

class CacheKind(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    CACHE_KIND_UNSPECIFIED: _ClassVar[CacheKind]
    CACHE_KIND_LINEAGE: _ClassVar[CacheKind]
    CACHE_KIND_PREFIX: _ClassVar[CacheKind]

class CacheTier(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    CACHE_TIER_UNSPECIFIED: _ClassVar[CacheTier]
    CACHE_TIER_MEMORY: _ClassVar[CacheTier]
    CACHE_TIER_DISK: _ClassVar[CacheTier]
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
CHANGE_KIND_UNSPECIFIED: ChangeKind
CHANGE_KIND_ADDED: ChangeKind
CHANGE_KIND_REMOVED: ChangeKind
CHANGE_KIND_CHANGED: ChangeKind
CHANGE_KIND_MOVED: ChangeKind
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
CACHE_KIND_UNSPECIFIED: CacheKind
CACHE_KIND_LINEAGE: CacheKind
CACHE_KIND_PREFIX: CacheKind
CACHE_TIER_UNSPECIFIED: CacheTier
CACHE_TIER_MEMORY: CacheTier
CACHE_TIER_DISK: CacheTier

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
    __slots__ = ("request_id", "body_json", "identity", "mode", "message_id")
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    BODY_JSON_FIELD_NUMBER: _ClassVar[int]
    IDENTITY_FIELD_NUMBER: _ClassVar[int]
    MODE_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_ID_FIELD_NUMBER: _ClassVar[int]
    request_id: str
    body_json: bytes
    identity: Identity
    mode: str
    message_id: str
    def __init__(self, request_id: _Optional[str] = ..., body_json: _Optional[bytes] = ..., identity: _Optional[_Union[Identity, _Mapping]] = ..., mode: _Optional[str] = ..., message_id: _Optional[str] = ...) -> None: ...

class GenerateResponse(_message.Message):
    __slots__ = ("started", "progress", "block_start", "block_delta", "block_stop", "finished", "failed")
    STARTED_FIELD_NUMBER: _ClassVar[int]
    PROGRESS_FIELD_NUMBER: _ClassVar[int]
    BLOCK_START_FIELD_NUMBER: _ClassVar[int]
    BLOCK_DELTA_FIELD_NUMBER: _ClassVar[int]
    BLOCK_STOP_FIELD_NUMBER: _ClassVar[int]
    FINISHED_FIELD_NUMBER: _ClassVar[int]
    FAILED_FIELD_NUMBER: _ClassVar[int]
    started: Started
    progress: Progress
    block_start: BlockStart
    block_delta: BlockDelta
    block_stop: BlockStop
    finished: Finished
    failed: Failed
    def __init__(self, started: _Optional[_Union[Started, _Mapping]] = ..., progress: _Optional[_Union[Progress, _Mapping]] = ..., block_start: _Optional[_Union[BlockStart, _Mapping]] = ..., block_delta: _Optional[_Union[BlockDelta, _Mapping]] = ..., block_stop: _Optional[_Union[BlockStop, _Mapping]] = ..., finished: _Optional[_Union[Finished, _Mapping]] = ..., failed: _Optional[_Union[Failed, _Mapping]] = ...) -> None: ...

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
    __slots__ = ("stop_reason", "stop_sequence", "usage", "timings", "reuse_cause")
    STOP_REASON_FIELD_NUMBER: _ClassVar[int]
    STOP_SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    USAGE_FIELD_NUMBER: _ClassVar[int]
    TIMINGS_FIELD_NUMBER: _ClassVar[int]
    REUSE_CAUSE_FIELD_NUMBER: _ClassVar[int]
    stop_reason: StopReason
    stop_sequence: str
    usage: Usage
    timings: Timings
    reuse_cause: ReuseCause
    def __init__(self, stop_reason: _Optional[_Union[StopReason, str]] = ..., stop_sequence: _Optional[str] = ..., usage: _Optional[_Union[Usage, _Mapping]] = ..., timings: _Optional[_Union[Timings, _Mapping]] = ..., reuse_cause: _Optional[_Union[ReuseCause, str]] = ...) -> None: ...

class Usage(_message.Message):
    __slots__ = ("input_tokens", "cache_read_tokens", "cache_creation_tokens", "output_tokens")
    INPUT_TOKENS_FIELD_NUMBER: _ClassVar[int]
    CACHE_READ_TOKENS_FIELD_NUMBER: _ClassVar[int]
    CACHE_CREATION_TOKENS_FIELD_NUMBER: _ClassVar[int]
    OUTPUT_TOKENS_FIELD_NUMBER: _ClassVar[int]
    input_tokens: int
    cache_read_tokens: int
    cache_creation_tokens: int
    output_tokens: int
    def __init__(self, input_tokens: _Optional[int] = ..., cache_read_tokens: _Optional[int] = ..., cache_creation_tokens: _Optional[int] = ..., output_tokens: _Optional[int] = ...) -> None: ...

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

class ToolChange(_message.Message):
    __slots__ = ("name", "kind", "fields")
    NAME_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    FIELDS_FIELD_NUMBER: _ClassVar[int]
    name: str
    kind: ChangeKind
    fields: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, name: _Optional[str] = ..., kind: _Optional[_Union[ChangeKind, str]] = ..., fields: _Optional[_Iterable[str]] = ...) -> None: ...

class Explanation(_message.Message):
    __slots__ = ("request_id", "time", "session_id", "agent_id", "cause", "prompt_tokens", "reused_live_tokens", "reused_memory_tokens", "reused_disk_tokens", "computed_tokens", "divergence", "tools", "instructions", "lost_time")
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    TIME_FIELD_NUMBER: _ClassVar[int]
    SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    AGENT_ID_FIELD_NUMBER: _ClassVar[int]
    CAUSE_FIELD_NUMBER: _ClassVar[int]
    PROMPT_TOKENS_FIELD_NUMBER: _ClassVar[int]
    REUSED_LIVE_TOKENS_FIELD_NUMBER: _ClassVar[int]
    REUSED_MEMORY_TOKENS_FIELD_NUMBER: _ClassVar[int]
    REUSED_DISK_TOKENS_FIELD_NUMBER: _ClassVar[int]
    COMPUTED_TOKENS_FIELD_NUMBER: _ClassVar[int]
    DIVERGENCE_FIELD_NUMBER: _ClassVar[int]
    TOOLS_FIELD_NUMBER: _ClassVar[int]
    INSTRUCTIONS_FIELD_NUMBER: _ClassVar[int]
    LOST_TIME_FIELD_NUMBER: _ClassVar[int]
    request_id: str
    time: _timestamp_pb2.Timestamp
    session_id: str
    agent_id: str
    cause: ReuseCause
    prompt_tokens: int
    reused_live_tokens: int
    reused_memory_tokens: int
    reused_disk_tokens: int
    computed_tokens: int
    divergence: Divergence
    tools: _containers.RepeatedCompositeFieldContainer[ToolChange]
    instructions: _containers.RepeatedScalarFieldContainer[int]
    lost_time: _timestamp_pb2.Timestamp
    def __init__(self, request_id: _Optional[str] = ..., time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., session_id: _Optional[str] = ..., agent_id: _Optional[str] = ..., cause: _Optional[_Union[ReuseCause, str]] = ..., prompt_tokens: _Optional[int] = ..., reused_live_tokens: _Optional[int] = ..., reused_memory_tokens: _Optional[int] = ..., reused_disk_tokens: _Optional[int] = ..., computed_tokens: _Optional[int] = ..., divergence: _Optional[_Union[Divergence, _Mapping]] = ..., tools: _Optional[_Iterable[_Union[ToolChange, _Mapping]]] = ..., instructions: _Optional[_Iterable[int]] = ..., lost_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ...) -> None: ...

class Divergence(_message.Message):
    __slots__ = ("offset", "message", "before", "kept", "came")
    OFFSET_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    BEFORE_FIELD_NUMBER: _ClassVar[int]
    KEPT_FIELD_NUMBER: _ClassVar[int]
    CAME_FIELD_NUMBER: _ClassVar[int]
    offset: int
    message: int
    before: str
    kept: str
    came: str
    def __init__(self, offset: _Optional[int] = ..., message: _Optional[int] = ..., before: _Optional[str] = ..., kept: _Optional[str] = ..., came: _Optional[str] = ...) -> None: ...

class ExplainRequestRequest(_message.Message):
    __slots__ = ("request_id",)
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    request_id: str
    def __init__(self, request_id: _Optional[str] = ...) -> None: ...

class ExplainRequestResponse(_message.Message):
    __slots__ = ("explanation",)
    EXPLANATION_FIELD_NUMBER: _ClassVar[int]
    explanation: Explanation
    def __init__(self, explanation: _Optional[_Union[Explanation, _Mapping]] = ...) -> None: ...

class Failed(_message.Message):
    __slots__ = ("status", "type", "message", "retry_after_seconds", "should_retry")
    STATUS_FIELD_NUMBER: _ClassVar[int]
    TYPE_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    RETRY_AFTER_SECONDS_FIELD_NUMBER: _ClassVar[int]
    SHOULD_RETRY_FIELD_NUMBER: _ClassVar[int]
    status: int
    type: str
    message: str
    retry_after_seconds: int
    should_retry: bool
    def __init__(self, status: _Optional[int] = ..., type: _Optional[str] = ..., message: _Optional[str] = ..., retry_after_seconds: _Optional[int] = ..., should_retry: bool = ...) -> None: ...

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
    __slots__ = ("input_tokens", "failed", "is_estimate")
    INPUT_TOKENS_FIELD_NUMBER: _ClassVar[int]
    FAILED_FIELD_NUMBER: _ClassVar[int]
    IS_ESTIMATE_FIELD_NUMBER: _ClassVar[int]
    input_tokens: int
    failed: Failed
    is_estimate: bool
    def __init__(self, input_tokens: _Optional[int] = ..., failed: _Optional[_Union[Failed, _Mapping]] = ..., is_estimate: bool = ...) -> None: ...

class GetStatusRequest(_message.Message):
    __slots__ = ("check_mode",)
    CHECK_MODE_FIELD_NUMBER: _ClassVar[int]
    check_mode: str
    def __init__(self, check_mode: _Optional[str] = ...) -> None: ...

class GetStatusResponse(_message.Message):
    __slots__ = ("model", "memory", "running_requests", "queued_requests", "totals", "upstreams", "disk", "model_change")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    MEMORY_FIELD_NUMBER: _ClassVar[int]
    RUNNING_REQUESTS_FIELD_NUMBER: _ClassVar[int]
    QUEUED_REQUESTS_FIELD_NUMBER: _ClassVar[int]
    TOTALS_FIELD_NUMBER: _ClassVar[int]
    UPSTREAMS_FIELD_NUMBER: _ClassVar[int]
    DISK_FIELD_NUMBER: _ClassVar[int]
    MODEL_CHANGE_FIELD_NUMBER: _ClassVar[int]
    model: ModelInfo
    memory: MemoryStatus
    running_requests: int
    queued_requests: int
    totals: TokenTotals
    upstreams: _containers.RepeatedCompositeFieldContainer[UpstreamStatus]
    disk: DiskStatus
    model_change: ModelChange
    def __init__(self, model: _Optional[_Union[ModelInfo, _Mapping]] = ..., memory: _Optional[_Union[MemoryStatus, _Mapping]] = ..., running_requests: _Optional[int] = ..., queued_requests: _Optional[int] = ..., totals: _Optional[_Union[TokenTotals, _Mapping]] = ..., upstreams: _Optional[_Iterable[_Union[UpstreamStatus, _Mapping]]] = ..., disk: _Optional[_Union[DiskStatus, _Mapping]] = ..., model_change: _Optional[_Union[ModelChange, _Mapping]] = ...) -> None: ...

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
    __slots__ = ("folder", "state", "records", "bytes", "budget_bytes", "pending_bytes", "written_records", "loaded_records", "failed_writes", "skipped_writes", "quarantined_records", "last_error", "other_version_records", "pending_writes")
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
    def __init__(self, folder: _Optional[str] = ..., state: _Optional[_Union[DiskState, str]] = ..., records: _Optional[int] = ..., bytes: _Optional[int] = ..., budget_bytes: _Optional[int] = ..., pending_bytes: _Optional[int] = ..., written_records: _Optional[int] = ..., loaded_records: _Optional[int] = ..., failed_writes: _Optional[int] = ..., skipped_writes: _Optional[int] = ..., quarantined_records: _Optional[int] = ..., last_error: _Optional[str] = ..., other_version_records: _Optional[int] = ..., pending_writes: _Optional[int] = ...) -> None: ...

class UpstreamStatus(_message.Message):
    __slots__ = ("name", "base_url", "is_loopback", "dialect", "breaker", "reachability", "model", "has_key", "last_error", "last_error_time", "running_requests")
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
    def __init__(self, name: _Optional[str] = ..., base_url: _Optional[str] = ..., is_loopback: bool = ..., dialect: _Optional[_Union[Dialect, str]] = ..., breaker: _Optional[_Union[BreakerState, str]] = ..., reachability: _Optional[_Union[Reachability, str]] = ..., model: _Optional[_Union[ModelInfo, _Mapping]] = ..., has_key: bool = ..., last_error: _Optional[str] = ..., last_error_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., running_requests: _Optional[int] = ...) -> None: ...

class ModelInfo(_message.Message):
    __slots__ = ("id", "display_name", "path", "fingerprint", "context_window_tokens", "is_demo", "has_tools", "has_thinking", "takes_images")
    ID_FIELD_NUMBER: _ClassVar[int]
    DISPLAY_NAME_FIELD_NUMBER: _ClassVar[int]
    PATH_FIELD_NUMBER: _ClassVar[int]
    FINGERPRINT_FIELD_NUMBER: _ClassVar[int]
    CONTEXT_WINDOW_TOKENS_FIELD_NUMBER: _ClassVar[int]
    IS_DEMO_FIELD_NUMBER: _ClassVar[int]
    HAS_TOOLS_FIELD_NUMBER: _ClassVar[int]
    HAS_THINKING_FIELD_NUMBER: _ClassVar[int]
    TAKES_IMAGES_FIELD_NUMBER: _ClassVar[int]
    id: str
    display_name: str
    path: str
    fingerprint: str
    context_window_tokens: int
    is_demo: bool
    has_tools: bool
    has_thinking: bool
    takes_images: bool
    def __init__(self, id: _Optional[str] = ..., display_name: _Optional[str] = ..., path: _Optional[str] = ..., fingerprint: _Optional[str] = ..., context_window_tokens: _Optional[int] = ..., is_demo: bool = ..., has_tools: bool = ..., has_thinking: bool = ..., takes_images: bool = ...) -> None: ...

class MemoryStatus(_message.Message):
    __slots__ = ("active_bytes", "peak_bytes", "weights_bytes", "cache_bytes", "cache_limit_bytes", "available_bytes", "prompt_bytes", "footprint_bytes", "pressure", "refused_requests")
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
    def __init__(self, active_bytes: _Optional[int] = ..., peak_bytes: _Optional[int] = ..., weights_bytes: _Optional[int] = ..., cache_bytes: _Optional[int] = ..., cache_limit_bytes: _Optional[int] = ..., available_bytes: _Optional[int] = ..., prompt_bytes: _Optional[int] = ..., footprint_bytes: _Optional[int] = ..., pressure: _Optional[_Union[MemoryPressure, str]] = ..., refused_requests: _Optional[int] = ...) -> None: ...

class TokenTotals(_message.Message):
    __slots__ = ("reused_tokens", "computed_tokens", "generated_tokens", "evictions")
    REUSED_TOKENS_FIELD_NUMBER: _ClassVar[int]
    COMPUTED_TOKENS_FIELD_NUMBER: _ClassVar[int]
    GENERATED_TOKENS_FIELD_NUMBER: _ClassVar[int]
    EVICTIONS_FIELD_NUMBER: _ClassVar[int]
    reused_tokens: int
    computed_tokens: int
    generated_tokens: int
    evictions: int
    def __init__(self, reused_tokens: _Optional[int] = ..., computed_tokens: _Optional[int] = ..., generated_tokens: _Optional[int] = ..., evictions: _Optional[int] = ...) -> None: ...

class Cache(_message.Message):
    __slots__ = ("name", "kind", "session_id", "agent_id", "tokens", "bytes", "create_time", "last_use_time", "hits", "in_use", "request_class", "checkpoints", "pinned", "disk_bytes")
    NAME_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    AGENT_ID_FIELD_NUMBER: _ClassVar[int]
    TOKENS_FIELD_NUMBER: _ClassVar[int]
    BYTES_FIELD_NUMBER: _ClassVar[int]
    CREATE_TIME_FIELD_NUMBER: _ClassVar[int]
    LAST_USE_TIME_FIELD_NUMBER: _ClassVar[int]
    HITS_FIELD_NUMBER: _ClassVar[int]
    IN_USE_FIELD_NUMBER: _ClassVar[int]
    REQUEST_CLASS_FIELD_NUMBER: _ClassVar[int]
    CHECKPOINTS_FIELD_NUMBER: _ClassVar[int]
    PINNED_FIELD_NUMBER: _ClassVar[int]
    DISK_BYTES_FIELD_NUMBER: _ClassVar[int]
    name: str
    kind: CacheKind
    session_id: str
    agent_id: str
    tokens: int
    bytes: int
    create_time: _timestamp_pb2.Timestamp
    last_use_time: _timestamp_pb2.Timestamp
    hits: int
    in_use: bool
    request_class: RequestClass
    checkpoints: int
    pinned: bool
    disk_bytes: int
    def __init__(self, name: _Optional[str] = ..., kind: _Optional[_Union[CacheKind, str]] = ..., session_id: _Optional[str] = ..., agent_id: _Optional[str] = ..., tokens: _Optional[int] = ..., bytes: _Optional[int] = ..., create_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., last_use_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., hits: _Optional[int] = ..., in_use: bool = ..., request_class: _Optional[_Union[RequestClass, str]] = ..., checkpoints: _Optional[int] = ..., pinned: bool = ..., disk_bytes: _Optional[int] = ...) -> None: ...

class ListCachesRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ListCachesResponse(_message.Message):
    __slots__ = ("caches", "models")
    CACHES_FIELD_NUMBER: _ClassVar[int]
    MODELS_FIELD_NUMBER: _ClassVar[int]
    caches: _containers.RepeatedCompositeFieldContainer[Cache]
    models: _containers.RepeatedCompositeFieldContainer[StoredModel]
    def __init__(self, caches: _Optional[_Iterable[_Union[Cache, _Mapping]]] = ..., models: _Optional[_Iterable[_Union[StoredModel, _Mapping]]] = ...) -> None: ...

class StoredModel(_message.Message):
    __slots__ = ("fingerprint", "records", "bytes", "resident")
    FINGERPRINT_FIELD_NUMBER: _ClassVar[int]
    RECORDS_FIELD_NUMBER: _ClassVar[int]
    BYTES_FIELD_NUMBER: _ClassVar[int]
    RESIDENT_FIELD_NUMBER: _ClassVar[int]
    fingerprint: str
    records: int
    bytes: int
    resident: bool
    def __init__(self, fingerprint: _Optional[str] = ..., records: _Optional[int] = ..., bytes: _Optional[int] = ..., resident: bool = ...) -> None: ...

class PruneFilter(_message.Message):
    __slots__ = ("session_id", "older_than", "to_bytes", "all", "percent", "tier", "model", "pinned")
    SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    OLDER_THAN_FIELD_NUMBER: _ClassVar[int]
    TO_BYTES_FIELD_NUMBER: _ClassVar[int]
    ALL_FIELD_NUMBER: _ClassVar[int]
    PERCENT_FIELD_NUMBER: _ClassVar[int]
    TIER_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    PINNED_FIELD_NUMBER: _ClassVar[int]
    session_id: str
    older_than: _duration_pb2.Duration
    to_bytes: int
    all: bool
    percent: int
    tier: CacheTier
    model: str
    pinned: bool
    def __init__(self, session_id: _Optional[str] = ..., older_than: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., to_bytes: _Optional[int] = ..., all: bool = ..., percent: _Optional[int] = ..., tier: _Optional[_Union[CacheTier, str]] = ..., model: _Optional[str] = ..., pinned: bool = ...) -> None: ...

class PruneCachesRequest(_message.Message):
    __slots__ = ("filter", "dry_run")
    FILTER_FIELD_NUMBER: _ClassVar[int]
    DRY_RUN_FIELD_NUMBER: _ClassVar[int]
    filter: PruneFilter
    dry_run: bool
    def __init__(self, filter: _Optional[_Union[PruneFilter, _Mapping]] = ..., dry_run: bool = ...) -> None: ...

class PruneCachesResponse(_message.Message):
    __slots__ = ("caches", "freed_bytes", "remaining_bytes")
    CACHES_FIELD_NUMBER: _ClassVar[int]
    FREED_BYTES_FIELD_NUMBER: _ClassVar[int]
    REMAINING_BYTES_FIELD_NUMBER: _ClassVar[int]
    caches: _containers.RepeatedCompositeFieldContainer[Cache]
    freed_bytes: int
    remaining_bytes: int
    def __init__(self, caches: _Optional[_Iterable[_Union[Cache, _Mapping]]] = ..., freed_bytes: _Optional[int] = ..., remaining_bytes: _Optional[int] = ...) -> None: ...

class GetCacheTreeRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class CacheSegment(_message.Message):
    __slots__ = ("name", "parent", "start", "tokens", "bytes", "disk_bytes", "on_disk", "has_state", "pinned", "prefix", "lineages", "hits", "last_use_time")
    NAME_FIELD_NUMBER: _ClassVar[int]
    PARENT_FIELD_NUMBER: _ClassVar[int]
    START_FIELD_NUMBER: _ClassVar[int]
    TOKENS_FIELD_NUMBER: _ClassVar[int]
    BYTES_FIELD_NUMBER: _ClassVar[int]
    DISK_BYTES_FIELD_NUMBER: _ClassVar[int]
    ON_DISK_FIELD_NUMBER: _ClassVar[int]
    HAS_STATE_FIELD_NUMBER: _ClassVar[int]
    PINNED_FIELD_NUMBER: _ClassVar[int]
    PREFIX_FIELD_NUMBER: _ClassVar[int]
    LINEAGES_FIELD_NUMBER: _ClassVar[int]
    HITS_FIELD_NUMBER: _ClassVar[int]
    LAST_USE_TIME_FIELD_NUMBER: _ClassVar[int]
    name: str
    parent: str
    start: int
    tokens: int
    bytes: int
    disk_bytes: int
    on_disk: bool
    has_state: bool
    pinned: bool
    prefix: str
    lineages: _containers.RepeatedScalarFieldContainer[str]
    hits: int
    last_use_time: _timestamp_pb2.Timestamp
    def __init__(self, name: _Optional[str] = ..., parent: _Optional[str] = ..., start: _Optional[int] = ..., tokens: _Optional[int] = ..., bytes: _Optional[int] = ..., disk_bytes: _Optional[int] = ..., on_disk: bool = ..., has_state: bool = ..., pinned: bool = ..., prefix: _Optional[str] = ..., lineages: _Optional[_Iterable[str]] = ..., hits: _Optional[int] = ..., last_use_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ...) -> None: ...

class GetCacheTreeResponse(_message.Message):
    __slots__ = ("segments",)
    SEGMENTS_FIELD_NUMBER: _ClassVar[int]
    segments: _containers.RepeatedCompositeFieldContainer[CacheSegment]
    def __init__(self, segments: _Optional[_Iterable[_Union[CacheSegment, _Mapping]]] = ...) -> None: ...

class PinCacheRequest(_message.Message):
    __slots__ = ("name", "pinned")
    NAME_FIELD_NUMBER: _ClassVar[int]
    PINNED_FIELD_NUMBER: _ClassVar[int]
    name: str
    pinned: bool
    def __init__(self, name: _Optional[str] = ..., pinned: bool = ...) -> None: ...

class PinCacheResponse(_message.Message):
    __slots__ = ("segments", "tokens", "pinned_bytes", "pinned_limit_bytes")
    SEGMENTS_FIELD_NUMBER: _ClassVar[int]
    TOKENS_FIELD_NUMBER: _ClassVar[int]
    PINNED_BYTES_FIELD_NUMBER: _ClassVar[int]
    PINNED_LIMIT_BYTES_FIELD_NUMBER: _ClassVar[int]
    segments: int
    tokens: int
    pinned_bytes: int
    pinned_limit_bytes: int
    def __init__(self, segments: _Optional[int] = ..., tokens: _Optional[int] = ..., pinned_bytes: _Optional[int] = ..., pinned_limit_bytes: _Optional[int] = ...) -> None: ...

class WarmCacheRequest(_message.Message):
    __slots__ = ("body_json",)
    BODY_JSON_FIELD_NUMBER: _ClassVar[int]
    body_json: bytes
    def __init__(self, body_json: _Optional[bytes] = ...) -> None: ...

class WarmCacheResponse(_message.Message):
    __slots__ = ("usage", "failed")
    USAGE_FIELD_NUMBER: _ClassVar[int]
    FAILED_FIELD_NUMBER: _ClassVar[int]
    usage: Usage
    failed: Failed
    def __init__(self, usage: _Optional[_Union[Usage, _Mapping]] = ..., failed: _Optional[_Union[Failed, _Mapping]] = ...) -> None: ...

class VerifyCachesRequest(_message.Message):
    __slots__ = ("max_tokens",)
    MAX_TOKENS_FIELD_NUMBER: _ClassVar[int]
    max_tokens: int
    def __init__(self, max_tokens: _Optional[int] = ...) -> None: ...

class VerifyCachesResponse(_message.Message):
    __slots__ = ("segments", "computed_tokens", "total_segments", "wrong")
    SEGMENTS_FIELD_NUMBER: _ClassVar[int]
    COMPUTED_TOKENS_FIELD_NUMBER: _ClassVar[int]
    TOTAL_SEGMENTS_FIELD_NUMBER: _ClassVar[int]
    WRONG_FIELD_NUMBER: _ClassVar[int]
    segments: int
    computed_tokens: int
    total_segments: int
    wrong: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, segments: _Optional[int] = ..., computed_tokens: _Optional[int] = ..., total_segments: _Optional[int] = ..., wrong: _Optional[_Iterable[str]] = ...) -> None: ...

class ExportCachesRequest(_message.Message):
    __slots__ = ("path", "session_id", "prefixes", "overwrite")
    PATH_FIELD_NUMBER: _ClassVar[int]
    SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    PREFIXES_FIELD_NUMBER: _ClassVar[int]
    OVERWRITE_FIELD_NUMBER: _ClassVar[int]
    path: str
    session_id: str
    prefixes: bool
    overwrite: bool
    def __init__(self, path: _Optional[str] = ..., session_id: _Optional[str] = ..., prefixes: bool = ..., overwrite: bool = ...) -> None: ...

class ExportCachesResponse(_message.Message):
    __slots__ = ("segments", "tokens", "lineages", "bytes", "left_out_segments")
    SEGMENTS_FIELD_NUMBER: _ClassVar[int]
    TOKENS_FIELD_NUMBER: _ClassVar[int]
    LINEAGES_FIELD_NUMBER: _ClassVar[int]
    BYTES_FIELD_NUMBER: _ClassVar[int]
    LEFT_OUT_SEGMENTS_FIELD_NUMBER: _ClassVar[int]
    segments: int
    tokens: int
    lineages: int
    bytes: int
    left_out_segments: int
    def __init__(self, segments: _Optional[int] = ..., tokens: _Optional[int] = ..., lineages: _Optional[int] = ..., bytes: _Optional[int] = ..., left_out_segments: _Optional[int] = ...) -> None: ...

class ImportCachesRequest(_message.Message):
    __slots__ = ("path",)
    PATH_FIELD_NUMBER: _ClassVar[int]
    path: str
    def __init__(self, path: _Optional[str] = ...) -> None: ...

class ImportCachesResponse(_message.Message):
    __slots__ = ("segments", "tokens", "lineages", "bytes", "known_segments", "left_out_segments", "unpinned_segments")
    SEGMENTS_FIELD_NUMBER: _ClassVar[int]
    TOKENS_FIELD_NUMBER: _ClassVar[int]
    LINEAGES_FIELD_NUMBER: _ClassVar[int]
    BYTES_FIELD_NUMBER: _ClassVar[int]
    KNOWN_SEGMENTS_FIELD_NUMBER: _ClassVar[int]
    LEFT_OUT_SEGMENTS_FIELD_NUMBER: _ClassVar[int]
    UNPINNED_SEGMENTS_FIELD_NUMBER: _ClassVar[int]
    segments: int
    tokens: int
    lineages: int
    bytes: int
    known_segments: int
    left_out_segments: int
    unpinned_segments: int
    def __init__(self, segments: _Optional[int] = ..., tokens: _Optional[int] = ..., lineages: _Optional[int] = ..., bytes: _Optional[int] = ..., known_segments: _Optional[int] = ..., left_out_segments: _Optional[int] = ..., unpinned_segments: _Optional[int] = ...) -> None: ...
