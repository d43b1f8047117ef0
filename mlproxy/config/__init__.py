"""Configuration: one frozen value, validated whole, once. **Effects** only in `load` and
`document`, which read files.

`load` is not imported here: it needs YAML and the sources' words, and a role process gets its configuration ready-made.
"""

from mlproxy.config.batching import Aimd, Batching, Slo
from mlproxy.config.conflicts import advice
from mlproxy.config.endpoint import HEALTH_PATHS, Backend, Endpoint, Retry, Scaling, Tls
from mlproxy.config.schema import Admin, Configuration, Limits, Logging, Server

__all__ = [
    "HEALTH_PATHS",
    "Admin",
    "Aimd",
    "Backend",
    "Batching",
    "Configuration",
    "Endpoint",
    "Limits",
    "Logging",
    "Retry",
    "Scaling",
    "Server",
    "Slo",
    "Tls",
    "advice",
]
