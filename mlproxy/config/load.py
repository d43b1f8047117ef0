"""Where a configuration comes from: a YAML file, the environment, flags, in rising order. **Effects**: reads files.

Whatever is wrong is found in one go, whatever its kind, and said with the place where it can be mended: the file and
the path in it, the environment variable or the flag.
"""

from __future__ import annotations

import json
import os
import ssl
from collections.abc import Iterator, Mapping
from pathlib import Path as FilePath
from typing import Any

from pydantic import ValidationError

from mlproxy.config.conflicts import CUSTOM_NEEDS, Conflict
from mlproxy.config.document import Unreadable, expand, read
from mlproxy.config.keys import Path, format_path
from mlproxy.config.mend import mended, overlap, placeholder
from mlproxy.config.problems import Finding, conflicts_of, findings_of
from mlproxy.config.schema import Configuration
from mlproxy.config.sources import ENDPOINT_KEYS, Given, from_environment, from_flags, put, variable_problems
from mlproxy.errors import ConfigurationError


def load_configuration(
    path: FilePath | None, environment: Mapping[str, str], flags: Mapping[str, Any]
) -> Configuration:
    """The configuration of ``path``, environment and flags; `ConfigurationError` names every problem.

    ``flags`` has the parameters of `mlproxy serve` (`FLAGS`), None where a flag is not given.
    """
    given = {one.path: one for one in (*from_environment(environment), *from_flags(flags))}
    problems = list(variable_problems(environment))
    unset: dict[Path, str] = {}
    document = _document(path, environment, unset, problems)
    _put_all(document, given, path, problems)
    configuration, findings, conflicts = _validated(document, unset)
    places = _Places(path, document, given)
    problems += [places.finding(finding) for finding in findings]
    problems += [places.conflict(conflict) for conflict in conflicts]
    if problems:
        raise ConfigurationError(list(dict.fromkeys(problems)))
    return configuration


def with_endpoint(running: Configuration, index: int, block: Any) -> Configuration:
    """``running`` with another block for one of its endpoints; `ConfigurationError` names every problem of it."""
    document = json.loads(running.to_json())
    document["endpoints"][index] = block
    configuration, findings, conflicts = _validated(document, {})
    problems = [(finding.path, finding.text) for finding in findings]
    problems += [(conflict.at, conflict.text) for conflict in conflicts]
    if problems:
        own: Path = ("endpoints", index)
        places = [format_path(path[2:] if path[:2] == own else path) for path, _ in problems]
        lines = [f"{place}: {text}" if place else text for place, (_, text) in zip(places, problems, strict=True)]
        raise ConfigurationError(list(dict.fromkeys(lines)))
    return configuration


def _document(
    path: FilePath | None, environment: Mapping[str, str], unset: dict[Path, str], problems: list[str]
) -> dict[Any, Any]:
    """What the file says. If it cannot be read, a stand-in, so that variables and flags are checked all the same."""
    if path is None:
        return {}
    try:
        expanded: dict[Any, Any] = expand(read(path), environment, unset)
    except Unreadable as error:
        problems.append(f"{path}: {error}")
    except RecursionError:
        problems.append(f"{path}: contains itself: an alias stands below its own anchor")
    else:
        return expanded
    return {"endpoints": placeholder(("endpoints",))}


def _put_all(document: dict[Any, Any], given: dict[Path, Given], path: FilePath | None, problems: list[str]) -> None:
    """Put what is given over the file, or make an endpoint of it."""
    of_endpoint = [one for one in given.values() if one.path[0] == "endpoints"]
    if path is not None and of_endpoint:
        sources = ", ".join(one.source for one in of_endpoint)
        problems.append(f"{sources}: not together with the configuration file {path}, which describes the endpoints")
        for one in of_endpoint:
            del given[one.path]
    elif path is None and ENDPOINT_KEYS["backend"] in given:
        document["endpoints"] = [{"name": "model"}]
    elif path is None:
        problems.append("mlproxy: give -c FILE, or --backend URL for a single endpoint")
        document["endpoints"] = placeholder(("endpoints",))
    protocol = given.get(ENDPOINT_KEYS["protocol"])
    if protocol is not None and protocol.value == "custom":
        needed = ", ".join(map(format_path, CUSTOM_NEEDS))
        problems.append(
            f"{protocol.source}: protocol custom needs a configuration file: it has no defaults for {needed}"
        )
        del given[protocol.path]
    for one in given.values():
        put(document, one)


