"""How many descriptors the proxy's processes may have. **Effects**: sets the limit that they inherit."""

from __future__ import annotations

import resource


def raise_descriptor_limit() -> None:
    """To what the administrator allows. The soft limit, often 1024, protects ``select``, which nothing here uses.

    Go and systemd's own services do the same; every caller's and every backend's connection takes one.
    """
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
