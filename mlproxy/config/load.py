"""Where a configuration comes from: a YAML file, the environment, flags, in rising order. **Effects**: reads the file.

Whatever is wrong is found in one go: unreadable YAML, unknown keys (with a suggestion), keys that this version does
not act on yet, bad values, unset ``${VARIABLES}``.
"""

from __future__ import annotations

import re
from collections.abc import Hashable, Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from mlproxy.config.problems import problems_of
from mlproxy.config.schema import Admin, Configuration, Limits, Logging, Section, Server
from mlproxy.config.suggest import closest
from mlproxy.errors import ConfigurationError

_VARIABLE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)(?::-([^}]*))?\}")
_SECTIONS: dict[str, type[Section]] = {"server": Server, "admin": Admin, "limits": Limits, "logging": Logging}

#: `mlproxy serve`'s short forms, which build one endpoint; also as MLPROXY_BACKEND and so on.
ENDPOINT_KEYS: dict[str, tuple[str, ...]] = {
    "name": ("name",),
    "protocol": ("protocol",),
    "slo": ("slo", "latency"),
    "policy": ("batching", "policy"),
    "max_size": ("batching", "max_size"),
    "max_linger": ("batching", "max_linger"),
    "max_inflight": ("batching", "max_inflight"),
}
#: What Kubernetes sets in every pod of a namespace with a Service called mlproxy; not ours.
_SERVICE_LINK = re.compile(r"MLPROXY_(SERVICE_(HOST|PORT(_.*)?)|PORT(_\d+_(TCP|UDP|SCTP)(_.*)?)?)")


def load_configuration(
    path: Path | None, environment: Mapping[str, str], overrides: Mapping[str, object]
) -> Configuration:
    """The configuration of ``path``, environment and flags; `ConfigurationError` names every problem.

    ``overrides`` has dotted keys: ``server.port``, ``logging.access``; and for an endpoint given by flags ``backend``
    (a list of URLs) and the keys of `ENDPOINT_KEYS`.
    """
    problems: list[str] = []
    unset: dict[str, str] = {}
    document = _read(path, environment, unset) if path is not None else {}
    given = {**_from_environment(environment, problems), **overrides}
    _apply(document, given, path is not None, problems)
    try:
        configuration = Configuration.model_validate(document)
    except ValidationError as error:
        # An unset variable is the problem, not that its text is no number.
        problems += [problem for problem in problems_of(error, document) if problem.partition(": ")[0] not in unset]
    problems = [*(f"{path}: {problem}" for path, problem in unset.items()), *problems]
    if problems:
        raise ConfigurationError(problems)
    return configuration


class _Loader(yaml.SafeLoader):
    """SafeLoader that refuses a key that stands twice; YAML forbids it, PyYAML lets the last one win."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        keys = [key.value for key, _ in node.value]
        for key in keys:
            if keys.count(key) > 1:
                raise yaml.constructor.ConstructorError(None, None, f"the key {key!r} stands twice", node.start_mark)
        return super().construct_mapping(node, deep)


def _read(path: Path, environment: Mapping[str, str], unset: dict[str, str]) -> dict[str, Any]:
    try:
        document = yaml.load(path.read_text(encoding="utf-8"), _Loader)
    except OSError as error:
        raise ConfigurationError([f"cannot be read: {error.strerror}"]) from error
    except UnicodeDecodeError as error:
        raise ConfigurationError([f"is not UTF-8: {error}"]) from error
    except yaml.YAMLError as error:
        raise ConfigurationError([f"is not YAML: {' '.join(str(error).split())}"]) from error
    if not isinstance(document, dict):
        raise ConfigurationError(["must be a mapping with the keys server, admin, limits, logging, endpoints"])
    try:
        expanded: dict[str, Any] = _expand(document, "", environment, unset)
    except RecursionError as error:
        raise ConfigurationError(["contains itself: an alias stands below its own anchor"]) from error
    return expanded


def _expand(value: Any, at: str, environment: Mapping[str, str], unset: dict[str, str]) -> Any:
    """Replace ``${NAME}`` and ``${NAME:-default}`` in every string; ``unset`` gets the paths where that failed."""
    if isinstance(value, dict):
        return {key: _expand(item, f"{at}.{key}".lstrip("."), environment, unset) for key, item in value.items()}
    if isinstance(value, list):
        return [_expand(item, f"{at}[{index}]", environment, unset) for index, item in enumerate(value)]
    if not isinstance(value, str) or "${" not in value:
        return value

    def replace(match: re.Match[str]) -> str:
        name, default = match[1], match[2]
        if name not in environment and default is None:
            unset[at] = f"${{{name}}} is not set in the environment; set it or write ${{{name}:-default}}"
            return match[0]
        return environment.get(name) or default or ""

    text = _VARIABLE.sub(replace, value)
    # A value that is nothing but a variable is typed as YAML would type it: `port: ${PORT:-8080}` is a number.
    return _typed(text) if text and _VARIABLE.fullmatch(value) else text


def _typed(text: str) -> Any:
    """What ``text`` is in YAML; text, if it is nothing else."""
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError:
        return text


def _leaves() -> Iterator[tuple[str, str]]:
    for section, model in _SECTIONS.items():
        for name, field in model.model_fields.items():
            key = field.alias or name
            yield f"MLPROXY_{section}_{key}".upper(), f"{section}.{key}"


def environment_variables() -> dict[str, str]:
    """Every variable that is read, with the key it sets."""
    short = {f"MLPROXY_{key.upper()}": key for key in ("backend", *ENDPOINT_KEYS)}
    return {**dict(_leaves()), **short, "MLPROXY_WORKERS": "server.workers", "MLPROXY_CONFIG": "config"}


def _from_environment(environment: Mapping[str, str], problems: list[str]) -> dict[str, object]:
    known = environment_variables()
    given: dict[str, object] = {}
    for name in sorted(environment):
        if not name.startswith("MLPROXY_") or _SERVICE_LINK.fullmatch(name):
            continue
        if name not in known:
            problems.append(f"{name}: no such environment variable{closest(name, known)}")
        elif known[name] != "config":
            value = environment[name]
            given[known[name]] = value.split(",") if name == "MLPROXY_BACKEND" else _typed(value)
    if environment.get("PORT"):  # the platform's word; beats the file and MLPROXY_SERVER_PORT
        given["server.port"] = _typed(environment["PORT"])
    return given


def _apply(document: dict[str, Any], given: Mapping[str, object], has_file: bool, problems: list[str]) -> None:
    endpoint: dict[str, Any] = {}
    for key, value in given.items():
        if key == "backend":
            endpoint.setdefault("backend", {})["urls"] = value
        elif key in ENDPOINT_KEYS:
            _put(endpoint, ENDPOINT_KEYS[key], value)
        else:
            _put(document, key.split("."), value)
    if endpoint and has_file:
        problems.append(
            f"{', '.join(sorted(k for k in given if '.' not in k))}: not together with a configuration file"
        )
    elif endpoint:
        document["endpoints"] = [{"name": "model", **endpoint}]


def _put(document: dict[str, Any], keys: Any, value: object) -> None:
    *parents, last = keys
    for key in parents:
        child = document.setdefault(key, {})
        document = child if isinstance(child, dict) else {}
    document[last] = value
