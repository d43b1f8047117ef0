"""The supervisor: binds, starts, watches, restarts, drains. No traffic passes through it. **Effects.**"""

from workers.supervisor.liveness import Patience
from workers.supervisor.supervisor import run

__all__ = ["Patience", "run"]
