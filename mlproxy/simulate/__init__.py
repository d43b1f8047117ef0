"""A simulator: the production engine in a world of virtual time, with a faithful Knative. **Pure** but for `many`,
which uses processes, and `plots`, which writes a picture.
"""

from mlproxy.simulate.measure import Outcome, Report, Series
from mlproxy.simulate.scenario import Proxy, Scenario, proxy_for
from mlproxy.simulate.settings import ClusterSettings, Prices
from mlproxy.simulate.world import simulate

__all__ = [
    "ClusterSettings",
    "Outcome",
    "Prices",
    "Proxy",
    "Report",
    "Scenario",
    "Series",
    "proxy_for",
    "simulate",
]
