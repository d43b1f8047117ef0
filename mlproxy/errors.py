"""Every way a request can fail, one class per outcome. **Pure.**

An error is a value with an HTTP status on it. It is raised where the fact is known and translated to bytes once, at
the boundary (``workers/ingress``). Between the batcher and an ingress worker it travels as its ``slug``
(`error_from_slug` is the way back), so both ends name the same class.
"""

from __future__ import annotations

from typing import ClassVar


class ProxyError(Exception):
    """One caller's outcome when it is not an answer.

    ``detail`` is a sentence for the caller; ``retry_after_s`` becomes the ``Retry-After`` header.
    """

    status: ClassVar[int] = 500
    slug: ClassVar[str] = "internal-error"
    title: ClassVar[str] = "Internal error"

    def __init__(self, detail: str, *, retry_after_s: int | None = None) -> None:
        super().__init__(detail)
        self.detail = detail
        self.retry_after_s = retry_after_s


class BadRequest(ProxyError):
    """The request cannot be understood: malformed JSON, wrong shape, no instances."""

    status, slug, title = 400, "bad-request", "Bad request"


class EndpointNotFound(ProxyError):
    """No endpoint has this path."""

    status, slug, title = 404, "endpoint-not-found", "No such endpoint"


class MethodNotAllowed(ProxyError):
    """The path is served, but not with this method; ``allow`` names those it takes."""

    status, slug, title = 405, "method-not-allowed", "Method not allowed"

    def __init__(self, detail: str, *, allow: str = "POST", retry_after_s: int | None = None) -> None:
        super().__init__(detail, retry_after_s=retry_after_s)
        self.allow = allow


class RequestTimeout(ProxyError):
    """The request did not come in within ``limits.header_timeout`` and ``limits.body_timeout``."""

    status, slug, title = 408, "request-timeout", "Request timeout"


class BodyTooLarge(ProxyError):
    """The body exceeds ``limits.body``."""

    status, slug, title = 413, "body-too-large", "Body too large"


class UnsupportedMediaType(ProxyError):
    """A content type or content encoding that the endpoint's protocol does not speak."""

    status, slug, title = 415, "unsupported-media-type", "Unsupported media type"


class HeaderTooLarge(ProxyError):
    """The request's head exceeds ``limits.header``."""

    status, slug, title = 431, "header-too-large", "Request header too large"


class InternalError(ProxyError):
    """A defect of the proxy itself; the log has the traceback."""


class Overloaded(ProxyError):
    """A queue bound is reached: shed at the door, where it is cheapest."""

    status, slug, title = 503, "overloaded", "Overloaded"


class Draining(ProxyError):
    """The proxy is shutting down and takes nothing new."""

    status, slug, title = 503, "draining", "Shutting down"


class DeadlineExceeded(ProxyError):
    """The caller's time budget ran out before its batch could leave."""

    status, slug, title = 504, "deadline-exceeded", "Deadline exceeded"


class BackendUnavailable(ProxyError):
    """The backend could not be reached, or broke the connection, after retries."""

    status, slug, title = 502, "backend-unavailable", "Backend unavailable"


class BackendContract(ProxyError):
    """The backend's reply is not one item per instance, or cannot be decoded."""

    status, slug, title = 502, "backend-contract", "Backend broke the contract"


class BackendTimeout(ProxyError):
    """The backend did not answer within ``backend.timeout``."""

    status, slug, title = 504, "backend-timeout", "Backend timeout"


class SuspectRequest(ProxyError):
    """In flight when the batcher died twice; not sent a third time."""

    status, slug, title = 502, "suspect-request", "Request may have crashed the batcher"


_BY_SLUG: dict[str, type[ProxyError]] = {
    error.slug: error
    for error in (
        BadRequest, EndpointNotFound, MethodNotAllowed, RequestTimeout, BodyTooLarge, UnsupportedMediaType,
        HeaderTooLarge, InternalError, Overloaded, Draining, DeadlineExceeded, BackendUnavailable,
        BackendContract, BackendTimeout, SuspectRequest,
    )
}  # fmt: skip


def error_from_slug(slug: str, detail: str, retry_after_s: int | None = None) -> ProxyError:
    """The error that a peer process named; an unknown slug is an `InternalError`."""
    return _BY_SLUG.get(slug, InternalError)(detail, retry_after_s=retry_after_s)


class ConfigurationError(Exception):
    """Every problem of a configuration at once, each with its path and a suggestion."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems
