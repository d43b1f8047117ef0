"""A command that ends with the process that started it, however that ends. **Effects.**

    python -m bench.launch PARENT COMMAND…

becomes COMMAND. It imports next to nothing: every process of a test or a benchmark begins with it.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1  # prctl(2)


def end_with_parent(parent_pid: int | None = None) -> None:
    """Have the kernel send SIGTERM when the parent ends, however it ends. The order survives ``exec``."""
    if ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG)")
    if parent_pid is not None and os.getppid() != parent_pid:  # it ended before the line above
        sys.exit(1)


if __name__ == "__main__":
    _, parent, *command = sys.argv
    end_with_parent(int(parent))
    os.execv(command[0], command)
