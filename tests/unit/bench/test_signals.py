"""Work that a signal ends, on the loop that the demo runs on."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Awaitable

import pytest
import uvloop

from bench.signals import Interrupted, until_signalled


def run(work: Awaitable[str]) -> str:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(until_signalled(work))


async def signal_oneself(number: int, cleaned_up: list[bool]) -> str:
    try:
        os.kill(os.getpid(), number)
        await asyncio.sleep(10)
    finally:
        os.kill(os.getpid(), number)  # somebody who is impatient
        await asyncio.sleep(0.01)
        cleaned_up.append(True)
    return "not interrupted"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_first_signal_ends_the_work_and_the_next_ones_do_not_disturb_its_end(number: int) -> None:
    cleaned_up: list[bool] = []
    with pytest.raises(Interrupted) as caught:
        run(signal_oneself(number, cleaned_up))
    assert caught.value.exit_code == 128 + number
    assert cleaned_up == [True]


def test_ctrl_c_counts_again_after_the_work() -> None:
    async def work() -> str:
        return "done"

    assert run(work()) == "done"
    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)