def _validated(
    document: dict[Any, Any], unset: Mapping[Path, str]
) -> tuple[Configuration, list[Finding], list[Conflict]]:
    """The configuration, and all that is wrong with it: broken values are mended until what is left is right."""
    findings = [Finding(path, text) for path, text in unset.items()]
    conflicts: list[Conflict] = []
    broken = set(unset)
    document = mended(document, broken)
    while True:
        try:
            configuration = Configuration.model_validate(document)
            break
        except ValidationError as error:
            found, clashes = findings_of(error, document), conflicts_of(error)
            newly = {finding.path for finding in found} | {path for clash in clashes for path in clash.paths}
            if newly <= broken:  # a defect of `mended`: better a traceback than a loop without end
                raise
        findings += found
        # A value that stands in for a broken one may clash, which is nobody's mistake.
        conflicts += [clash for clash in clashes if not overlap(clash.paths, broken)]
        broken |= newly
        document = mended(document, broken)
    return configuration, findings + list(_unusable_files(configuration, broken)), conflicts


def _unusable_files(configuration: Configuration, broken: set[Path]) -> Iterator[Finding]:
    """Files and folders that the batcher will need: found out here, not by its dying."""
    folder = configuration.server.state_dir
    if folder is not None and ("server", "state_dir") not in broken:
        if not FilePath(folder).is_dir():
            yield Finding(("server", "state_dir"), f"{folder} is not a folder; make it")
        elif not os.access(folder, os.W_OK | os.X_OK):
            yield Finding(("server", "state_dir"), f"{folder} cannot be written to")
    for index, endpoint in enumerate(configuration.endpoints):
        path: Path = ("endpoints", index, "backend", "tls", "ca_file")
        file = endpoint.backend.tls.ca_file
        if file is not None and path not in broken:
            try:
                ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cafile=file)
            except ssl.SSLError:
                yield Finding(path, f"{file} holds no certificates in PEM form")
            except OSError as error:
                yield Finding(path, f"{file} cannot be read: {error.strerror}")


class _Places:
    """Says where what is wrong can be mended."""

    def __init__(self, path: FilePath | None, document: dict[Any, Any], given: Mapping[Path, Given]) -> None:
        self._file = "mlproxy" if path is None else str(path)
        self._document = document
        self._given = given

    def finding(self, finding: Finding) -> str:
        """One line about one value."""
        source = self._source(finding.path)
        return f"{source}: {finding.text}" if source else self._in_file(finding.path, finding.text)

    def conflict(self, conflict: Conflict) -> str:
        """One line about several values: all places that have a share in it, defaults having none."""
        sources = [self._source(path) or self._file for path in conflict.paths if self._is_written(path)]
        if set(sources) <= {self._file}:
            return self._in_file(conflict.at, conflict.text)
        return f"{', '.join(dict.fromkeys(sources))}: {conflict.text}"

    def _in_file(self, path: Path, text: str) -> str:
        return f"{self._file}: {format_path(path)}: {text}" if path else f"{self._file}: {text}"

    def _source(self, path: Path) -> str | None:
        above = (path[:length] for length in range(len(path), 0, -1))
        return next((self._given[one].source for one in above if one in self._given), None)

    def _is_written(self, path: Path) -> bool:
        at: Any = self._document
        for part in path:
            if not (part in at if isinstance(at, dict) else isinstance(at, list)):
                return False
            at = at[part]
        return True
