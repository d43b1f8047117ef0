"""How fast the simulator is: requests per second of CPU time, in one process. **Effects**: prints.

python -m bench.micro.simulator [--seconds 1800]
"""

from __future__ import annotations

import argparse
import time

from mlproxy.simulate import Scenario, proxy_for, simulate
from mlproxy.simulate.arrivals import Poisson
from mlproxy.simulate.profiles import BUILT_IN
from mlproxy.units import NS_PER_S

CASES = {
    "none, 50/s": ("none", "toxic", 50.0, ""),
    "static, 50/s, no linger": ("static", "toxic", 50.0, "0s"),
    "static, 50/s, linger 100 ms": ("static", "toxic", 50.0, "100ms"),
    "static, 500/s, no linger": ("static", "toxic", 500.0, "0s"),
    "static, 2000/s, linger 20 ms": ("static", "iris", 2000.0, "20ms"),
    "slo, 50/s": ("slo", "toxic", 50.0, ""),
    "slo, 500/s": ("slo", "toxic", 500.0, ""),
    "slo, 2000/s": ("slo", "iris", 2000.0, ""),
}


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m bench.micro.simulator")
    parser.add_argument("--seconds", type=int, default=1800, help="of virtual time, for 50 requests/s")
    arguments = parser.parse_args()
    print(f"{'case':30}{'requests/CPU-s':>16}{'mean batch':>12}")
    for name, (policy, profile, rate, linger) in CASES.items():
        changes = [("batching.max_linger", linger)] if linger else []
        scenario = Scenario(
            trace=Poisson(rate), profile=BUILT_IN[profile], proxy=proxy_for(policy, changes=changes), warmup_ns=0,
            duration_ns=round(arguments.seconds * min(1.0, 200 / rate)) * NS_PER_S,
        )  # fmt: skip
        began = time.process_time()
        report = simulate(scenario).report
        print(f"{name:30}{report.requests / (time.process_time() - began):16,.0f}{report.mean_batch:12.1f}")


if __name__ == "__main__":
    main()
