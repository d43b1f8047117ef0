"""The demo, as a newcomer runs it."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from bench.processes import PROJECT, wait_until

COMMAND = [sys.executable, "-m", "bench.demo", "--seconds"]


def _environment(folder: Path) -> dict[str, str]:
    return os.environ | {"COLUMNS": "100", "TMPDIR": str(folder)}


def test_the_table_has_a_column_for_each_policy(tmp_path: Path) -> None:
    demo = subprocess.run(
        [*COMMAND, "1.5"], cwd=PROJECT, env=_environment(tmp_path), capture_output=True, text=True, timeout=50,
        check=False,
    )  # fmt: skip
    assert demo.returncode == 0, demo.stderr
    assert re.search(r"\(policy: none\).*\(policy: slo\)", demo.stdout)
    rows = {name: (first, second) for name, first, second in _rows(demo.stdout)}
    assert rows["requests sent"][0] == rows["requests sent"][1]
    assert rows["mean batch size"][0] == "1.0"
    assert float(rows["mean batch size"][1]) > 1.0
    assert rows["later: pods"][1] == "1.0"
    assert float(rows["later: pods"][0]) > 3
    assert "mlproxy serve --backend" in demo.stdout
    assert list(tmp_path.iterdir()) == []


def _rows(output: str) -> list[tuple[str, str, str]]:
    return [
        (cells[1].strip(), cells[2].strip(), cells[3].strip())
        for line in output.splitlines()
        if len(cells := line.split("│")) == 5
    ]


def _some_child(children: list[psutil.Process]) -> bool:
    return bool(children)


def _a_proxy_with_all_its_roles(children: list[psutil.Process]) -> bool:
    return {"supervisor", "ingress 0", "batcher", "admin"} <= {_title(child) for child in children}


def _title(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline()).removeprefix("mlproxy: ").strip()
    except psutil.Error:
        return ""


@pytest.mark.parametrize("moment", [_some_child, _a_proxy_with_all_its_roles])
def test_ctrl_c_ends_every_process(tmp_path: Path, moment: Callable[[list[psutil.Process]], bool]) -> None:
    children: list[psutil.Process] = []
    with subprocess.Popen(
        [*COMMAND, "20"], cwd=PROJECT, env=_environment(tmp_path), text=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    ) as demo:  # fmt: skip
        try:

            def reached() -> bool:
                children[:] = psutil.Process(demo.pid).children(recursive=True)
                return moment(children)

            assert wait_until(reached, within_s=20)
            demo.send_signal(signal.SIGINT)
            output, _ = demo.communicate(timeout=20)
        finally:
            demo.kill()
    assert demo.returncode == 130
    assert output.splitlines()[-1] == "Interrupted: every process of the demo has ended."
    assert "Traceback" not in output
    assert [child for child in children if child.is_running()] == []
    assert list(tmp_path.iterdir()) == []
