"""How many workers ``workers: auto`` means. **Effects**: reads the cgroup's files.

``os.cpu_count()`` is the host's, and the affinity mask knows nothing of a container's quota; with more workers than
quota, the kernel stops them all for the rest of each 100 ms period.
"""

from __future__ import annotations

import os
from pathlib import Path

#: From this many CPUs on, one is left to the batcher; below, it shares (it takes a fifth of a worker's time).
SPARE_FROM_CPUS = 3


def worker_count(root: Path = Path("/")) -> int:
    """Ingress workers for the CPUs that this process may use."""
    cpus = float(len(os.sched_getaffinity(0)))
    quota = cpu_quota(root)
    if quota is not None:
        cpus = min(cpus, quota)
    whole = max(1, int(cpus))
    return whole - 1 if whole >= SPARE_FROM_CPUS else whole


def cpu_quota(root: Path) -> float | None:
    """CPUs of the tightest quota that holds for this process, in cgroup v2 or v1; None: no quota."""
    quotas = [_read_v2(folder) for folder in _folders(root, "", "sys/fs/cgroup")]
    quotas += [_read_v1(folder) for folder in _folders(root, "cpu", "sys/fs/cgroup/cpu")]
    return min((quota for quota in quotas if quota is not None), default=None)


def _folders(root: Path, controller: str, mount: str) -> list[Path]:
    """The own cgroup's folder and all above it: a quota holds for everything below."""
    top = root / mount
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        return [top]
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controller in controllers.split(","):
            own = top / path.strip("/")
            return [folder for folder in (own, *own.parents) if folder == top or top in folder.parents]
    return [top]


def _read_v2(folder: Path) -> float | None:
    try:
        quota, period = (folder / "cpu.max").read_text().split()
    except (OSError, ValueError):
        return None
    return None if quota == "max" else int(quota) / int(period)


def _read_v1(folder: Path) -> float | None:
    try:
        quota = int((folder / "cpu.cfs_quota_us").read_text())
        period = int((folder / "cpu.cfs_period_us").read_text())
    except (OSError, ValueError):
        return None
    return None if quota <= 0 else quota / period
