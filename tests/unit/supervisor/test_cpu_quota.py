"""``workers: auto`` under cgroups of either version, read from a root folder of our own."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from workers.supervisor.cpu_quota import cpu_quota, worker_count


class Root:
    """A file system with the few files that tell about CPUs."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def write(self, name: str, text: str) -> Root:
        file = self.path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
        return self

    def member_of(self, *lines: str) -> Root:
        return self.write("proc/self/cgroup", "".join(f"{line}\n" for line in lines))

    def v2(self, group: str, cpu_max: str) -> Root:
        return self.write(f"sys/fs/cgroup/{group}/cpu.max", cpu_max + "\n")

    def v1(self, group: str, quota: int, period: int = 100_000) -> Root:
        self.write(f"sys/fs/cgroup/cpu/{group}/cpu.cfs_quota_us", f"{quota}\n")
        return self.write(f"sys/fs/cgroup/cpu/{group}/cpu.cfs_period_us", f"{period}\n")

    @property
    def quota(self) -> float | None:
        return cpu_quota(self.path)


@pytest.fixture
def root(tmp_path: Path) -> Root:
    return Root(tmp_path)


def test_a_machine_without_cgroups_has_no_quota(root: Root) -> None:
    assert root.quota is None


@pytest.mark.parametrize(
    ("cpu_max", "cpus"),
    [("200000 100000", 2.0), ("50000 100000", 0.5), ("150000 100000", 1.5), ("max 100000", None), ("1000 10000", 0.1)],
)
def test_version_2_says_quota_and_period_in_one_file(root: Root, cpu_max: str, cpus: float | None) -> None:
    assert root.member_of("0::/").v2(".", cpu_max).quota == cpus


@pytest.mark.parametrize(
    ("quota", "period", "cpus"), [(200_000, 100_000, 2.0), (25_000, 50_000, 0.5), (-1, 100_000, None)]
)
def test_version_1_says_them_in_two(root: Root, quota: int, period: int, cpus: float | None) -> None:
    assert root.member_of("5:cpu,cpuacct:/").v1(".", quota, period).quota == cpus


def test_a_containers_own_view_has_the_quota_at_the_top_whatever_the_group_is_called(root: Root) -> None:
    assert root.member_of("0::/kubepods/pod1/abc").v2(".", "300000 100000").quota == 3.0


def test_a_containers_own_view_of_version_1_does_too(root: Root) -> None:
    assert root.member_of("4:memory:/docker/abc", "3:cpuacct,cpu:/docker/abc").v1(".", 150_000).quota == 1.5


def test_without_proc_the_top_counts(root: Root) -> None:
    assert root.v2(".", "100000 100000").quota == 1.0


def test_the_quota_of_the_own_group_is_found_below_the_top(root: Root) -> None:
    assert (
        root.member_of("0::/system.slice/mlproxy.service").v2("system.slice/mlproxy.service", "250000 100000").quota
        == 2.5
    )


def test_a_tighter_group_above_holds_for_everything_below(root: Root) -> None:
    root.member_of("0::/a/b/c").v2("a/b/c", "max 100000").v2("a/b", "400000 100000").v2("a", "200000 100000")
    assert root.quota == 2.0


def test_a_looser_group_above_does_not_loosen_the_own(root: Root) -> None:
    assert root.member_of("0::/a/b").v2("a/b", "100000 100000").v2("a", "800000 100000").quota == 1.0


def test_groups_above_count_in_version_1_as_well(root: Root) -> None:
    assert root.member_of("3:cpu,cpuacct:/a/b").v1("a/b", -1).v1("a", 100_000).quota == 1.0


def test_the_groups_of_others_do_not_count(root: Root) -> None:
    root.member_of("0::/a/mine").v2("a/mine", "400000 100000").v2("a/other", "10000 100000").v2("b", "10000 100000")
    assert root.quota == 4.0


def test_a_quota_in_either_version_of_a_mixed_system_counts(root: Root) -> None:
    root.member_of("3:cpu,cpuacct:/a", "1:name=systemd:/a", "0::/a").v1("a", 200_000)
    assert root.quota == 2.0


def test_another_controllers_group_is_not_taken_for_the_cpus(root: Root) -> None:
    root.member_of("7:cpuset:/a", "3:cpu,cpuacct:/b").v1("a", 10_000).v1("b", 200_000)
    assert root.quota == 2.0


def test_a_group_outside_the_own_view_falls_back_to_the_top(root: Root) -> None:
    assert root.member_of("0::/../../outside").v2(".", "200000 100000").quota == 2.0


def test_a_groups_name_may_hold_a_colon(root: Root) -> None:
    assert root.member_of("0::/a:b").v2("a:b", "200000 100000").quota == 2.0


def test_a_file_that_says_nothing_is_no_quota(root: Root) -> None:
    assert root.member_of("0::/").v2(".", "").quota is None


@pytest.mark.parametrize(
    ("cpus", "cpu_max", "workers"),
    [
        (1, None, 1),
        (2, None, 2),
        (3, None, 2),  # one is left to the batcher
        (8, None, 7),
        (8, "10000 100000", 1),
        (8, "150000 100000", 1),
        (8, "200000 100000", 2),
        (8, "290000 100000", 2),
        (8, "300000 100000", 2),
        (8, "400000 100000", 3),
        (2, "1600000 100000", 2),  # the affinity mask is the tighter one
    ],
)  # fmt: skip
def test_workers_are_the_whole_cpus_that_quota_and_affinity_leave(
    root: Root, monkeypatch: pytest.MonkeyPatch, cpus: int, cpu_max: str | None, workers: int
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _pid: set(range(cpus)))
    if cpu_max is not None:
        root.member_of("0::/").v2(".", cpu_max)
    assert worker_count(root.path) == workers
