"""Values that do not come from the file: environment variables and flags, each with the key that it sets. **Pure.**"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

import yaml

from mlproxy.config.keys import Path, keys_of, schema_path
from mlproxy.config.schema import Configuration
from mlproxy.config.suggest import closest

_FIRST: Path = ("endpoints", 0)
#: The short forms, which build one endpoint: `--slo`, `MLPROXY_SLO` and so on.
ENDPOINT_KEYS: Mapping[str, Path] = {
    "backend": (*_FIRST, "backend", "urls"),
    "name": (*_FIRST, "name"),
    "protocol": (*_FIRST, "protocol"),
    "slo": (*_FIRST, "slo", "latency"),
    "policy": (*_FIRST, "batching", "policy"),
    "max_size": (*_FIRST, "batching", "max_size"),
    "max_linger": (*_FIRST, "batching", "max_linger"),
    "max_inflight": (*_FIRST, "batching", "max_inflight"),
}
#: Flags of `mlproxy serve`, by the names of its parameters.
FLAGS: Mapping[str, Path] = {
    **ENDPOINT_KEYS,
    "host": ("server", "host"),
    "port": ("server", "port"),
    "workers": ("server", "workers"),
    "admin_port": ("admin", "port"),
    "log_level": ("logging", "level"),
    "access_log": ("logging", "access"),
}
#: What Kubernetes sets in every pod of a namespace with a Service called mlproxy; not ours.
_SERVICE_LINK = re.compile(r"MLPROXY_(SERVICE_(HOST|PORT(_.*)?)|PORT(_\d+_(TCP|UDP|SCTP)(_.*)?)?)")


@dataclass(frozen=True, slots=True)
class Given:
    """A value from elsewhere than the file."""

    source: str  #: ``--port``, ``PORT``, ``MLPROXY_SERVER_PORT``
    path: Path
    value: Any


@cache
def environment_variables() -> Mapping[str, Path]:
    """Every variable that sets a key. ``MLPROXY_CONFIG``, which names the file, is not among them."""
    keys = [tuple(key.path.split(".")) for key in keys_of(Configuration) if not key.path.startswith("endpoints")]
    long = {f"MLPROXY_{'_'.join(path)}".upper(): path for path in keys}
    short = {f"MLPROXY_{name.upper()}": path for name, path in ENDPOINT_KEYS.items()}
    # The platform's word comes last: it beats the file and MLPROXY_SERVER_PORT.
    return {**long, **short, "MLPROXY_WORKERS": ("server", "workers"), "PORT": ("server", "port")}


def variable_problems(environment: Mapping[str, str]) -> Iterator[str]:
    """Variables that look like ours and are not, and those that are and say nothing."""
    known = [*environment_variables(), "MLPROXY_CONFIG"]
    for name in sorted(name for name in environment if name.startswith("MLPROXY_")):
        if name not in known and not _SERVICE_LINK.fullmatch(name):
            yield f"{name}: no such environment variable{closest(name, known)}"
        elif name in environment_variables() and not environment[name].strip():
            yield f"{name}: is empty; give it a value or unset it"


def from_environment(environment: Mapping[str, str]) -> Iterator[Given]:
    """What the environment sets, the stronger later. An empty PORT is none, as for everybody who reads it."""
    for name, path in environment_variables().items():
        text = environment.get(name, "").strip()
        if text:
            yield Given(name, path, _urls(text) if name == "MLPROXY_BACKEND" else typed(text, path))


def from_flags(flags: Mapping[str, Any]) -> Iterator[Given]:
    """What the command line sets; a flag that was not given is None."""
    for name, value in flags.items():
        if value is not None:
            path = FLAGS[name]
            yield Given(f"--{name.replace('_', '-')}", path, typed(value, path) if isinstance(value, str) else value)


def _urls(text: str) -> list[str]:
    return [url.strip() for url in text.split(",")]


def typed(text: str, path: Path) -> Any:
    """``text`` as YAML would read it, where anything but text alone may stand at ``path``."""
    return text if schema_path(path) in _text_paths() else as_yaml(text)


def as_yaml(text: str) -> Any:
    """What ``text`` is in YAML; text, if it is nothing else."""
    try:
        return yaml.safe_load(text)
    except (yaml.YAMLError, RecursionError):
        return text


@cache
def _text_paths() -> frozenset[str]:
    return frozenset(key.path for key in keys_of(Configuration) if key.kind == "text")


def put(document: dict[Any, Any], given: Given) -> None:
    """Set the value in ``document``, unless what stands above it is no mapping: that is a finding of its own."""
    at: Any = document
    *parents, last = given.path
    for part, following in zip(parents, given.path[1:], strict=True):
        if isinstance(at, dict):
            at = at.setdefault(part, [{}] if isinstance(following, int) else {})
        elif isinstance(at, list) and isinstance(part, int):
            at = at[part]
        else:
            return
    if isinstance(at, dict):
        at[last] = given.value
