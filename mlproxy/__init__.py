"""MLProxy: an adaptive batching reverse proxy for machine-learning inference.

This package decides and starts nothing: configuration, protocols, the batching engine, the rings between
processes, the backend client and the metrics. The processes that act on it live in ``workers``.
"""

__version__ = "0.1.0"
