"""What can be configured, with its defaults and their reasons. **Pure.**

The YAML key is the field's alias where the field carries a unit (``timeout_ns`` is written ``timeout: 5s``). Models
are frozen and refuse unknown keys. A configuration travels to the role processes as JSON, spelt as the file spells it.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from mlproxy.config.conflicts import Conflicting, conflicts
from mlproxy.config.header_names import LaneHeaderName
from mlproxy.config.values import (
    NO_LIMIT,
    DurationNs,
    Host,
    HttpPath,
    HttpUrl,
    JsonObject,
    JsonPointer,
    Port,
    PositiveDurationNs,
    SizeBytes,
    UrlName,
)

#: Of each protocol: where predictions arrive, the prefix under which everything else passes through (none: where
#: predictions arrive), and where the backend takes batches.
_PATHS = {
    "kserve-v1": ("/v1/models/{name}:predict", "/v1/models/{name}", "/v1/models/{name}:predict"),
    "kserve-v2": ("/v2/models/{name}/infer", "/v2/models/{name}", "/v2/models/{name}/infer"),
    "json-list": ("/{name}/predict", "/{name}", "/predict"),
    "openai-embeddings": ("/v1/embeddings", "", "/v1/embeddings"),
    "custom": ("", "", ""),  # has none: they must be given
}
#: The proxy's own paths on the data port.
HEALTH_PATHS = ("/healthz", "/readyz")
#: The end of a path in which a version of the model can be named before it.
_INFER = "/infer"


class Section(BaseModel):
    """A mapping of the file: frozen, no unknown keys, written by alias."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Server(Section):
    """The data port and its workers."""

    host: Host = Field("0.0.0.0", description="Address of the data port.")
    port: Port = Field(8080, description="`$PORT` wins, as Knative and Cloud Run want. 0: the kernel chooses.")
    workers: Annotated[int, Field(strict=True, ge=1, le=256)] | Literal["auto"] = Field(
        "auto",
        examples=[2],
        description="Ingress workers. auto: whole CPUs of the cgroup quota; from three on, less one for the batcher; "
        "at most `limits.queue_bytes` / `limits.body`.",
    )
    drain_timeout_ns: PositiveDurationNs = Field(
        30_000_000_000, alias="drain_timeout", description="Longest time from SIGTERM to exit."
    )
    ring_bytes: Annotated[SizeBytes, Field(ge=2**16, le=2**30)] = Field(
        8 * 2**20, alias="ring", description="Shared memory of each of a worker's two rings."
    )
    state_dir: Annotated[str, Field(min_length=1)] | None = Field(
        None, examples=["/var/lib/mlproxy"],
        description="A folder in which policy slo keeps what it has learned, a small file per endpoint, over a restart "
        "of less than an hour. null: it learns anew.",
    )  # fmt: skip


class Admin(Section):
    """The port for metrics and the API."""

    host: Host = Field("127.0.0.1", description="Address of the admin port.")
    port: Port = Field(8081, description="Port of metrics, status and API. 0: the kernel chooses.")
    token: str = Field(
        "", examples=["${MLPROXY_ADMIN_TOKEN}"], repr=False,
        description="What writes to the API, and reads of an endpoint's block, must bring, as "
        "`Authorization: Bearer …`. Empty: no writes, and everybody reads.",
    )  # fmt: skip


class Limits(Section):
    """Bounds on what callers may send and what may wait."""

    body_bytes: SizeBytes = Field(
        16 * 2**20, alias="body", description="Largest request body, also once it is inflated; beyond it 413."
    )
    header_bytes: SizeBytes = Field(32 * 2**10, alias="header", description="Largest request head; beyond it 431.")
    queue_instances: Annotated[int, Field(strict=True, ge=1)] = Field(
        10_000, description="Instances that may wait, over all endpoints; beyond it 503 with Retry-After."
    )
    queue_bytes: SizeBytes = Field(
        256 * 2**20,
        description="Bytes that may wait in the batcher, over all endpoints; and bytes of bodies, from their first "
        "byte to their answer, that the workers may keep, in equal shares. Beyond either 503. At least `limits.body` "
        "per worker.",
    )
    header_timeout_ns: PositiveDurationNs = Field(
        10_000_000_000, alias="header_timeout",
        description="Longest time for a request's head, and longest pause within its body; beyond it 408.",
    )  # fmt: skip
    body_timeout_ns: PositiveDurationNs = Field(
        60_000_000_000, alias="body_timeout",
        description="Longest time for a whole prediction request to come in, however it trickles; beyond it 408.",
    )  # fmt: skip
    connections: Annotated[int, Field(strict=True, ge=1)] = Field(
        10_000, description="Callers' connections open at once, each worker taking its share; beyond it 503 and closed."
    )


