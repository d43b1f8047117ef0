"""The kinds of values in a configuration: how each is written, checked and counted. **Pure.**"""

from __future__ import annotations

import ipaddress
import json
import re
from typing import Annotated, Any
from urllib.parse import urlsplit

from pydantic import AfterValidator, BeforeValidator, Field, PlainSerializer

from mlproxy.units import format_duration, format_size, parse_duration, parse_size

#: What no limit is called where a number is needed.
NO_LIMIT = 1_000_000

DurationNs = Annotated[
    int, BeforeValidator(parse_duration), Field(ge=0), PlainSerializer(format_duration, when_used="unless-none")
]
PositiveDurationNs = Annotated[DurationNs, Field(gt=0)]
SizeBytes = Annotated[int, BeforeValidator(parse_size), Field(gt=0), PlainSerializer(format_size)]
Port = Annotated[int, Field(strict=True, ge=0, le=65535)]


_HOST_LABEL = r"[A-Za-z0-9_]([A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?"
_HOST_NAME = re.compile(rf"(?=.{{1,253}}\Z){_HOST_LABEL}(\.{_HOST_LABEL})*\.?")


def _check_host(host: str) -> str:
    if not _is_host(host):
        raise ValueError(f"{host!r} is neither an IP address nor a host name; 0.0.0.0 and :: mean every address")
    return host


def _is_host(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return _HOST_NAME.fullmatch(text) is not None
    return True


Host = Annotated[str, AfterValidator(_check_host)]


def _check_url(url: str) -> str:
    try:
        parts = urlsplit(url)
        usable = parts.scheme in ("http", "https") and _is_host(parts.hostname or "") and parts.port != 0
    except ValueError:  # brackets without an address in them, a port that is none
        usable = False
    if not usable or parts.netloc.endswith(":") or re.search(r"[^\x21-\x7e]", url):
        raise ValueError(f"{_without_password(url)!r} is not a URL like {_likely_url(url)}")
    if re.search(r"[?#@]", url):
        raise ValueError(f"{_without_password(url)!r} must not have a query, a fragment or credentials")
    return url


def _without_password(url: str) -> str:
    """Problems are written to logs."""
    return re.sub(r"^.*@", "…@", url, flags=re.DOTALL)


def _likely_url(text: str) -> str:
    """What was probably meant: most often the scheme is left out."""
    return f"http://{text}" if re.fullmatch(r"[\w.-]+(:\d{1,5})?(/[\w./-]*)?", text, re.ASCII) else "http://host:port"


HttpUrl = Annotated[str, AfterValidator(_check_url)]


def _check_path(path: str) -> str:
    if not path.startswith("/") or re.search(r"[^\x21-\x7e]|[?#%]", path):
        raise ValueError(f"{path!r} must be an absolute path, such as /score, of ASCII and without spaces, ?, # and %")
    return path


HttpPath = Annotated[str, AfterValidator(_check_path)]


def _check_name(name: str) -> str:
    if re.fullmatch(r"[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?", name) is None:
        raise ValueError(f"{name!r} stands in URLs: use letters, digits, '-', '_' and '.', such as iris-v2")
    return name


UrlName = Annotated[str, AfterValidator(_check_name)]


#: Each token is a pass over the body.
_MOST_TOKENS = 8


def _check_pointer(pointer: str) -> str:
    if re.fullmatch(r"(/([^~/]|~[01])*)*", pointer) is None:
        raise ValueError(f"{pointer!r} is not a JSON pointer (RFC 6901) such as /data/rows or /results/0/scores")
    if pointer.count("/") > _MOST_TOKENS:
        raise ValueError(f"{pointer!r} has more than {_MOST_TOKENS} parts")
    return pointer


JsonPointer = Annotated[str, AfterValidator(_check_pointer)]


def _check_json(value: dict[str, Any]) -> dict[str, Any]:
    try:
        json.dumps(value, allow_nan=False)
    except (TypeError, ValueError):
        raise ValueError("must be what JSON can say: text, numbers, true, false, null, lists and mappings") from None
    return value


JsonObject = Annotated[dict[str, Any], AfterValidator(_check_json)]
