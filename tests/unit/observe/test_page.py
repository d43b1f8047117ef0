"""Metric pages: counters outlive a process, gauges do not, and what is counted is what Prometheus reads."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from mlproxy.config import Configuration
from mlproxy.observe import (
    METRICS,
    PROCESS_METRICS,
    BatcherMetrics,
    IngressMetrics,
    MetricPage,
    PageLayout,
    PageState,
    SupervisorMetrics,
)  # fmt: skip
from mlproxy.observe.page import WORD_BYTES
from mlproxy.observe.prometheus import PageCollector
from mlproxy.observe.reading import PageSum
from mlproxy.observe.writers import Counters, Histogram

MS = 1_000_000
URLS = ("http://a", "http://b")
#: Two endpoints with different numbers of URLs, so that a place computed with the wrong endpoint shows.
LAYOUT = PageLayout((URLS, ("http://c",)))

MakePage = Callable[[str], MetricPage]
Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


@pytest.fixture
def make_page() -> Iterator[MakePage]:
    pages: list[MetricPage] = []

    def make(name: str) -> MetricPage:
        pages.append(MetricPage.create(LAYOUT, name))
        return pages[-1]

    yield make
    for page in pages:
        os.close(page.fd)


def scrape(pages: dict[str, MetricPage]) -> Samples:
    registry = CollectorRegistry()
    registry.register(PageCollector(["iris", "other"], pages))
    text = generate_latest(registry).decode()
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def value(samples: Samples, name: str, **labels: str) -> float | None:
    return samples.get((f"mlproxy_{name}", frozenset(labels.items())))


# --- layout ------------------------------------------------------------------------------------------------------


def test_no_two_metrics_share_a_word_and_every_word_lies_within_the_page() -> None:
    taken: list[int] = []
    for metric in PROCESS_METRICS:
        first = LAYOUT.offset(metric.name)
        taken += range(first, first + metric.words * len(metric.cells))
    for endpoint in (0, 1):
        for metric in METRICS:
            first = LAYOUT.offset(metric.name, endpoint)
            taken += range(first, first + metric.words * len(LAYOUT.cells(metric, endpoint)))
    assert len(set(taken)) == len(taken)
    assert min(taken) >= len(("pid", "started", "heartbeat", "state"))
    assert max(taken) * WORD_BYTES < LAYOUT.size_bytes


def test_the_layout_follows_the_configuration() -> None:
    endpoints = [
        {"name": "iris", "backend": {"urls": list(URLS)}},
        {"name": "other", "backend": {"urls": ["http://c"]}},
    ]
    assert PageLayout.of(Configuration.model_validate({"endpoints": endpoints})) == LAYOUT


# --- life of a page ----------------------------------------------------------------------------------------------


def test_a_new_page_is_empty_and_says_so(make_page: MakePage) -> None:
    page = make_page("batcher")
    assert (page.pid, page.started_ns, page.heartbeat_ns, page.state) == (0, 0, 0, PageState.EMPTY)
    assert repr(page) == "<MetricPage of process 0, empty>"
    assert not any(page.words)


def test_a_process_that_takes_a_page_over_is_seen_by_everyone_who_maps_it(make_page: MakePage) -> None:
    page = make_page("batcher")
    other = MetricPage(page.fd, LAYOUT)
    page.begin(1000)
    assert (other.pid, other.started_ns, other.heartbeat_ns, other.state) == (
        os.getpid(),
        1000,
        1000,
        PageState.STARTING,
    )
    page.beat(2000)
    page.set_state(PageState.READY)
    assert (other.started_ns, other.heartbeat_ns, other.state) == (1000, 2000, PageState.READY)
    assert repr(other) == f"<MetricPage of process {os.getpid()}, ready>"


def test_counters_go_on_where_a_killed_predecessor_stopped_and_gauges_start_anew(make_page: MakePage) -> None:
    page = make_page("batcher")
    page.begin(1)
    ingress, batcher = IngressMetrics(page, 0, 500 * MS), BatcherMetrics(page, 0)
    ingress.answered(200, [3 * MS])
    batcher.dispatched("full", 8)
    batcher.waited([1 * MS, 2 * MS])
    batcher.gauges(5, 600, 2)
    batcher.healthy(1, True)

    successor = MetricPage(page.fd, LAYOUT)  # maps the same memory, as the successor does
    successor.begin(2)
    IngressMetrics(successor, 0, 500 * MS).answered(200, [3 * MS])
    BatcherMetrics(successor, 0).dispatched("full", 4)
    BatcherMetrics(successor, 0).waited([1 * MS])

    total = PageSum([successor], 0)
    assert total.counts("requests_total")["200"] == 2
    assert total.count("slo_met_total") == 2
    assert total.count("instances_total") == 12
    assert total.counts("batches_total")["full"] == 2
    assert sum(total.histogram("queue_wait_seconds")[0]) == 3
    assert total.histogram("queue_wait_seconds")[1] == 4 * MS
    assert (total.count("queue_depth"), total.count("queue_bytes"), total.count("backend_inflight")) == (0, 0, 0)
    assert total.counts("backend_healthy") == dict.fromkeys(URLS, 0)


# --- counting ----------------------------------------------------------------------------------------------------


def test_pages_add_up_and_endpoints_stay_apart(make_page: MakePage) -> None:
    pages = [make_page(f"ingress-{index}") for index in range(3)]
    for count, page in enumerate(pages, 1):
        for _ in range(count):
            IngressMetrics(page, 0, 500 * MS).answered(200, [MS])
        IngressMetrics(page, 1, 500 * MS).answered(503, [MS])
    assert PageSum(pages, 0).counts("requests_total")["200"] == 6
    assert PageSum(pages, 0).counts("requests_total")["503"] == 0
    assert PageSum(pages, 1).counts("requests_total")["503"] == 3
    assert PageSum(pages[:1], 0).counts("requests_total")["200"] == 1


@pytest.mark.parametrize("status", [100, 200, 404, 599])
def test_every_status_is_counted_under_its_own_code(make_page: MakePage, status: int) -> None:
    page = make_page("ingress-0")
    IngressMetrics(page, 1, 500 * MS).answered(status, [MS])
    counts = PageSum([page], 1).counts("requests_total")
    assert {code: count for code, count in counts.items() if count} == {str(status): 1}


@pytest.mark.parametrize(
    ("status", "duration_ns", "met"),
    [(200, 500 * MS, True), (200, 500 * MS + 1, False), (400, MS, True), (500, MS, False), (504, MS, False)],
)
def test_the_objective_is_met_in_time_and_without_a_server_error(
    make_page: MakePage, status: int, duration_ns: int, met: bool
) -> None:
    page = make_page("ingress-0")
    IngressMetrics(page, 0, 500 * MS).answered(status, [duration_ns])
    total = PageSum([page], 0)
    assert (total.count("slo_met_total"), total.count("slo_missed_total")) == (int(met), int(not met))


def test_what_the_ingress_counts_beside_answers(make_page: MakePage) -> None:
    page = make_page("ingress-0")
    metrics = IngressMetrics(page, 0, 500 * MS)
    metrics.cancelled()
    metrics.shed()
    assert PageSum([page], 0).count("cancelled_total") == 1
    assert PageSum([page], 0).counts("shed_total") == {"queue_full": 0, "worker_full": 1, "deadline": 0}


def test_what_the_batcher_counts(make_page: MakePage) -> None:
    page = make_page("batcher")
    metrics = BatcherMetrics(page, 0)
    metrics.backend_done("200", 3 * MS)
    metrics.backend_done("418", 3 * MS)  # not in the catalogue
    metrics.retried("connect")
    metrics.isolated("poison")
    metrics.rejected("overloaded")
    metrics.rejected("deadline-exceeded")
    metrics.rejected("backend-timeout")  # not shed: it was tried
    metrics.healthy(1, True)
    metrics.gauges(5, 600, 2)
    metrics.gauges(4, 500, 1)
    total = PageSum([page], 0)
    assert sum(total.histogram("backend_duration_seconds", "200")[0]) == 1
    assert sum(total.histogram("backend_duration_seconds", "other")[0]) == 1
    assert total.counts("retries_total")["connect"] == 1
    assert total.counts("isolated_total") == {"poison": 1, "cleared": 0}
    assert total.counts("shed_total") == {"queue_full": 1, "worker_full": 0, "deadline": 1}
    assert total.counts("backend_healthy") == {"http://a": 0, "http://b": 1}
    assert (total.count("queue_depth"), total.count("queue_bytes"), total.count("backend_inflight")) == (4, 500, 1)


def test_what_the_controller_goes_by_is_shown_in_seconds_by_size_and_quantile(make_page: MakePage) -> None:
    page = make_page("batcher")
    metrics = BatcherMetrics(page, 0)
    metrics.controller(32, 3)
    metrics.expected(8, 48 * MS, 60.5 * MS)
    samples = scrape({"supervisor": make_page("supervisor"), "batcher": page})
    assert value(samples, "controller_max_size", endpoint="iris") == 32
    assert value(samples, "controller_slots", endpoint="iris") == 3
    assert value(samples, "service_time_seconds", endpoint="iris", size="8", quantile="mean") == 0.048
    assert value(samples, "service_time_seconds", endpoint="iris", size="8", quantile="high") == 0.0605
    assert value(samples, "service_time_seconds", endpoint="iris", size="16", quantile="mean") is None  # nothing known


def test_a_bucket_holds_what_is_at_most_its_bound(make_page: MakePage) -> None:
    page = make_page("batcher")
    sizes = Histogram(page, "batch_size", 0)
    for size in (1, 2, 3, 4, 5, 4096, 4097):
        sizes.observe(size)
    counts, amount = PageSum([page], 0).histogram("batch_size")
    assert counts[:4] == [1, 1, 2, 1]  # up to 1, 2, 4, 8
    assert counts[-2:] == [1, 1]  # up to 4096, and beyond
    assert (sum(counts), amount) == (7, 1 + 2 + 3 + 4 + 5 + 4096 + 4097)


# --- quantiles ---------------------------------------------------------------------------------------------------


def durations(page: MetricPage, *ms: float) -> PageSum:
    histogram = Histogram(page, "request_duration_seconds", 0)
    for one in ms:
        histogram.observe(int(one * MS))
    return PageSum([page], 0)


def test_nothing_observed_has_no_quantile(make_page: MakePage) -> None:
    assert durations(make_page("ingress-0")).quantile_ns("request_duration_seconds", 0.99) is None


def test_a_quantile_is_spread_evenly_within_its_bucket(make_page: MakePage) -> None:
    total = durations(make_page("ingress-0"), *[15] * 10)  # all in the bucket from 10 ms to 20 ms
    assert total.quantile_ns("request_duration_seconds", 0.5) == pytest.approx(15 * MS)
    assert total.quantile_ns("request_duration_seconds", 0.9) == pytest.approx(19 * MS)
    assert total.quantile_ns("request_duration_seconds", 1) == pytest.approx(20 * MS)


def test_a_quantile_lies_in_the_bucket_that_holds_its_rank(make_page: MakePage) -> None:
    total = durations(make_page("ingress-0"), *[0.1] * 98, 700, 700)
    assert total.quantile_ns("request_duration_seconds", 0.5) == pytest.approx(0.5 * MS * 50 / 98)
    assert total.quantile_ns("request_duration_seconds", 0.99) == pytest.approx(625 * MS)  # half way, 500 to 750 ms


def test_a_quantile_beyond_the_last_bound_is_that_bound(make_page: MakePage) -> None:
    total = durations(make_page("ingress-0"), 100_000)
    assert total.quantile_ns("request_duration_seconds", 0.5) == 60_000 * MS


# --- exposition --------------------------------------------------------------------------------------------------


def test_a_scrape_shows_the_sum_of_all_processes_in_base_units(make_page: MakePage) -> None:
    pages = {name: make_page(name) for name in ("supervisor", "ingress-0", "ingress-1", "batcher")}
    for name in ("ingress-0", "ingress-1"):
        IngressMetrics(pages[name], 0, 500 * MS).answered(200, [3 * MS])
    BatcherMetrics(pages["batcher"], 0).gauges(7, 900, 1)
    BatcherMetrics(pages["batcher"], 0).healthy(0, True)
    Counters(pages["supervisor"], "queue_depth", 1).set(2)
    samples = scrape(pages)
    assert value(samples, "requests_total", endpoint="iris", code="200") == 2
    assert value(samples, "slo_met_total", endpoint="iris") == 2
    assert value(samples, "request_duration_seconds_sum", endpoint="iris") == pytest.approx(0.006)
    assert value(samples, "request_duration_seconds_count", endpoint="iris") == 2
    assert value(samples, "queue_depth", endpoint="iris") == 7
    assert value(samples, "queue_depth", endpoint="other") == 2
    assert value(samples, "backend_healthy", endpoint="iris", url="http://a") == 1
    assert value(samples, "backend_healthy", endpoint="iris", url="http://b") == 0
    assert value(samples, "backend_healthy", endpoint="other", url="http://c") == 0


def test_buckets_are_cumulative_and_end_with_the_count(make_page: MakePage) -> None:
    pages = {"supervisor": make_page("supervisor")}
    for ms in (1, 1.5, 3, 70_000):
        Histogram(pages["supervisor"], "request_duration_seconds", 0).observe(int(ms * MS))
    samples = scrape(pages)
    name = "request_duration_seconds_bucket"
    bounds = ["0.0005", "0.001", "0.002", "0.005", "60", "+Inf"]
    assert [value(samples, name, endpoint="iris", le=bound) for bound in bounds] == [0, 1, 2, 3, 3, 4]


def test_every_metric_of_the_catalogue_is_shown_for_every_endpoint_from_the_start(make_page: MakePage) -> None:
    samples = scrape({"supervisor": make_page("supervisor")})
    shown = {(name, dict(labels).get("endpoint")) for name, labels in samples}
    for metric in METRICS:
        if metric.sparse:
            continue  # statuses, failures and expectations appear when there are any
        name = f"mlproxy_{metric.name}" + ("_count" if metric.kind == "histogram" else "")
        assert {(name, "iris"), (name, "other")} <= shown


def test_a_status_that_never_occurred_is_not_shown(make_page: MakePage) -> None:
    samples = scrape({"supervisor": make_page("supervisor")})
    assert not [labels for name, labels in samples if name == "mlproxy_requests_total"]


def test_restarts_come_from_the_supervisors_page(make_page: MakePage) -> None:
    page = make_page("supervisor")
    (label,) = PROCESS_METRICS[0].labels
    roles = label.values
    counted = SupervisorMetrics(page)
    for _ in range(3):
        counted.restarted("batcher")
    samples = scrape({"supervisor": page, "batcher": make_page("batcher")})
    assert {role: value(samples, "worker_restarts_total", role=role) for role in roles} == {
        "ingress": 0, "batcher": 3, "admin": 0,
    }  # fmt: skip


def test_a_process_is_shown_while_it_lives_and_left_out_between_a_death_and_its_successor(make_page: MakePage) -> None:
    alive, dead = make_page("batcher"), make_page("ingress-0")
    alive.begin(1)
    samples = scrape({"supervisor": make_page("supervisor"), "batcher": alive, "ingress-0": dead})
    assert (value(samples, "process_resident_memory_bytes", process="batcher") or 0) > 1e6
    assert (value(samples, "process_open_fds", process="batcher") or 0) > 0
    assert value(samples, "process_cpu_seconds_total", process="batcher") is not None
    assert value(samples, "process_resident_memory_bytes", process="ingress-0") is None