class Logging(Section):
    """What is written to standard error."""

    level: Literal["debug", "info", "warning", "error"] = Field(
        "info", description="The least important lines that are written."
    )
    access: Annotated[bool, Field(strict=True)] = Field(
        False, description="One line per response, those to health checks apart."
    )


class Tls(Section):
    """How an https backend is verified."""

    verify: Annotated[bool, Field(strict=True)] = Field(
        True, description="Whether the server's certificate is checked. Turn it off in experiments only."
    )
    ca_file: str | None = Field(
        None, description="PEM file with the authorities to trust instead of the system's.", examples=["/etc/ca.pem"]
    )


class Retry(Section):
    """What happens to a batch whose call failed before the backend answered."""

    attempts: Annotated[int, Field(strict=True, ge=0, le=10)] = Field(
        2, description="Further calls after the first, on refused or lost connections and on 502, 503, 504."
    )
    resend_on_crash: Annotated[bool, Field(strict=True)] = Field(
        True, description="Send unanswered requests again when the batching process died. Needs idempotent inference."
    )


class Scaling(Section):
    """How large the backend is."""

    kind: Literal["fixed", "knative"] = Field(
        "fixed", description="fixed: `slots` calls at once, always. knative: pods come and go with the calls in flight."
    )
    slots: Annotated[int, Field(strict=True, ge=1, le=10_000)] = Field(
        4, description="fixed: calls that the backend serves at once."
    )
    target: Annotated[float, Field(ge=0.01, le=1_000_000)] = Field(
        1.0, description="knative: the model's annotation `autoscaling.knative.dev/target`, calls per pod."
    )
    utilization: Annotated[float, Field(gt=0, le=1)] = Field(
        0.7, description="knative: `target-utilization-percentage` as a share; the autoscaler aims at target × this."
    )
    container_concurrency: Annotated[int, Field(strict=True, ge=0, le=1000)] = Field(
        1, description="knative: the model's `containerConcurrency`, calls that a pod serves at once; 0: no limit."
    )
    max_scale: Annotated[int, Field(strict=True, ge=0, le=10_000)] = Field(
        0, description="knative: the model's annotation `max-scale`, most pods; 0: no limit."
    )


class Backend(Section):
    """The model server behind an endpoint."""

    urls: tuple[HttpUrl, ...] = Field(
        min_length=1, description="Servers of the model; calls go to the one with the fewest in flight.",
        examples=["[http://127.0.0.1:9000]"],
    )  # fmt: skip
    path: HttpPath | None = Field(
        None,
        description="Where batches are posted; null: `/predict` for json-list, for others the protocol's own route, "
        "whatever `route` says; custom has none.",
        examples=["/predict"],
    )
    timeout_ns: PositiveDurationNs = Field(
        5_000_000_000, alias="timeout", description="Longest time for a call's answer; beyond it 504."
    )
    connect_timeout_ns: PositiveDurationNs = Field(
        1_000_000_000, alias="connect_timeout", description="Longest time to connect, TLS included."
    )
    max_connections: Annotated[int, Field(strict=True, ge=1)] = Field(
        64, description="At most so many connections to each URL; calls beyond them wait, where no batch grows."
    )
    retry: Retry = Retry()
    scaling: Scaling = Scaling()
    tls: Tls = Tls()

    @field_validator("urls")
    @classmethod
    def _check_urls(cls, urls: tuple[str, ...]) -> tuple[str, ...]:
        if len(set(urls)) != len(urls):
            raise ValueError("the same URL stands twice")
        return urls


