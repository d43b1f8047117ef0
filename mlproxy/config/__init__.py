"""Configuration: one frozen value, validated whole, once. **Effects** only in `load` and
`document`, which read files."""

from mlproxy.config.conflicts import advice
from mlproxy.config.load import load_configuration
from mlproxy.config.schema import (
    Admin,
    Backend,
    Batching,
    Configuration,
    Endpoint,
    FixedScaling,
    Limits,
    Logging,
    Retry,
    Server,
    Slo,
    Tls,
)

__all__ = [
    "Admin",
    "Backend",
    "Batching",
    "Configuration",
    "Endpoint",
    "FixedScaling",
    "Limits",
    "Logging",
    "Retry",
    "Server",
    "Slo",
    "Tls",
    "advice",
    "load_configuration",
]
