"""Configuration: one frozen value, validated whole, once. **Effects** only in `load` and
`document`, which read files."""

from mlproxy.config.conflicts import advice
from mlproxy.config.load import load_configuration, with_endpoint
from mlproxy.config.schema import (
    Admin,
    Aimd,
    Backend,
    Batching,
    Configuration,
    Endpoint,
    Limits,
    Logging,
    Retry,
    Scaling,
    Server,
    Slo,
    Tls,
)

__all__ = [
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
    "load_configuration",
    "with_endpoint",
]
