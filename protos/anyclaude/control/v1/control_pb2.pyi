import datetime

from anyclaude.frontend.v1 import frontend_pb2 as _frontend_pb2
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

class WorkerState(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    WORKER_STATE_UNSPECIFIED: _ClassVar[WorkerState]
    WORKER_STATE_STOPPED: _ClassVar[WorkerState]
    WORKER_STATE_STARTING: _ClassVar[WorkerState]
    WORKER_STATE_READY: _ClassVar[WorkerState]
    WORKER_STATE_STOPPING: _ClassVar[WorkerState]
    WORKER_STATE_BACKOFF: _ClassVar[WorkerState]
    WORKER_STATE_FATAL: _ClassVar[WorkerState]
    WORKER_STATE_ABORTING: _ClassVar[WorkerState]

class Readiness(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    READINESS_UNSPECIFIED: _ClassVar[Readiness]
    READINESS_READY: _ClassVar[Readiness]
    READINESS_STARTING: _ClassVar[Readiness]
    READINESS_DEGRADED: _ClassVar[Readiness]

class SwitchPolicy(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    SWITCH_POLICY_UNSPECIFIED: _ClassVar[SwitchPolicy]
    SWITCH_POLICY_START_FIRST: _ClassVar[SwitchPolicy]
    SWITCH_POLICY_STOP_FIRST: _ClassVar[SwitchPolicy]
WORKER_STATE_UNSPECIFIED: WorkerState
WORKER_STATE_STOPPED: WorkerState
WORKER_STATE_STARTING: WorkerState
WORKER_STATE_READY: WorkerState
WORKER_STATE_STOPPING: WorkerState
WORKER_STATE_BACKOFF: WorkerState
WORKER_STATE_FATAL: WorkerState
WORKER_STATE_ABORTING: WorkerState
READINESS_UNSPECIFIED: Readiness
READINESS_READY: Readiness
READINESS_STARTING: Readiness
READINESS_DEGRADED: Readiness
SWITCH_POLICY_UNSPECIFIED: SwitchPolicy
SWITCH_POLICY_START_FIRST: SwitchPolicy
SWITCH_POLICY_STOP_FIRST: SwitchPolicy

class LastExit(_message.Message):
    __slots__ = ("code", "signal", "reason", "stderr_tail", "time")
    CODE_FIELD_NUMBER: _ClassVar[int]
    SIGNAL_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    STDERR_TAIL_FIELD_NUMBER: _ClassVar[int]
    TIME_FIELD_NUMBER: _ClassVar[int]
    code: int
    signal: str
    reason: str
    stderr_tail: str
    time: _timestamp_pb2.Timestamp
    def __init__(self, code: _Optional[int] = ..., signal: _Optional[str] = ..., reason: _Optional[str] = ..., stderr_tail: _Optional[str] = ..., time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ...) -> None: ...

class Worker(_message.Message):
    __slots__ = ("name", "state", "pid", "start_time", "ready_time", "restart_count", "generation", "last_exit", "next_retry_time", "makes_room_for", "deaths")
    NAME_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    PID_FIELD_NUMBER: _ClassVar[int]
    START_TIME_FIELD_NUMBER: _ClassVar[int]
    READY_TIME_FIELD_NUMBER: _ClassVar[int]
    RESTART_COUNT_FIELD_NUMBER: _ClassVar[int]
    GENERATION_FIELD_NUMBER: _ClassVar[int]
    LAST_EXIT_FIELD_NUMBER: _ClassVar[int]
    NEXT_RETRY_TIME_FIELD_NUMBER: _ClassVar[int]
    MAKES_ROOM_FOR_FIELD_NUMBER: _ClassVar[int]
    DEATHS_FIELD_NUMBER: _ClassVar[int]
    name: str
    state: WorkerState
    pid: int
    start_time: _timestamp_pb2.Timestamp
    ready_time: _timestamp_pb2.Timestamp
    restart_count: int
    generation: int
    last_exit: LastExit
    next_retry_time: _timestamp_pb2.Timestamp
    makes_room_for: str
    deaths: _containers.RepeatedCompositeFieldContainer[LastExit]
    def __init__(self, name: _Optional[str] = ..., state: _Optional[_Union[WorkerState, str]] = ..., pid: _Optional[int] = ..., start_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., ready_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., restart_count: _Optional[int] = ..., generation: _Optional[int] = ..., last_exit: _Optional[_Union[LastExit, _Mapping]] = ..., next_retry_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., makes_room_for: _Optional[str] = ..., deaths: _Optional[_Iterable[_Union[LastExit, _Mapping]]] = ...) -> None: ...

class GetStatusRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class GetStatusResponse(_message.Message):
    __slots__ = ("status",)
    STATUS_FIELD_NUMBER: _ClassVar[int]
    status: Status
    def __init__(self, status: _Optional[_Union[Status, _Mapping]] = ...) -> None: ...

class Status(_message.Message):
    __slots__ = ("version", "pid", "start_time", "readiness", "problems", "mode", "base_url", "workers", "model", "memory", "running_requests", "home", "disk", "notices", "is_serving", "requests", "loosened_schemas", "batch", "blas")
    VERSION_FIELD_NUMBER: _ClassVar[int]
    PID_FIELD_NUMBER: _ClassVar[int]
    START_TIME_FIELD_NUMBER: _ClassVar[int]
    READINESS_FIELD_NUMBER: _ClassVar[int]
    PROBLEMS_FIELD_NUMBER: _ClassVar[int]
    MODE_FIELD_NUMBER: _ClassVar[int]
    BASE_URL_FIELD_NUMBER: _ClassVar[int]
    WORKERS_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    MEMORY_FIELD_NUMBER: _ClassVar[int]
    RUNNING_REQUESTS_FIELD_NUMBER: _ClassVar[int]
    HOME_FIELD_NUMBER: _ClassVar[int]
    DISK_FIELD_NUMBER: _ClassVar[int]
    NOTICES_FIELD_NUMBER: _ClassVar[int]
    IS_SERVING_FIELD_NUMBER: _ClassVar[int]
    REQUESTS_FIELD_NUMBER: _ClassVar[int]
    LOOSENED_SCHEMAS_FIELD_NUMBER: _ClassVar[int]
    BATCH_FIELD_NUMBER: _ClassVar[int]
    BLAS_FIELD_NUMBER: _ClassVar[int]
    version: str
    pid: int
    start_time: _timestamp_pb2.Timestamp
    readiness: Readiness
    problems: _containers.RepeatedScalarFieldContainer[str]
    mode: str
    base_url: str
    workers: _containers.RepeatedCompositeFieldContainer[Worker]
    model: _worker_pb2.ModelInfo
    memory: _worker_pb2.MemoryStatus
    running_requests: int
    home: str
    disk: _worker_pb2.DiskStatus
    notices: _containers.RepeatedScalarFieldContainer[str]
    is_serving: bool
    requests: _containers.RepeatedCompositeFieldContainer[_frontend_pb2.RunningRequest]
    loosened_schemas: _containers.RepeatedScalarFieldContainer[str]
    batch: _worker_pb2.BatchStatus
    blas: str
    def __init__(self, version: _Optional[str] = ..., pid: _Optional[int] = ..., start_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., readiness: _Optional[_Union[Readiness, str]] = ..., problems: _Optional[_Iterable[str]] = ..., mode: _Optional[str] = ..., base_url: _Optional[str] = ..., workers: _Optional[_Iterable[_Union[Worker, _Mapping]]] = ..., model: _Optional[_Union[_worker_pb2.ModelInfo, _Mapping]] = ..., memory: _Optional[_Union[_worker_pb2.MemoryStatus, _Mapping]] = ..., running_requests: _Optional[int] = ..., home: _Optional[str] = ..., disk: _Optional[_Union[_worker_pb2.DiskStatus, _Mapping]] = ..., notices: _Optional[_Iterable[str]] = ..., is_serving: bool = ..., requests: _Optional[_Iterable[_Union[_frontend_pb2.RunningRequest, _Mapping]]] = ..., loosened_schemas: _Optional[_Iterable[str]] = ..., batch: _Optional[_Union[_worker_pb2.BatchStatus, _Mapping]] = ..., blas: _Optional[str] = ...) -> None: ...

class ReloadConfigRequest(_message.Message):
    __slots__ = ("validate_only",)
    VALIDATE_ONLY_FIELD_NUMBER: _ClassVar[int]
    validate_only: bool
    def __init__(self, validate_only: bool = ...) -> None: ...

class ReloadConfigResponse(_message.Message):
    __slots__ = ("changed_keys", "restarted_workers", "pending_keys")
    CHANGED_KEYS_FIELD_NUMBER: _ClassVar[int]
    RESTARTED_WORKERS_FIELD_NUMBER: _ClassVar[int]
    PENDING_KEYS_FIELD_NUMBER: _ClassVar[int]
    changed_keys: _containers.RepeatedScalarFieldContainer[str]
    restarted_workers: _containers.RepeatedScalarFieldContainer[str]
    pending_keys: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, changed_keys: _Optional[_Iterable[str]] = ..., restarted_workers: _Optional[_Iterable[str]] = ..., pending_keys: _Optional[_Iterable[str]] = ...) -> None: ...

class WatchStatusRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class WatchStatusResponse(_message.Message):
    __slots__ = ("status",)
    STATUS_FIELD_NUMBER: _ClassVar[int]
    status: Status
    def __init__(self, status: _Optional[_Union[Status, _Mapping]] = ...) -> None: ...

class ConfigEntry(_message.Message):
    __slots__ = ("key", "value_json", "origin")
    KEY_FIELD_NUMBER: _ClassVar[int]
    VALUE_JSON_FIELD_NUMBER: _ClassVar[int]
    ORIGIN_FIELD_NUMBER: _ClassVar[int]
    key: str
    value_json: str
    origin: str
    def __init__(self, key: _Optional[str] = ..., value_json: _Optional[str] = ..., origin: _Optional[str] = ...) -> None: ...

class GetConfigRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class GetConfigResponse(_message.Message):
    __slots__ = ("entries", "file")
    ENTRIES_FIELD_NUMBER: _ClassVar[int]
    FILE_FIELD_NUMBER: _ClassVar[int]
    entries: _containers.RepeatedCompositeFieldContainer[ConfigEntry]
    file: str
    def __init__(self, entries: _Optional[_Iterable[_Union[ConfigEntry, _Mapping]]] = ..., file: _Optional[str] = ...) -> None: ...

class ShutdownRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ShutdownResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class Mode(_message.Message):
    __slots__ = ("name", "description", "ready", "reason", "model", "is_remote", "keeps_caches", "speed", "switch_policy")
    NAME_FIELD_NUMBER: _ClassVar[int]
    DESCRIPTION_FIELD_NUMBER: _ClassVar[int]
    READY_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    IS_REMOTE_FIELD_NUMBER: _ClassVar[int]
    KEEPS_CACHES_FIELD_NUMBER: _ClassVar[int]
    SPEED_FIELD_NUMBER: _ClassVar[int]
    SWITCH_POLICY_FIELD_NUMBER: _ClassVar[int]
    name: str
    description: str
    ready: bool
    reason: str
    model: _worker_pb2.ModelInfo
    is_remote: bool
    keeps_caches: bool
    speed: Speed
    switch_policy: SwitchPolicy
    def __init__(self, name: _Optional[str] = ..., description: _Optional[str] = ..., ready: bool = ..., reason: _Optional[str] = ..., model: _Optional[_Union[_worker_pb2.ModelInfo, _Mapping]] = ..., is_remote: bool = ..., keeps_caches: bool = ..., speed: _Optional[_Union[Speed, _Mapping]] = ..., switch_policy: _Optional[_Union[SwitchPolicy, str]] = ...) -> None: ...

class Speed(_message.Message):
    __slots__ = ("requests", "warm_time_to_first_token", "cold_time_to_first_token", "tokens_per_second")
    REQUESTS_FIELD_NUMBER: _ClassVar[int]
    WARM_TIME_TO_FIRST_TOKEN_FIELD_NUMBER: _ClassVar[int]
    COLD_TIME_TO_FIRST_TOKEN_FIELD_NUMBER: _ClassVar[int]
    TOKENS_PER_SECOND_FIELD_NUMBER: _ClassVar[int]
    requests: int
    warm_time_to_first_token: _duration_pb2.Duration
    cold_time_to_first_token: _duration_pb2.Duration
    tokens_per_second: float
    def __init__(self, requests: _Optional[int] = ..., warm_time_to_first_token: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., cold_time_to_first_token: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., tokens_per_second: _Optional[float] = ...) -> None: ...

class Needs(_message.Message):
    __slots__ = ("longest_prompt_tokens", "tools", "images")
    LONGEST_PROMPT_TOKENS_FIELD_NUMBER: _ClassVar[int]
    TOOLS_FIELD_NUMBER: _ClassVar[int]
    IMAGES_FIELD_NUMBER: _ClassVar[int]
    longest_prompt_tokens: int
    tools: bool
    images: bool
    def __init__(self, longest_prompt_tokens: _Optional[int] = ..., tools: bool = ..., images: bool = ...) -> None: ...

class GetModeRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class GetModeResponse(_message.Message):
    __slots__ = ("mode", "modes", "recent_needs")
    MODE_FIELD_NUMBER: _ClassVar[int]
    MODES_FIELD_NUMBER: _ClassVar[int]
    RECENT_NEEDS_FIELD_NUMBER: _ClassVar[int]
    mode: str
    modes: _containers.RepeatedCompositeFieldContainer[Mode]
    recent_needs: Needs
    def __init__(self, mode: _Optional[str] = ..., modes: _Optional[_Iterable[_Union[Mode, _Mapping]]] = ..., recent_needs: _Optional[_Union[Needs, _Mapping]] = ...) -> None: ...

class SetModeRequest(_message.Message):
    __slots__ = ("mode", "ready_timeout")
    MODE_FIELD_NUMBER: _ClassVar[int]
    READY_TIMEOUT_FIELD_NUMBER: _ClassVar[int]
    mode: str
    ready_timeout: _duration_pb2.Duration
    def __init__(self, mode: _Optional[str] = ..., ready_timeout: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ...) -> None: ...

class SetModeResponse(_message.Message):
    __slots__ = ("mode", "previous_mode", "warning")
    MODE_FIELD_NUMBER: _ClassVar[int]
    PREVIOUS_MODE_FIELD_NUMBER: _ClassVar[int]
    WARNING_FIELD_NUMBER: _ClassVar[int]
    mode: str
    previous_mode: str
    warning: str
    def __init__(self, mode: _Optional[str] = ..., previous_mode: _Optional[str] = ..., warning: _Optional[str] = ...) -> None: ...

class ListWorkersRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ListWorkersResponse(_message.Message):
    __slots__ = ("workers",)
    WORKERS_FIELD_NUMBER: _ClassVar[int]
    workers: _containers.RepeatedCompositeFieldContainer[Worker]
    def __init__(self, workers: _Optional[_Iterable[_Union[Worker, _Mapping]]] = ...) -> None: ...

class RestartWorkerRequest(_message.Message):
    __slots__ = ("name",)
    NAME_FIELD_NUMBER: _ClassVar[int]
    name: str
    def __init__(self, name: _Optional[str] = ...) -> None: ...

class RestartWorkerResponse(_message.Message):
    __slots__ = ("worker",)
    WORKER_FIELD_NUMBER: _ClassVar[int]
    worker: Worker
    def __init__(self, worker: _Optional[_Union[Worker, _Mapping]] = ...) -> None: ...

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

class GetMetricsRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class GetMetricsResponse(_message.Message):
    __slots__ = ("text", "metrics")
    TEXT_FIELD_NUMBER: _ClassVar[int]
    METRICS_FIELD_NUMBER: _ClassVar[int]
    text: bytes
    metrics: _containers.RepeatedCompositeFieldContainer[Metric]
    def __init__(self, text: _Optional[bytes] = ..., metrics: _Optional[_Iterable[_Union[Metric, _Mapping]]] = ...) -> None: ...

class Metric(_message.Message):
    __slots__ = ("name", "labels", "value")
    class LabelsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    NAME_FIELD_NUMBER: _ClassVar[int]
    LABELS_FIELD_NUMBER: _ClassVar[int]
    VALUE_FIELD_NUMBER: _ClassVar[int]
    name: str
    labels: _containers.ScalarMap[str, str]
    value: float
    def __init__(self, name: _Optional[str] = ..., labels: _Optional[_Mapping[str, str]] = ..., value: _Optional[float] = ...) -> None: ...

class ListRequestsRequest(_message.Message):
    __slots__ = ("page_size", "session_id", "launch_id")
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    LAUNCH_ID_FIELD_NUMBER: _ClassVar[int]
    page_size: int
    session_id: str
    launch_id: str
    def __init__(self, page_size: _Optional[int] = ..., session_id: _Optional[str] = ..., launch_id: _Optional[str] = ...) -> None: ...

class ListRequestsResponse(_message.Message):
    __slots__ = ("records", "running")
    RECORDS_FIELD_NUMBER: _ClassVar[int]
    RUNNING_FIELD_NUMBER: _ClassVar[int]
    records: _containers.RepeatedCompositeFieldContainer[_frontend_pb2.RequestRecord]
    running: _containers.RepeatedCompositeFieldContainer[_frontend_pb2.RunningRequest]
    def __init__(self, records: _Optional[_Iterable[_Union[_frontend_pb2.RequestRecord, _Mapping]]] = ..., running: _Optional[_Iterable[_Union[_frontend_pb2.RunningRequest, _Mapping]]] = ...) -> None: ...
