"""A proxy that gives a stuck process little time, so that a test need not wait for the real patience. **Effects.**"""

from __future__ import annotations

import os
import sys
from contextlib import AbstractContextManager
from pathlib import Path

from bench.processes import Process, Proxy, running
from mlproxy.config.load import load_configuration
from mlproxy.units import NS_PER_S
from workers.supervisor import Patience, run

PATIENCE = Patience(silent_ns=3 * NS_PER_S // 2, hung_ns=3 * NS_PER_S, start_ns=5 * NS_PER_S)


class ImpatientProxy(Proxy):
    """Started by this module instead of by the command line."""

    def __init__(self, *flags: str, log: Path | None = None) -> None:
        Process.__init__(self, [sys.executable, "-m", "tests.crash.impatient", *flags], log)


def running_impatient_proxy(*flags: str, log: Path | None = None) -> AbstractContextManager[Proxy]:
    """As `running_proxy`; the flags are ``-c FILE``."""
    return running(ImpatientProxy(*flags, log=log))


def _serve(file: Path) -> int:
    loopback = {"host": "127.0.0.1", "port": 0, "admin_port": 0}
    return run(load_configuration(file, os.environ, loopback), patience=PATIENCE)


if __name__ == "__main__":
    sys.exit(_serve(Path(sys.argv[2])))
