"""What a process tree has used: CPU time and memory, read from /proc. **Effects.**"""

from __future__ import annotations

from pathlib import Path

import psutil


def tree(pid: int) -> list[int]:
    """A process and everything below it."""
    process = psutil.Process(pid)
    return [pid, *(child.pid for child in process.children(recursive=True))]


def cpu_ns(pids: list[int]) -> int:
    """CPU time of all threads, user and kernel, to the nanosecond: the first number of each ``schedstat``."""
    total_ns = 0
    for pid in pids:
        for task in Path(f"/proc/{pid}/task").iterdir():
            total_ns += int((task / "schedstat").read_text().split()[0])
    return total_ns


def pss_bytes(pids: list[int]) -> int:
    """Proportional set size: shared pages are counted once among those who share them."""
    total_bytes = 0
    for pid in pids:
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                total_bytes += int(line.split()[1]) * 1024
    return total_bytes
