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

class RouteState(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    ROUTE_STATE_UNSPECIFIED: _ClassVar[RouteState]
    ROUTE_STATE_READY: _ClassVar[RouteState]
    ROUTE_STATE_STARTING: _ClassVar[RouteState]
    ROUTE_STATE_UNAVAILABLE: _ClassVar[RouteState]

class Outcome(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    OUTCOME_UNSPECIFIED: _ClassVar[Outcome]
    OUTCOME_COMPLETED: _ClassVar[Outcome]
    OUTCOME_FAILED: _ClassVar[Outcome]
    OUTCOME_CANCELLED: _ClassVar[Outcome]
ROUTE_STATE_UNSPECIFIED: RouteState
ROUTE_STATE_READY: RouteState
ROUTE_STATE_STARTING: RouteState
ROUTE_STATE_UNAVAILABLE: RouteState
OUTCOME_UNSPECIFIED: Outcome
OUTCOME_COMPLETED: Outcome
OUTCOME_FAILED: Outcome
OUTCOME_CANCELLED: Outcome

class Route(_message.Message):
    __slots__ = ("mode", "worker_socket", "generation", "state", "retry_after", "reason", "passthrough", "model", "relayed")
    MODE_FIELD_NUMBER: _ClassVar[int]
    WORKER_SOCKET_FIELD_NUMBER: _ClassVar[int]
    GENERATION_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    RETRY_AFTER_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    PASSTHROUGH_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    RELAYED_FIELD_NUMBER: _ClassVar[int]
    mode: str
    worker_socket: str
    generation: int
    state: RouteState
    retry_after: _duration_pb2.Duration
    reason: str
    passthrough: bool
    model: _worker_pb2.ModelInfo
    relayed: bool
    def __init__(self, mode: _Optional[str] = ..., worker_socket: _Optional[str] = ..., generation: _Optional[int] = ..., state: _Optional[_Union[RouteState, str]] = ..., retry_after: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., reason: _Optional[str] = ..., passthrough: bool = ..., model: _Optional[_Union[_worker_pb2.ModelInfo, _Mapping]] = ..., relayed: bool = ...) -> None: ...

class SetRoutesRequest(_message.Message):
    __slots__ = ("version", "default_mode", "routes")
    VERSION_FIELD_NUMBER: _ClassVar[int]
    DEFAULT_MODE_FIELD_NUMBER: _ClassVar[int]
    ROUTES_FIELD_NUMBER: _ClassVar[int]
    version: int
    default_mode: str
    routes: _containers.RepeatedCompositeFieldContainer[Route]
    def __init__(self, version: _Optional[int] = ..., default_mode: _Optional[str] = ..., routes: _Optional[_Iterable[_Union[Route, _Mapping]]] = ...) -> None: ...

class SetRoutesResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class StreamRecordsRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class StreamRecordsResponse(_message.Message):
    __slots__ = ("record", "dropped_records")
    RECORD_FIELD_NUMBER: _ClassVar[int]
    DROPPED_RECORDS_FIELD_NUMBER: _ClassVar[int]
    record: RequestRecord
    dropped_records: int
    def __init__(self, record: _Optional[_Union[RequestRecord, _Mapping]] = ..., dropped_records: _Optional[int] = ...) -> None: ...

class RequestRecord(_message.Message):
    __slots__ = ("request_id", "start_time", "duration", "route", "mode", "requested_model", "identity", "status", "stream", "outcome", "error_type", "error_message", "stop_reason", "usage", "timings", "time_to_first_token", "reuse_cause", "route_reason", "images", "worker_deaths", "replayed_tokens", "decoded", "launch_id", "model")
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    START_TIME_FIELD_NUMBER: _ClassVar[int]
    DURATION_FIELD_NUMBER: _ClassVar[int]
    ROUTE_FIELD_NUMBER: _ClassVar[int]
    MODE_FIELD_NUMBER: _ClassVar[int]
    REQUESTED_MODEL_FIELD_NUMBER: _ClassVar[int]
    IDENTITY_FIELD_NUMBER: _ClassVar[int]
    STATUS_FIELD_NUMBER: _ClassVar[int]
    STREAM_FIELD_NUMBER: _ClassVar[int]
    OUTCOME_FIELD_NUMBER: _ClassVar[int]
    ERROR_TYPE_FIELD_NUMBER: _ClassVar[int]
    ERROR_MESSAGE_FIELD_NUMBER: _ClassVar[int]
    STOP_REASON_FIELD_NUMBER: _ClassVar[int]
    USAGE_FIELD_NUMBER: _ClassVar[int]
    TIMINGS_FIELD_NUMBER: _ClassVar[int]
    TIME_TO_FIRST_TOKEN_FIELD_NUMBER: _ClassVar[int]
    REUSE_CAUSE_FIELD_NUMBER: _ClassVar[int]
    ROUTE_REASON_FIELD_NUMBER: _ClassVar[int]
    IMAGES_FIELD_NUMBER: _ClassVar[int]
    WORKER_DEATHS_FIELD_NUMBER: _ClassVar[int]
    REPLAYED_TOKENS_FIELD_NUMBER: _ClassVar[int]
    DECODED_FIELD_NUMBER: _ClassVar[int]
    LAUNCH_ID_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    request_id: str
    start_time: _timestamp_pb2.Timestamp
    duration: _duration_pb2.Duration
    route: str
    mode: str
    requested_model: str
    identity: _worker_pb2.Identity
    status: int
    stream: bool
    outcome: Outcome
    error_type: str
    error_message: str
    stop_reason: _worker_pb2.StopReason
    usage: _worker_pb2.Usage
    timings: _worker_pb2.Timings
    time_to_first_token: _duration_pb2.Duration
    reuse_cause: _worker_pb2.ReuseCause
    route_reason: str
    images: int
    worker_deaths: int
    replayed_tokens: int
    decoded: _worker_pb2.Decoded
    launch_id: str
    model: str
    def __init__(self, request_id: _Optional[str] = ..., start_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., duration: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., route: _Optional[str] = ..., mode: _Optional[str] = ..., requested_model: _Optional[str] = ..., identity: _Optional[_Union[_worker_pb2.Identity, _Mapping]] = ..., status: _Optional[int] = ..., stream: bool = ..., outcome: _Optional[_Union[Outcome, str]] = ..., error_type: _Optional[str] = ..., error_message: _Optional[str] = ..., stop_reason: _Optional[_Union[_worker_pb2.StopReason, str]] = ..., usage: _Optional[_Union[_worker_pb2.Usage, _Mapping]] = ..., timings: _Optional[_Union[_worker_pb2.Timings, _Mapping]] = ..., time_to_first_token: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., reuse_cause: _Optional[_Union[_worker_pb2.ReuseCause, str]] = ..., route_reason: _Optional[str] = ..., images: _Optional[int] = ..., worker_deaths: _Optional[int] = ..., replayed_tokens: _Optional[int] = ..., decoded: _Optional[_Union[_worker_pb2.Decoded, _Mapping]] = ..., launch_id: _Optional[str] = ..., model: _Optional[str] = ...) -> None: ...

class ListRunningRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ListRunningResponse(_message.Message):
    __slots__ = ("requests",)
    REQUESTS_FIELD_NUMBER: _ClassVar[int]
    requests: _containers.RepeatedCompositeFieldContainer[RunningRequest]
    def __init__(self, requests: _Optional[_Iterable[_Union[RunningRequest, _Mapping]]] = ...) -> None: ...

class RunningRequest(_message.Message):
    __slots__ = ("record", "prefilled_tokens", "prompt_tokens")
    RECORD_FIELD_NUMBER: _ClassVar[int]
    PREFILLED_TOKENS_FIELD_NUMBER: _ClassVar[int]
    PROMPT_TOKENS_FIELD_NUMBER: _ClassVar[int]
    record: RequestRecord
    prefilled_tokens: int
    prompt_tokens: int
    def __init__(self, record: _Optional[_Union[RequestRecord, _Mapping]] = ..., prefilled_tokens: _Optional[int] = ..., prompt_tokens: _Optional[int] = ...) -> None: ...
