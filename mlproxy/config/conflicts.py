"""Values that are right by themselves and wrong together, and some that are only unwise. **Pure.**

A `Configuration` without conflicts cannot be made, so nothing that gets one has to look again. What names several
values says so by their paths: whoever reports a conflict can tell where each of them came from.
"""

from __future__ import annotations

from collections.abc import Container, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mlproxy.config.keys import Path, either, format_path
from mlproxy.config.values import NO_LIMIT
from mlproxy.pointers import tokens_of
from mlproxy.units import format_duration, format_size

if TYPE_CHECKING:
    from mlproxy.config.endpoint import Endpoint
    from mlproxy.config.schema import Configuration


@dataclass(frozen=True, slots=True)
class Conflict:
    """Two or more values that do not go together."""

    at: Path  #: the section that they have in common
    paths: tuple[Path, ...]  #: theirs
    text: str

    def __str__(self) -> str:
        return f"{format_path(self.at)}: {self.text}" if self.at else self.text


class Conflicting(ValueError):
    """A configuration has these conflicts."""

    def __init__(self, conflicts: list[Conflict]) -> None:
        super().__init__("; ".join(conflict.text for conflict in conflicts))
        self.conflicts = conflicts


def conflicts(configuration: Configuration) -> Iterator[Conflict]:
    """Every conflict of ``configuration``."""
    yield from _ports(configuration)
    yield from _queue_shares(configuration)
    for what in ("name", "predict_path"):
        yield from _shared(configuration, what)
    for index, endpoint in enumerate(configuration.endpoints):
        yield from _endpoint_conflicts(("endpoints", index), endpoint)


def advice(configuration: Configuration) -> Iterator[Conflict]:
    """What works, but not as somebody who wrote it may think."""
    limit = configuration.limits.queue_instances
    for index, endpoint in enumerate(configuration.endpoints):
        at: Path = ("endpoints", index)
        batching, backend = endpoint.batching, endpoint.backend
        if batching.policy != "none" and batching.max_size > limit:
            text = f"batching.max_size {batching.max_size} is never reached: limits.queue_instances is {limit}"
            yield Conflict(at, ((*at, "batching", "max_size"), ("limits", "queue_instances")), text)
        connections = backend.max_connections * len(backend.urls)
        if connections < endpoint.max_inflight < NO_LIMIT:
            yield Conflict(
                at, ((*at, "batching", "max_inflight"), (*at, "backend", "max_connections")),
                f"{endpoint.max_inflight} calls in flight, but {connections} connections: the other calls would wait "
                "for one, where they no longer grow; raise backend.max_connections",
            )  # fmt: skip


def _ports(configuration: Configuration) -> Iterator[Conflict]:
    if configuration.server.port == configuration.admin.port != 0:
        text = f"server.port and admin.port are both {configuration.server.port}"
        yield Conflict((), (("server", "port"), ("admin", "port")), text)


def _queue_shares(configuration: Configuration) -> Iterator[Conflict]:
    """A worker keeps bodies up to its share of the queue: a body beyond that would be refused with 503 for ever."""
    server, limits = configuration.server, configuration.limits
    workers = 1 if server.workers == "auto" else server.workers
    if configuration.most_workers < workers:
        each = f" for each of {workers} workers" if workers > 1 else ""
        text = (
            f"limits.queue_bytes {format_size(limits.queue_bytes)} is less than limits.body "
            f"{format_size(limits.body_bytes)}{each}, so a body of that size could never wait; "
            f"at least {format_size(limits.body_bytes * workers)} would do"
        )
        yield Conflict((), (("limits", "queue_bytes"), ("limits", "body"), ("server", "workers")), text)


def _shared(configuration: Configuration, what: str) -> Iterator[Conflict]:
    """Endpoints that have the same ``what``."""
    positions: dict[str, list[int]] = {}
    for index, endpoint in enumerate(configuration.endpoints):
        positions.setdefault(getattr(endpoint, what), []).append(index)
    for value, indexes in positions.items():
        if value and len(indexes) > 1 and not (what == "predict_path" and _same_names(configuration, indexes)):
            key = {"name": "name", "predict_path": "route"}[what]
            listed = " and ".join(f"endpoints[{index}]" for index in indexes[:2])
            more = f" (and {len(indexes) - 2} more)" if len(indexes) > 2 else ""
            paths = tuple(("endpoints", index, _origin(configuration, index, key)) for index in indexes)
            text = f"{listed}{more} have the same {key} {value}"
            if key == "route":
                which = "one of them a route of its" if len(indexes) == 2 else "all but one of them a route of their"
                text += f"; give {which} own, such as /{configuration.endpoints[indexes[1]].name}{value}"
            yield Conflict((), paths, text)


def _origin(configuration: Configuration, index: int, key: str) -> str:
    """What of an endpoint says its name or route: without a route of its own it has its protocol's."""
    return "protocol" if getattr(configuration.endpoints[index], key) is None else key


def _same_names(configuration: Configuration, indexes: list[int]) -> bool:
    """Endpoints of one name have one route as well, which is not a finding of its own."""
    return len({configuration.endpoints[index].name for index in indexes}) == 1


