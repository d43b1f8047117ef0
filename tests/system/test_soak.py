"""The soak itself runs, and a few seconds of it find nothing."""

from __future__ import annotations

import subprocess
import sys

from bench.processes import PROJECT


def test_a_few_seconds_of_chaos_hold_what_is_promised() -> None:
    flags = ("--duration", "4s", "--rate", "40", "--hurt-every", "1s")
    command = [sys.executable, "-m", "bench.soak", *flags]
    run = subprocess.run(command, cwd=PROJECT, check=False, capture_output=True, text=True)
    assert run.returncode == 0, run.stdout + run.stderr
    assert run.stdout.endswith("all held\n")
