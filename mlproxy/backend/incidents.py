"""What an operator is told about one backend URL: each change of its health, and of the rest not too much. **Pure.**

A backend that fails every call would fill the log with the same line a thousand times a second; so of one sort of
trouble there is one line in a while, which says how many it stands for.
"""

from __future__ import annotations

from mlproxy.units import NS_PER_S

QUIET_NS = 10 * NS_PER_S


class Gate:
    """Lets one line through in `QUIET_NS`, and counts the others."""

    __slots__ = ("_left_out", "_opens_ns")

    def __init__(self) -> None:
        self._opens_ns = 0
        self._left_out = 0

    def pass_line(self, line: str, now_ns: int) -> str | None:
        """The line, with what it stands for besides; None: it is one of those left out."""
        if now_ns < self._opens_ns:
            self._left_out += 1
            return None
        more = f" ({self._left_out} more since the last such line)" if self._left_out else ""
        self._opens_ns, self._left_out = now_ns + QUIET_NS, 0
        return line + more


class Incidents:
    """Turns what happens to a URL's calls into lines for the log, or None where there is nothing new to say.

    A URL that goes up and down all the time is told once per `QUIET_NS` too: it is healthy *again* only for who has
    read that it was not.
    """

    def __init__(self, endpoint: str, url: str) -> None:
        self._where = f"endpoint={endpoint} url={url}"
        self._connect_gate, self._call_gate = Gate(), Gate()
        self._unhealthy_since_ns: int | None = None
        self._told_unhealthy = False

    def could_not_connect(self, reason: str, now_ns: int) -> str | None:
        """The URL is unhealthy, from now on or still."""
        if self._unhealthy_since_ns is None:
            self._unhealthy_since_ns = now_ns
        still = "still " if self._told_unhealthy else ""
        line = self._connect_gate.pass_line(f"backend {still}unhealthy {self._where} reason={reason!r}", now_ns)
        self._told_unhealthy |= line is not None
        return line

    def connected(self, now_ns: int) -> str | None:
        """A URL that was unhealthy took a call."""
        since_ns, told = self._unhealthy_since_ns, self._told_unhealthy
        self._unhealthy_since_ns, self._told_unhealthy = None, False
        if since_ns is None or not told:
            return None
        return f"backend healthy again {self._where} after={(now_ns - since_ns) / NS_PER_S:.1f}s"

    def call_failed(self, reason: str, now_ns: int) -> str | None:
        """A call got through, and no usable reply came back."""
        return self._call_gate.pass_line(f"backend call failed {self._where} reason={reason!r}", now_ns)
