"""Seeing the proxy from outside: metrics in shared-memory pages, their rendering, log lines. **Effects.**"""

from mlproxy.observe.catalogue import EXPECTED_SIZES, METRICS, PROCESS_METRICS, Metric
from mlproxy.observe.lines import access_line, configure_logging
from mlproxy.observe.page import MetricPage, PageLayout, PageState
from mlproxy.observe.writers import BatcherMetrics, IngressMetrics, SupervisorMetrics

__all__ = [
    "EXPECTED_SIZES",
    "METRICS",
    "PROCESS_METRICS",
    "BatcherMetrics",
    "IngressMetrics",
    "Metric",
    "MetricPage",
    "PageLayout",
    "PageState",
    "SupervisorMetrics",
    "access_line",
    "configure_logging",
]
