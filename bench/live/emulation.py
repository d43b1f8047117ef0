"""One scenario, live: its arrivals, its cluster, and the real proxy between them. **Effects**: a process, sockets."""

from __future__ import annotations

import asyncio
import tempfile
from pathlib import Path

from bench.live.clock import Clock
from bench.live.front import MODEL, PREDICT, Front, HttpCall
from bench.live.model import ECHO, Model
from bench.load import Load, Result
from bench.open_loop import OpenLoop
from bench.processes import START_WITHIN_S, Proxy
from mlproxy.config import Configuration
from mlproxy.simulate import Proxy as ProxyConfiguration
from mlproxy.simulate import Report, Scenario
from mlproxy.simulate.arrivals import arrivals_ns
from mlproxy.simulate.call import Call
from mlproxy.simulate.cluster import Cluster
from mlproxy.simulate.measure import FAILED, Measurements
from mlproxy.simulate.timeline import Timeline

#: The simulated proxy has a connection for every call. The activator's queue is full before these are used up.
_CONNECTIONS = 20_000


class Emulation:
    """The world around one proxy. `run` runs it once; the rest may be read meanwhile."""

    def __init__(self, scenario: Scenario, answer_within_s: float = 30.0, model: Model = ECHO) -> None:
        self._scenario = scenario
        traffic, generator = scenario.generators()
        self._arrivals_ns = arrivals_ns(scenario.trace, scenario.duration_ns, traffic)
        self._timeline = Timeline()
        self.cluster = Cluster(
            scenario.cluster, scenario.profile, scenario.faults, self._timeline, generator, self._done_in_cluster
        )
        self._measurements = Measurements(scenario, self._arrivals_ns, self.cluster)
        self._front = Front(self._call_came, self._call_lost, model)
        self._outward_ns = scenario.cluster.network_ns // 2
        self._homeward_ns = scenario.cluster.network_ns - self._outward_ns
        self._answer_within_s = answer_within_s
        self._clock: Clock | None = None
        self.result = Result()  #: what the callers saw so far

    def __repr__(self) -> str:
        return f"<Emulation of {self._scenario.proxy.policy}: {self.cluster!r}>"

    @property
    def elapsed_ns(self) -> int | None:
        """Since the traffic began; None: it has not."""
        return self._clock.now_ns if self._clock else None

    @property
    def late_ns(self) -> list[int]:
        """By how much each alarm of the clock came too late."""
        return self._clock.late_ns if self._clock else []

    async def run(self) -> Report:
        """Start the proxy, drive it to the end of the trace, end it; what was measured."""
        url = await self._front.listen()
        try:
            with tempfile.TemporaryDirectory(prefix="mlproxy-live-") as folder:
                file = Path(folder) / "mlproxy.yaml"
                file.write_text(configuration_for(self._scenario.proxy, url).to_json())  # YAML contains JSON
                proxy = Proxy("-c", str(file), "--workers", "1")
                try:
                    await _until_ready(proxy)
                    await self._drive(proxy.url + PREDICT)
                finally:
                    proxy.stop()
        finally:
            await self._front.close()
        return self._measurements.report()

    async def _drive(self, url: str) -> None:
        load = OpenLoop(
            Load(
                url=url,
                bodies=self._front.model.bodies,
                due_ns=self._arrivals_ns.tolist(),
                answer_within_s=self._answer_within_s,
            )
        )
        self.result, ended = load.result, asyncio.Event()
        self._timeline.at(self._scenario.warmup_ns, self._measurements.begin)
        self._timeline.at(self._scenario.duration_ns, self._measurements.end)
        self._timeline.at(self._scenario.duration_ns, lambda _: ended.set())
        self._clock = Clock(self._timeline)
        try:
            await load.run(self._clock.started_ns)
            await ended.wait()
        finally:
            self._clock.close()
        self._note_answers(load.result)

    def _note_answers(self, result: Result) -> None:
        ended_ns = self._measurements.ended_ns
        for number in range(len(self._arrivals_ns)):
            ended_ns[number] = FAILED
        for number, latency_ns in zip(result.answered_numbers, result.latencies_ns, strict=True):
            ended_ns[number] = int(self._arrivals_ns[number]) + latency_ns

    # --- calls -----------------------------------------------------------------------------------------------

    def _call_came(self, call: HttpCall) -> None:
        assert self._clock is not None  # the proxy calls when it has a request
        self._measurements.sent(call.instances, self._clock.now_ns)
        self._clock.happen(self.cluster.receive, call, self._outward_ns)

    def _call_lost(self, call: HttpCall) -> None:
        assert self._clock is not None
        self._clock.happen(self.cluster.give_up, call)

    def _done_in_cluster(self, call: Call) -> None:
        self._timeline.at(self._timeline.now_ns + self._homeward_ns, HttpCall.answer, call)


def configuration_for(proxy: ProxyConfiguration, url: str) -> Configuration:
    """What the real proxy is started with to do what the simulated one does, with the emulated cluster at ``url``."""
    endpoint = proxy.endpoint
    backend = endpoint.backend.model_copy(update={"urls": (url,), "max_connections": _CONNECTIONS})
    named = endpoint.model_copy(update={"name": MODEL, "backend": backend})
    return Configuration.model_validate({"limits": proxy.limits, "endpoints": (named,)})


async def _until_ready(proxy: Proxy) -> None:
    """Look again and again; nothing else happens before it is."""
    try:
        async with asyncio.timeout(START_WITHIN_S):
            while not proxy.ready():  # noqa: ASYNC110 - another process sets no Event
                await asyncio.sleep(0.02)
    except TimeoutError:
        raise proxy.failure(f"was not ready within {START_WITHIN_S:g} s") from None
