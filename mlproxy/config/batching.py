"""What an endpoint aims at, and how its batches form, with the defaults and their reasons. **Pure.**"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, field_validator

from mlproxy.config.header_names import LaneHeaderName
from mlproxy.config.section import Section
from mlproxy.config.values import DurationNs, PositiveDurationNs


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
