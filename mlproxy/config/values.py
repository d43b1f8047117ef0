"""The kinds of values in a configuration: how each is written, checked and counted. **Pure.**"""

from __future__ import annotations

import re
from typing import Annotated
from urllib.parse import urlsplit

from pydantic import AfterValidator, BeforeValidator, Field, PlainSerializer

from mlproxy.units import format_duration, format_size, parse_duration, parse_size

DurationNs = Annotated[
    int, BeforeValidator(parse_duration), Field(ge=0), PlainSerializer(format_duration, when_used="unless-none")
]
PositiveDurationNs = Annotated[DurationNs, Field(gt=0)]
SizeBytes = Annotated[int, BeforeValidator(parse_size), Field(gt=0), PlainSerializer(format_size)]
Port = Annotated[int, Field(strict=True, ge=0, le=65535)]


def _check_url(url: str) -> str:
    try:
        parts = urlsplit(url)
        usable = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:  # brackets without an address in them, a port that is none
        usable = False
    if not usable or parts.netloc.endswith(":") or re.search(r"[\s\x00-\x1f\x7f]", url):
        raise ValueError(f"{url!r} is not a URL like http://host:port")
    if parts.query or parts.fragment or parts.username:
        raise ValueError(f"{url!r} must not have a query, a fragment or credentials")
    return url


HttpUrl = Annotated[str, AfterValidator(_check_url)]


def _check_path(path: str) -> str:
    if not path.startswith("/") or re.search(r"[\s?#%]", path):
        raise ValueError(f"{path!r} must be an absolute path without query, fragment, space or percent sign")
    return path


HttpPath = Annotated[str, AfterValidator(_check_path)]


def _check_name(name: str) -> str:
    if re.fullmatch(r"[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?", name) is None:
        raise ValueError(f"{name!r} stands in URLs: use letters, digits, '-', '_' and '.'")
    return name


UrlName = Annotated[str, AfterValidator(_check_name)]
