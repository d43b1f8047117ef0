"""Log lines: plain text on standard error, one event a line. **Effects.**"""

from __future__ import annotations

import logging
import sys
import time

access_logger = logging.getLogger("mlproxy.access")


class _Formatter(logging.Formatter):
    """``2026-11-24T05:00:00.123Z info ingress-0 message key=value``"""

    converter = staticmethod(time.gmtime)

    def __init__(self, role: str) -> None:
        super().__init__(f"%(asctime)s.%(msecs)03dZ %(level)s {role} %(message)s", "%Y-%m-%dT%H:%M:%S")

    def format(self, record: logging.LogRecord) -> str:
        record.level = record.levelname.lower()
        return super().format(record)


def configure_logging(level: str, role: str) -> None:
    """Send every logger of this process, Uvicorn's too, to standard error in the one format."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Formatter(role))
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(level.upper())
    access_logger.setLevel(logging.INFO)  # asked for by its own key, whatever the level of the rest
    # Uvicorn and httpx say at "info" what is detail here: every start, every stop, every call.
    for chatty in ("uvicorn.error", "httpx", "httpcore", "asyncio"):
        logging.getLogger(chatty).setLevel(max(logging.WARNING, root.level))


def access_line(
    client: tuple[str, int] | None, method: str, path: str, status: int, size_bytes: int, duration_ns: int,
    request_id: str,
) -> None:  # fmt: skip
    """One line about one response."""
    caller = f"{client[0]}:{client[1]}" if client else "-"
    access_logger.info(
        '%s "%s %s" %d %dB %.3fms id=%s', caller, method, path, status, size_bytes, duration_ns / 1e6, request_id
    )