class Slo(Section):
    """The latency objective: ``share`` of the requests within ``latency``."""

    latency_ns: PositiveDurationNs = Field(
        500_000_000, alias="latency", description="The objective, from a request's head to its answer."
    )
    share: Annotated[float, Field(gt=0, lt=1)] = Field(
        0.99, description="Share of the requests that is to be answered in time; policy slo aims at it."
    )


class Aimd(Section):
    """The loop of policy aimd: additive increase, multiplicative decrease of the batch size (MLProxy, 2022)."""

    interval_ns: PositiveDurationNs = Field(30_000_000_000, alias="interval", description="How often it looks.")
    start_size: Annotated[int, Field(strict=True, ge=1, le=65536)] = Field(5, description="First batch size.")
    step: Annotated[int, Field(strict=True, ge=1, le=65536)] = Field(5, description="Added when all is well.")
    factor: Annotated[float, Field(gt=0, lt=1)] = Field(0.7, description="What the size is multiplied with otherwise.")
    slo_share: Annotated[float, Field(gt=0, le=1)] = Field(
        0.8, description="Share of `slo.latency` below which the 95th percentile of the latency has to stay."
    )
    timeout_ratio: Annotated[float, Field(gt=0, le=1)] = Field(
        0.5, description="The size also shrinks when this share of the batches left by the timer."
    )


