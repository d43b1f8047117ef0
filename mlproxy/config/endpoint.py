"""An endpoint and its backend, with their defaults and reasons. **Pure.**"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, field_validator

from mlproxy.config.batching import Batching, Slo
from mlproxy.config.section import Section
from mlproxy.config.values import (
    NO_LIMIT,
    HttpPath,
    HttpUrl,
    JsonObject,
    JsonPointer,
    PositiveDurationNs,
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
