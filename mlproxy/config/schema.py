"""What can be configured, with its defaults and their reasons. **Pure.**

The YAML key is the field's alias where the field carries a unit (``timeout_ns`` is written ``timeout: 5s``). Models
are frozen and refuse unknown keys. A configuration travels to the role processes as JSON, spelt as the file spells it.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from mlproxy.config.conflicts import Conflicting, conflicts
from mlproxy.config.endpoint import Endpoint
from mlproxy.config.section import Section
from mlproxy.config.values import Host, Port, PositiveDurationNs, SizeBytes


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
