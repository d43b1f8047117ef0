"""What ``mlproxy simulate`` was asked for: its options as scenarios. **Effects**: reads traces and profiles."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, TypeVar

import yaml

from mlproxy.cli.simulation_proxy import DEFAULT_POLICY, policy_problems, proxy_of
from mlproxy.errors import ConfigurationError
from mlproxy.simulate import ClusterSettings, Scenario
from mlproxy.simulate.arrivals import TRACE_FORMS, Poisson, Trace, from_lines, parse_trace
from mlproxy.simulate.faults import parse_fault
from mlproxy.simulate.profiles import BUILT_IN, PROFILE_FORMS, Profile, parse_profile, table_from
from mlproxy.units import NS_PER_S, format_duration, parse_duration

T = TypeVar("T")
D = TypeVar("D")

#: How long generated traffic lasts when nothing is said.
DEFAULT_DURATION_NS = 7200 * NS_PER_S
LONGEST_NS = 31 * 24 * 3600 * NS_PER_S
#: Each takes 24 bytes.
MOST_REQUESTS = 100_000_000
MOST_PODS = 10_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """The command line as it was typed."""

    trace: str
    trace_step: str
    max_rps: float | None
    profile: str
    slo: str
    share: float
    policy: str | None
    compare: str | None
    changes: tuple[str, ...]
    duration: str | None
    warmup: str
    seed: int
    target: float
    utilization: float
    container_concurrency: int
    cold_start: str
    max_pods: int
    min_scale: int
    faults: tuple[str, ...]
    keep_series: bool

    @property
    def policies(self) -> tuple[str, ...]:
        """What is to run, each once."""
        if self.policy is None and self.compare is None:
            return (DEFAULT_POLICY,)
        return tuple(dict.fromkeys(name for _, name in self.named_policies()))

    def named_policies(self) -> Iterator[tuple[str, str]]:
        """Each policy that is named, behind the flag that names it."""
        if self.policy is not None:
            yield "--policy", self.policy
        for name in (self.compare or "").split(","):
            if name.strip():
                yield "--compare", name.strip()


def scenarios_of(options: Options) -> dict[str, Scenario]:
    """A scenario per policy. `ConfigurationError` has a line for every problem."""
    reading = _Reading()
    reading.problems += policy_problems(options)
    cluster = _cluster(reading, options)
    traffic = _traffic(reading, options)
    profile: Profile = reading.take("--profile", BUILT_IN["toxic"], _profile, options.profile)
    faults = [reading.take("--fault", None, parse_fault, text) for text in options.faults]
    changes = [reading.take("--set", None, _change, text) for text in options.changes]
    proxies = [
        reading.take("", None, proxy_of, policy, options, cluster, [change for change in changes if change])
        for policy in options.policies
    ]
    if reading.problems:
        raise ConfigurationError(list(dict.fromkeys(reading.problems)))
    return {
        proxy.policy: Scenario(
            trace=traffic.trace, duration_ns=traffic.duration_ns, warmup_ns=traffic.warmup_ns, profile=profile,
            proxy=proxy, cluster=cluster, faults=tuple(fault for fault in faults if fault), seed=options.seed,
            keep_series=options.keep_series,
        )
        for proxy in proxies
        if proxy
    }  # fmt: skip


class _Reading:
    """Reads one option after the other and keeps what was wrong, so that everything is said at once."""

    def __init__(self) -> None:
        self.problems: list[str] = []

    def take(self, option: str, otherwise: D, read: Callable[..., T], *arguments: object) -> T | D:
        """What ``read`` makes of the arguments; or a problem, and ``otherwise`` to go on with."""
        try:
            return read(*arguments)
        except ConfigurationError as error:
            self.problems += error.problems
        except ValueError as error:
            self.problems.append(f"{option}: {error}")
        return otherwise


class _Traffic(NamedTuple):
    """What arrives, and for how long."""

    trace: Trace
    duration_ns: int
    warmup_ns: int


def _traffic(reading: _Reading, options: Options) -> _Traffic:
    step_ns = reading.take("--trace-step", NS_PER_S, _some_time, options.trace_step)
    trace, trace_ns = reading.take("--trace", (Poisson(0), None), _trace, options, step_ns)
    duration_ns = reading.take("--duration", DEFAULT_DURATION_NS, _duration_ns, options.duration, trace_ns)
    warmup_ns = reading.take("--warmup", 0, _instant, options.warmup)
    if trace.peak_per_second * duration_ns / NS_PER_S > MOST_REQUESTS:
        reading.problems.append(f"--trace: more than {MOST_REQUESTS:,} requests; shorten --duration or lower the rate")
    if warmup_ns >= duration_ns:
        length = format_duration(duration_ns)
        reading.problems.append(f"--warmup: {options.warmup} leaves nothing of a run of {length} to measure")
    return _Traffic(trace, duration_ns, warmup_ns)


def _trace(options: Options, step_ns: int) -> tuple[Trace, int | None]:
    """The trace and how long it lasts; None: for ever."""
    generated = parse_trace(options.trace)
    if generated is not None:
        return generated, None
    lines = [_number(index, line) for index, line in enumerate(_text(options.trace, TRACE_FORMS).split(), start=1)]
    if not lines:
        raise ValueError(f"{options.trace} is empty; a trace is one number per line")
    if options.max_rps is not None and not 0 < options.max_rps < math.inf:
        raise ValueError(f"--max-rps must be a number above 0, not {options.max_rps:g}")
    return from_lines(lines, step_ns, options.max_rps)


def _number(index: int, text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = -1.0
    if not 0 <= number < math.inf:
        raise ValueError(f"number {index} is {text!r}; a trace is one number of 0 or more per line")
    return number


def _profile(text: str) -> Profile:
    profile = parse_profile(text)
    if profile is not None:
        return profile
    try:
        return table_from(yaml.safe_load(_text(text, PROFILE_FORMS)))
    except yaml.YAMLError as error:
        raise ValueError(f"{text} is not YAML: {' '.join(str(error).split())}") from error


def _text(path: str, forms: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise ValueError(f"{path!r} is not there; give {forms}") from error
    except OSError as error:
        raise ValueError(f"{path} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not text: {error}") from error


def _duration_ns(text: str | None, trace_ns: int | None) -> int:
    """As long as the trace, unless ``text`` is shorter."""
    known_ns = [ns for ns in (None if text is None else _some_time(text), trace_ns) if ns is not None]
    duration_ns = min(known_ns, default=DEFAULT_DURATION_NS)
    if duration_ns > LONGEST_NS:
        raise ValueError(f"a run of {format_duration(duration_ns)} is too long; the longest is 31 days")
    return duration_ns


def _some_time(text: str) -> int:
    duration_ns = parse_duration(text)
    if duration_ns == 0:
        raise ValueError(f"{text} is no time at all")
    return duration_ns


def _instant(text: str) -> int:
    return 0 if text == "0" else parse_duration(text)


def _cluster(reading: _Reading, options: Options) -> ClusterSettings:
    problems = _cluster_problems(options)
    reading.problems += problems
    cold_start_ns = reading.take("--cold-start", (0, 0), _cold_start_ns, options.cold_start)
    if problems:
        return ClusterSettings()  # to find what else is wrong, and only that
    return ClusterSettings(
        target=options.target, utilization=options.utilization, max_pods=options.max_pods, min_scale=options.min_scale,
        cold_start_ns=cold_start_ns, container_concurrency=options.container_concurrency,
    )  # fmt: skip


def _cold_start_ns(text: str) -> tuple[int, int]:
    low, dash, high = text.partition("-")
    low_ns, high_ns = _instant(low), _instant(high if dash else low)
    if low_ns > high_ns:
        raise ValueError(f"{text!r} ends below its beginning; write 2s-5s")
    return low_ns, high_ns


def _cluster_problems(options: Options) -> Sequence[str]:
    checks = (
        (0.01 <= options.target < math.inf, f"--target: {options.target:g} is not from 0.01, which is Knative's least"),
        (0 < options.utilization <= 1, f"--utilization: {options.utilization:g} is not a share above 0 and up to 1"),
        (
            0 <= options.container_concurrency <= 1000,
            f"--container-concurrency: {options.container_concurrency} is not from 0 (no limit) to 1000",
        ),
        (1 <= options.max_pods <= MOST_PODS, f"--max-pods: {options.max_pods} is not from 1 to {MOST_PODS:,}"),
        (options.min_scale >= 0, f"--min-scale: {options.min_scale} is less than 0"),
        (
            options.min_scale <= options.max_pods,
            f"--min-scale: {options.min_scale} is more than --max-pods {options.max_pods}",
        ),
        (options.seed >= 0, f"--seed: {options.seed} is less than 0"),
    )
    return [problem for right, problem in checks if not right]


def _change(text: str) -> tuple[str, object]:
    key, equals, value = text.partition("=")
    if not (equals and key):
        raise ValueError(f"{text!r} is not key=value; write batching.max_size=32")
    if key == "batching.policy":
        raise ValueError(f"{text!r}: name the policy with --policy")
    try:
        return key, yaml.safe_load(value)
    except yaml.YAMLError as error:
        raise ValueError(f"{text!r}: the value is not YAML") from error