class Batching(Section):
    """How batches form."""

    policy: Literal["slo", "aimd", "static", "none"] = Field(
        "slo",
        description="slo: as late as `slo` allows, sooner where it costs nothing. static: `max_size` and `max_linger`. "
        "aimd: the 2021 prototype's loop, to compare with. none: every request is a call of its own.",
    )  # fmt: skip
    max_size: Annotated[int, Field(strict=True, ge=1, le=65536)] = Field(128, description="Instances per batch.")
    max_linger_ns: DurationNs | None = Field(
        None, alias="max_linger", examples=["5ms"],
        description="Longest wait for company, from the oldest request's arrival. null: with policy slo whatever the "
        "objective leaves; with static none: a batch leaves as soon as a slot is free, and grows while none is.",
    )  # fmt: skip
    max_inflight: Annotated[int, Field(strict=True, ge=1)] | Literal["auto"] = Field(
        "auto", examples=[4],
        description="Calls in flight at once; auto: the slots of a fixed backend, and of one that scales as many as it "
        "has pods (slo) or no limit (the other policies).",
    )  # fmt: skip
    bill: Literal["pods", "busy"] = Field(
        "pods",
        description="What policy slo saves: pods, or the time in which they are busy (request-based billing), at the "
        "price of latency.",
    )  # fmt: skip
    lane_headers: tuple[LaneHeaderName, ...] = Field(
        (), examples=["[authorization, x-tenant]"],
        description="Request headers that go to the backend with the batch: only requests in which they are the same, "
        "or absent alike, share one. No other header of a caller is forwarded with a batch.",
    )  # fmt: skip
    verify: Annotated[float, Field(ge=0, le=1)] = Field(
        0.0, examples=[0.001],
        description="Share of the requests answered from a batch that is sent once more, alone, while a slot is free, "
        "to compare the answers, at most one of each batch; where they differ, the lane stops batching. For "
        "deterministic models only. 0: none.",
    )  # fmt: skip
    verify_tolerance: Annotated[float, Field(ge=0, le=1)] = Field(
        0.001, description="By how much, relatively, numbers in the two answers may differ; all else must be equal."
    )
    coalesce: Annotated[bool, Field(strict=True)] = Field(
        False,
        description="Requests that wait with the same instances, byte for byte, are sent once, and each answered.",
    )
    aimd: Aimd = Aimd()

    @field_validator("lane_headers")
    @classmethod
    def _check_lane_headers(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        if twice := [name for name in dict.fromkeys(names) if names.count(name) > 1]:
            raise ValueError(f"{', '.join(twice)}: the same header stands twice")
        return names


class CustomRequest(Section):
    """Protocol custom: what a body looks like."""

    items: JsonPointer | None = Field(
        None, examples=["/data/rows"],
        description="custom, where it is required: a JSON pointer (RFC 6901) to the array of instances in a body. "
        'Empty (`""`): the body is the array.',
    )  # fmt: skip
    wrap: Annotated[bool, Field(strict=True)] = Field(
        False, description="custom: callers send one bare instance there; the backend gets an array of them."
    )
    constants: JsonObject = Field(
        {}, examples=["{model: iris}"],
        description="custom: members of every batch's body, in place of what callers say by these names.",
    )  # fmt: skip


class CustomResponse(Section):
    """Protocol custom: what a reply looks like."""

    items: JsonPointer | None = Field(
        None, examples=["/results/0/scores"],
        description="custom, where it is required: a JSON pointer to the array of items, one per instance, in a reply.",
    )  # fmt: skip
    unwrap: Annotated[bool, Field(strict=True)] = Field(
        False, description="custom: callers get one bare item in place of the array. Needs `request.wrap`."
    )


class Endpoint(Section):
    """A route with its protocol, objective, policy and backend."""

    name: UrlName = Field(description="Stands in URLs and in the metrics' label `endpoint`.", examples=["iris"])
    protocol: Literal["kserve-v1", "kserve-v2", "json-list", "openai-embeddings", "custom"] = Field(
        "kserve-v1", description="What callers and the backend speak."
    )
    route: HttpPath | None = Field(
        None, description="Path of predictions; null: the protocol's own, which custom has not.", examples=["/score"]
    )
    request: CustomRequest = CustomRequest()
    response: CustomResponse = CustomResponse()
    backend: Backend
    slo: Slo = Slo()
    batching: Batching = Batching()

    @property
    def predict_path(self) -> str:
        """Where callers send predictions."""
        return self.route or _PATHS[self.protocol][0].format(name=self.name)

    @property
    def prefix(self) -> str:
        """Other paths at or under this one pass through to the backend."""
        return _PATHS[self.protocol][1].format(name=self.name) or self.predict_path

    @property
    def backend_path(self) -> str:
        """Where batches are posted."""
        return self.backend.path or _PATHS[self.protocol][2].format(name=self.name)

    @property
    def names_versions(self) -> bool:
        """Whether callers may name a version of the model in the path, because a call to the backend can."""
        path = self.backend_path
        return self.protocol == "kserve-v2" and not self.route and path.endswith(_INFER) and "/versions/" not in path

    def versioned_backend_path(self, version: str) -> str:
        """Where batches for one version of the model are posted; empty: for the backend's choice."""
        path = self.backend_path
        return f"{path.removesuffix(_INFER)}/versions/{version}{_INFER}" if version else path

    @property
    def max_inflight(self) -> int:
        """Calls in flight at once, as a number; the policy slo finds its own for a backend that scales."""
        if self.batching.max_inflight != "auto":
            return self.batching.max_inflight
        return self.backend.scaling.slots if self.backend.scaling.kind == "fixed" else NO_LIMIT

    @field_validator("route")
    @classmethod
    def _check_route(cls, route: str | None) -> str | None:
        if route in HEALTH_PATHS:
            raise ValueError(f"{route} is the proxy's own health route")
        return route


class Configuration(Section):
    """Everything."""

    server: Server = Server()
    admin: Admin = Admin()
    limits: Limits = Limits()
    logging: Logging = Logging()
    endpoints: tuple[Endpoint, ...] = Field(min_length=1)

    @property
    def most_workers(self) -> int:
        """How many workers can share `limits.queue_bytes` so that each may keep a body of `limits.body`."""
        return self.limits.queue_bytes // self.limits.body_bytes

    @model_validator(mode="after")
    def _no_conflicts(self) -> Configuration:
        if found := list(conflicts(self)):
            raise Conflicting(found)
        return self

    def to_json(self) -> str:
        """How it travels to a role process."""
        return self.model_dump_json(by_alias=True, exclude_unset=True)

    @classmethod
    def from_json(cls, text: str) -> Configuration:
        """The other end of `to_json`."""
        return cls.model_validate_json(text)