def _endpoint_conflicts(at: Path, endpoint: Endpoint) -> Iterator[Conflict]:
    batching, backend = endpoint.batching, endpoint.backend
    linger_ns = batching.max_linger_ns
    yield from _custom(at, endpoint)
    yield from _idle_scaling(at, endpoint)
    yield from _idle_keys(at, endpoint)
    if batching.policy != "none" and linger_ns is not None and linger_ns >= endpoint.slo.latency_ns:
        text = (
            f"batching.max_linger {format_duration(linger_ns)} leaves nothing of slo.latency "
            f"{format_duration(endpoint.slo.latency_ns)} for the backend"
        )
        yield Conflict(at, ((*at, "batching", "max_linger"), (*at, "slo", "latency")), text)
    if backend.tls.ca_file is not None and not backend.tls.verify:
        tls = (*at, "backend", "tls")
        yield Conflict(tls, ((*tls, "ca_file"), (*tls, "verify")), "ca_file would do nothing with verify: false")


#: What protocol custom has no defaults for, within an endpoint.
CUSTOM_NEEDS: tuple[Path, ...] = (("route",), ("backend", "path"), ("request", "items"), ("response", "items"))


def _custom(at: Path, endpoint: Endpoint) -> Iterator[Conflict]:
    """What only protocol custom has, and what it cannot do without."""
    request, response, protocol = endpoint.request, endpoint.response, (*at, "protocol")
    if endpoint.protocol != "custom":
        given = [("request", key) for key in sorted(request.model_fields_set)]
        given += [("response", key) for key in sorted(response.model_fields_set)]
        for section, key in given:
            text = f"{section}.{key} would do nothing with protocol {endpoint.protocol}; it is for protocol custom"
            yield Conflict(at, ((*at, section, key), protocol), text)
        return
    values = (endpoint.route, endpoint.backend.path, request.items, response.items)
    missing = [path for path, value in zip(CUSTOM_NEEDS, values, strict=True) if value is None]
    if missing:
        text = f"protocol custom has no defaults of its own; give it {', '.join(map(format_path, missing))}"
        yield Conflict(at, (protocol, *((*at, *path) for path in missing)), text)
    if response.unwrap and not request.wrap:
        text = "response.unwrap needs request.wrap: an answer with several items has nothing to stand in their place"
        yield Conflict(at, ((*at, "response", "unwrap"), (*at, "request", "wrap")), text)
    if request.constants and request.items is not None and not _leaves_room(request.items, request.constants):
        text = "request.constants are members beside request.items, which must be a member of another name"
        yield Conflict(at, ((*at, "request", "constants"), (*at, "request", "items")), text)


def _leaves_room(items: str, constants: Container[str]) -> bool:
    """Whether a JSON pointer begins with a member of another name."""
    tokens = tokens_of(items)
    return bool(tokens) and tokens[0] not in constants


#: Keys of `backend.scaling` that act with one kind only.
_SCALING_KEYS = {"fixed": {"slots"}, "knative": {"target", "utilization", "container_concurrency", "max_scale"}}


def _idle_scaling(at: Path, endpoint: Endpoint) -> Iterator[Conflict]:
    scaling = endpoint.backend.scaling
    section = (*at, "backend", "scaling")
    for name in sorted(scaling.model_fields_set - _SCALING_KEYS[scaling.kind] - {"kind"}):
        other = "knative" if scaling.kind == "fixed" else "fixed"
        text = f"{name} would do nothing with kind {scaling.kind}; leave it out or choose kind {other}"
        yield Conflict(section, ((*section, name), (*section, "kind")), text)


#: Keys of `batching` that act with one of the policies at least, and with which.
POLICY_KEYS = {
    "max_size": ("slo", "aimd", "static"), "max_linger": ("slo", "static"), "bill": ("slo",), "aimd": ("aimd",),
    "verify": ("slo", "aimd", "static"), "verify_tolerance": ("slo", "aimd", "static"),
    "coalesce": ("slo", "aimd", "static"),
}  # fmt: skip
#: Those of them that ask for nothing when they are off.
_SWITCHES = ("verify", "coalesce")


def _idle_keys(at: Path, endpoint: Endpoint) -> Iterator[Conflict]:
    """Keys of batching that the policy does not look at: somebody believes that they do something."""
    batching = endpoint.batching
    off = {key for key in _SWITCHES if not getattr(batching, key)}
    given = {name.removesuffix("_ns") for name in batching.model_fields_set} - off
    if "verify_tolerance" in given and "verify" in off and batching.policy in POLICY_KEYS["verify_tolerance"]:
        paths = tuple((*at, "batching", key) for key in ("verify_tolerance", "verify"))
        yield Conflict((*at, "batching"), paths, "verify_tolerance would do nothing without verify, which is 0")
    idle = [key for key, policies in POLICY_KEYS.items() if key in given and batching.policy not in policies]
    if not idle or (idle == ["max_size"] and batching.max_size == type(batching).model_fields["max_size"].default):
        return
    section = (*at, "batching")
    choices = [policy for policy in ("slo", "aimd", "static") if all(policy in POLICY_KEYS[key] for key in idle)]
    instead = f"leave it out or choose policy {either(choices)}" if choices else "leave them out"
    text = f"{' and '.join(idle)} would do nothing with policy {batching.policy}; {instead}"
    yield Conflict(section, tuple((*section, key) for key in (*idle, "policy")), text)
