"""The picture of docs/controller.md: what the controller does with a burst, played by the engine itself. **Pure.**"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass

from mlproxy.engine import Answered, Arrived, Batch, Dispatch, Engine, Event, Pods, QueueBounds, Request
from mlproxy.engine.autoscaler import AutoscalerSpec
from mlproxy.engine.policies import SloBatching
from mlproxy.engine.slo.pods import ShadowPods
from mlproxy.units import NS_PER_MS

SLO_NS = 1000 * NS_PER_MS
UNTIL_MS = 6000
#: Requests per second, from so many milliseconds on.
TRAFFIC = ((0, 3), (1500, 90), (4500, 3))
COLOURS = {"paced": "#4c78a8", "deadline": "#e45756", "full": "#54a24b", "late": "#888888"}
WIDTH, LEFT, PANEL_HEIGHT, CALL_HEIGHT = 960, 34, 190, 44


@dataclass(frozen=True)
class Call:
    """One bar of the picture, with the instants at which its members came."""

    batch: Batch
    ends_ns: int

    @property
    def arrivals_ns(self) -> list[int]:
        return [member.arrived_ns for member in self.batch.members]


def service_ns(instances: int) -> int:
    """The backend: 120 ms and 2.6 ms per instance."""
    return (1200 + 26 * instances) * NS_PER_MS // 10


def play(*, paced: bool) -> list[Call]:
    """The calls that the engine makes with `TRAFFIC`."""
    engine, calls = _engine(paced), []
    arrivals_ns, running, now_ns = _arrivals_ns(), None, 0
    events: list[Event] = [Pods(1)]
    while now_ns < UNTIL_MS * NS_PER_MS:
        for command in engine.handle(events, now_ns):
            if isinstance(command, Dispatch):
                running = Call(command.batch, now_ns + service_ns(command.batch.instances))
                calls.append(running)
        now_ns = min(
            arrivals_ns[0], running.ends_ns if running else arrivals_ns[0], engine.next_wakeup_ns() or arrivals_ns[0]
        )
        events = []
        if running is not None and running.ends_ns == now_ns:
            events.append(Answered(running.batch, running.batch.instances))
            running = None
        if arrivals_ns[0] == now_ns:
            events.append(Arrived([Request(len(arrivals_ns), b"", 1, 1, arrivals_ns.pop(0))]))
    return calls


def _engine(paced: bool) -> Engine:
    policy = SloBatching(SLO_NS, 0.01, 128, ShadowPods(AutoscalerSpec(), 1), paced=paced)
    for call in range(2000):  # it knows the backend
        size = 2 ** (call % 8)
        policy.controller.service.learn(size, service_ns(size), 0.3, 0)
    policy.controller.service.size_cap.seen(128)
    return Engine(policy, QueueBounds(1000, 10**6), slo_ns=SLO_NS, retry_attempts=0)


def _arrivals_ns() -> list[int]:
    rng, now_ms, arrivals_ns = random.Random(4), 0.0, []
    while now_ms < UNTIL_MS:
        rate = next(rate for start_ms, rate in reversed(TRAFFIC) if now_ms >= start_ms)
        now_ms += rng.expovariate(rate / 1000)
        arrivals_ns.append(int(now_ms * NS_PER_MS))
    return arrivals_ns


def picture() -> str:
    """The SVG."""
    rates = ", then ".join(f"{rate}/s" for _, rate in TRAFFIC)
    parts = [
        *_panel(0, f"bill: pods. Requests ({rates}) above, calls to one pod with their sizes below", play(paced=True)),
        *_panel(PANEL_HEIGHT, "bill: busy. The same requests, each batch as late as it may", play(paced=False)),
    ]
    height = 2 * PANEL_HEIGHT + 24
    seconds = range(0, UNTIL_MS + 1, 1000)
    parts += [_text(_x(ms * NS_PER_MS), height - 8, f"{ms / 1000:g} s", "middle") for ms in seconds]
    font = 'font-family="sans-serif" font-size="13"'
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" {font}>'
    return "\n".join([head, f'<rect width="{WIDTH}" height="{height}" fill="#ffffff"/>', *parts, "</svg>\n"])


def _panel(top: int, title: str, calls: list[Call]) -> Iterator[str]:
    yield _text(LEFT, top + 22, title)
    for call in calls:
        yield _lines(top, call)
        yield _bar(top, call)


def _x(at_ns: int) -> float:
    return LEFT + at_ns / NS_PER_MS * (WIDTH - 2 * LEFT) / UNTIL_MS


def _lines(top: int, call: Call) -> str:
    """From each member's arrival to the call in which it leaves."""
    end = f"{_x(call.batch.dispatched_ns):.1f} {top + PANEL_HEIGHT - CALL_HEIGHT - 12}"
    path = "".join(f"M{_x(at_ns):.1f} {top + 34}v26L{end}" for at_ns in call.arrivals_ns)
    return f'<path d="{path}" stroke="#000000" stroke-opacity=".3" fill="none"/>'


def _bar(top: int, call: Call) -> str:
    left, width = _x(call.batch.dispatched_ns), _x(call.ends_ns) - _x(call.batch.dispatched_ns)
    y, colour = top + PANEL_HEIGHT - CALL_HEIGHT - 12, COLOURS[call.batch.reason]
    label = _text(left + width / 2, y + 27, str(call.batch.instances), "middle", "#ffffff")
    return f'<rect x="{left:.1f}" y="{y}" width="{width:.1f}" height="{CALL_HEIGHT}" fill="{colour}"/>{label}'


def _text(x: float, y: float, text: str, anchor: str = "start", colour: str = "#222222") -> str:
    return f'<text x="{x:.1f}" y="{y}" text-anchor="{anchor}" fill="{colour}">{text}</text>'
