import datetime

from anyclaude.worker.v1 import worker_pb2 as _worker_pb2
from google.protobuf import duration_pb2 as _duration_pb2
from google.protobuf import timestamp_pb2 as _timestamp_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class CacheKind(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    CACHE_KIND_UNSPECIFIED: _ClassVar[CacheKind]
    CACHE_KIND_LINEAGE: _ClassVar[CacheKind]
    CACHE_KIND_PREFIX: _ClassVar[CacheKind]

class ChangeKind(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    CHANGE_KIND_UNSPECIFIED: _ClassVar[ChangeKind]
    CHANGE_KIND_ADDED: _ClassVar[ChangeKind]
    CHANGE_KIND_REMOVED: _ClassVar[ChangeKind]
    CHANGE_KIND_CHANGED: _ClassVar[ChangeKind]
    CHANGE_KIND_MOVED: _ClassVar[ChangeKind]

class CacheTier(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    CACHE_TIER_UNSPECIFIED: _ClassVar[CacheTier]
    CACHE_TIER_MEMORY: _ClassVar[CacheTier]
    CACHE_TIER_DISK: _ClassVar[CacheTier]
CACHE_KIND_UNSPECIFIED: CacheKind
CACHE_KIND_LINEAGE: CacheKind
CACHE_KIND_PREFIX: CacheKind
CHANGE_KIND_UNSPECIFIED: ChangeKind
CHANGE_KIND_ADDED: ChangeKind
CHANGE_KIND_REMOVED: ChangeKind
CHANGE_KIND_CHANGED: ChangeKind
CHANGE_KIND_MOVED: ChangeKind
CACHE_TIER_UNSPECIFIED: CacheTier
CACHE_TIER_MEMORY: CacheTier
CACHE_TIER_DISK: CacheTier

class Cache(_message.Message):
    __slots__ = ("name", "kind", "session_id", "agent_id", "tokens", "bytes", "create_time", "last_use_time", "hits", "in_use", "request_class", "checkpoints", "pinned", "disk_bytes", "label")
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
    LABEL_FIELD_NUMBER: _ClassVar[int]
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
    request_class: _worker_pb2.RequestClass
    checkpoints: int
    pinned: bool
    disk_bytes: int
    label: str
    def __init__(self, name: _Optional[str] = ..., kind: _Optional[_Union[CacheKind, str]] = ..., session_id: _Optional[str] = ..., agent_id: _Optional[str] = ..., tokens: _Optional[int] = ..., bytes: _Optional[int] = ..., create_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., last_use_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., hits: _Optional[int] = ..., in_use: bool = ..., request_class: _Optional[_Union[_worker_pb2.RequestClass, str]] = ..., checkpoints: _Optional[int] = ..., pinned: bool = ..., disk_bytes: _Optional[int] = ..., label: _Optional[str] = ...) -> None: ...

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

class ListCachesRequest(_message.Message):
    __slots__ = ("page_size", "page_token")
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    page_size: int
    page_token: str
    def __init__(self, page_size: _Optional[int] = ..., page_token: _Optional[str] = ...) -> None: ...

class ListCachesResponse(_message.Message):
    __slots__ = ("caches", "next_page_token", "memory", "models")
    CACHES_FIELD_NUMBER: _ClassVar[int]
    NEXT_PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    MEMORY_FIELD_NUMBER: _ClassVar[int]
    MODELS_FIELD_NUMBER: _ClassVar[int]
    caches: _containers.RepeatedCompositeFieldContainer[Cache]
    next_page_token: str
    memory: _worker_pb2.MemoryStatus
    models: _containers.RepeatedCompositeFieldContainer[StoredModel]
    def __init__(self, caches: _Optional[_Iterable[_Union[Cache, _Mapping]]] = ..., next_page_token: _Optional[str] = ..., memory: _Optional[_Union[_worker_pb2.MemoryStatus, _Mapping]] = ..., models: _Optional[_Iterable[_Union[StoredModel, _Mapping]]] = ...) -> None: ...

class GetCacheRequest(_message.Message):
    __slots__ = ("name",)
    NAME_FIELD_NUMBER: _ClassVar[int]
    name: str
    def __init__(self, name: _Optional[str] = ...) -> None: ...

class GetCacheResponse(_message.Message):
    __slots__ = ("cache",)
    CACHE_FIELD_NUMBER: _ClassVar[int]
    cache: Cache
    def __init__(self, cache: _Optional[_Union[Cache, _Mapping]] = ...) -> None: ...

class GetCacheTreeRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class CacheSegment(_message.Message):
    __slots__ = ("name", "parent", "start", "tokens", "bytes", "disk_bytes", "on_disk", "has_state", "pinned", "prefix", "lineages", "hits", "last_use_time", "label")
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
    LABEL_FIELD_NUMBER: _ClassVar[int]
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
    label: str
    def __init__(self, name: _Optional[str] = ..., parent: _Optional[str] = ..., start: _Optional[int] = ..., tokens: _Optional[int] = ..., bytes: _Optional[int] = ..., disk_bytes: _Optional[int] = ..., on_disk: bool = ..., has_state: bool = ..., pinned: bool = ..., prefix: _Optional[str] = ..., lineages: _Optional[_Iterable[str]] = ..., hits: _Optional[int] = ..., last_use_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., label: _Optional[str] = ...) -> None: ...

class GetCacheTreeResponse(_message.Message):
    __slots__ = ("segments",)
    SEGMENTS_FIELD_NUMBER: _ClassVar[int]
    segments: _containers.RepeatedCompositeFieldContainer[CacheSegment]
    def __init__(self, segments: _Optional[_Iterable[_Union[CacheSegment, _Mapping]]] = ...) -> None: ...

class ExplainCacheRequest(_message.Message):
    __slots__ = ("request_id",)
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    request_id: str
    def __init__(self, request_id: _Optional[str] = ...) -> None: ...

class ExplainCacheResponse(_message.Message):
    __slots__ = ("explanation",)
    EXPLANATION_FIELD_NUMBER: _ClassVar[int]
    explanation: Explanation
    def __init__(self, explanation: _Optional[_Union[Explanation, _Mapping]] = ...) -> None: ...

class Explanation(_message.Message):
    __slots__ = ("request_id", "time", "session_id", "agent_id", "cause", "prompt_tokens", "reused_live_tokens", "reused_memory_tokens", "reused_disk_tokens", "computed_tokens", "divergence", "tools", "instructions", "lost_time", "reused_ahead_tokens")
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
    REUSED_AHEAD_TOKENS_FIELD_NUMBER: _ClassVar[int]
    request_id: str
    time: _timestamp_pb2.Timestamp
    session_id: str
    agent_id: str
    cause: _worker_pb2.ReuseCause
    prompt_tokens: int
    reused_live_tokens: int
    reused_memory_tokens: int
    reused_disk_tokens: int
    computed_tokens: int
    divergence: Divergence
    tools: _containers.RepeatedCompositeFieldContainer[ToolChange]
    instructions: _containers.RepeatedScalarFieldContainer[int]
    lost_time: _timestamp_pb2.Timestamp
    reused_ahead_tokens: int
    def __init__(self, request_id: _Optional[str] = ..., time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., session_id: _Optional[str] = ..., agent_id: _Optional[str] = ..., cause: _Optional[_Union[_worker_pb2.ReuseCause, str]] = ..., prompt_tokens: _Optional[int] = ..., reused_live_tokens: _Optional[int] = ..., reused_memory_tokens: _Optional[int] = ..., reused_disk_tokens: _Optional[int] = ..., computed_tokens: _Optional[int] = ..., divergence: _Optional[_Union[Divergence, _Mapping]] = ..., tools: _Optional[_Iterable[_Union[ToolChange, _Mapping]]] = ..., instructions: _Optional[_Iterable[int]] = ..., lost_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., reused_ahead_tokens: _Optional[int] = ...) -> None: ...

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

class ToolChange(_message.Message):
    __slots__ = ("name", "kind", "fields")
    NAME_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    FIELDS_FIELD_NUMBER: _ClassVar[int]
    name: str
    kind: ChangeKind
    fields: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, name: _Optional[str] = ..., kind: _Optional[_Union[ChangeKind, str]] = ..., fields: _Optional[_Iterable[str]] = ...) -> None: ...

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
    __slots__ = ("filter", "force")
    FILTER_FIELD_NUMBER: _ClassVar[int]
    FORCE_FIELD_NUMBER: _ClassVar[int]
    filter: PruneFilter
    force: bool
    def __init__(self, filter: _Optional[_Union[PruneFilter, _Mapping]] = ..., force: bool = ...) -> None: ...

class PruneCachesResponse(_message.Message):
    __slots__ = ("caches", "freed_bytes", "remaining_bytes")
    CACHES_FIELD_NUMBER: _ClassVar[int]
    FREED_BYTES_FIELD_NUMBER: _ClassVar[int]
    REMAINING_BYTES_FIELD_NUMBER: _ClassVar[int]
    caches: _containers.RepeatedCompositeFieldContainer[Cache]
    freed_bytes: int
    remaining_bytes: int
    def __init__(self, caches: _Optional[_Iterable[_Union[Cache, _Mapping]]] = ..., freed_bytes: _Optional[int] = ..., remaining_bytes: _Optional[int] = ...) -> None: ...

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

class LabelCacheRequest(_message.Message):
    __slots__ = ("name", "label")
    NAME_FIELD_NUMBER: _ClassVar[int]
    LABEL_FIELD_NUMBER: _ClassVar[int]
    name: str
    label: str
    def __init__(self, name: _Optional[str] = ..., label: _Optional[str] = ...) -> None: ...

class LabelCacheResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class WarmCacheRequest(_message.Message):
    __slots__ = ("body_json",)
    BODY_JSON_FIELD_NUMBER: _ClassVar[int]
    body_json: bytes
    def __init__(self, body_json: _Optional[bytes] = ...) -> None: ...

class WarmCacheResponse(_message.Message):
    __slots__ = ("usage",)
    USAGE_FIELD_NUMBER: _ClassVar[int]
    usage: _worker_pb2.Usage
    def __init__(self, usage: _Optional[_Union[_worker_pb2.Usage, _Mapping]] = ...) -> None: ...

class VerifyCachesRequest(_message.Message):
    __slots__ = ("max_tokens",)
    MAX_TOKENS_FIELD_NUMBER: _ClassVar[int]
    max_tokens: int
    def __init__(self, max_tokens: _Optional[int] = ...) -> None: ...

class VerifyCachesResponse(_message.Message):
    __slots__ = ("segments", "computed_tokens", "total_segments", "wrong", "exact", "differing", "error", "noise_floor")
    SEGMENTS_FIELD_NUMBER: _ClassVar[int]
    COMPUTED_TOKENS_FIELD_NUMBER: _ClassVar[int]
    TOTAL_SEGMENTS_FIELD_NUMBER: _ClassVar[int]
    WRONG_FIELD_NUMBER: _ClassVar[int]
    EXACT_FIELD_NUMBER: _ClassVar[int]
    DIFFERING_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    NOISE_FLOOR_FIELD_NUMBER: _ClassVar[int]
    segments: int
    computed_tokens: int
    total_segments: int
    wrong: _containers.RepeatedScalarFieldContainer[str]
    exact: bool
    differing: _containers.RepeatedScalarFieldContainer[str]
    error: float
    noise_floor: float
    def __init__(self, segments: _Optional[int] = ..., computed_tokens: _Optional[int] = ..., total_segments: _Optional[int] = ..., wrong: _Optional[_Iterable[str]] = ..., exact: bool = ..., differing: _Optional[_Iterable[str]] = ..., error: _Optional[float] = ..., noise_floor: _Optional[float] = ...) -> None: ...

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
