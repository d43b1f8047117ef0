"""The proxy and other servers as child processes, on ports that the kernel chose. **Effects.**

Every process started here ends with this one: by `Process.stop` on the ordinary way, and by the kernel if this
process (more exactly: the thread that started it) is killed. Both write to a log file only, so nothing blocks on a
pipe that nobody reads; the ports are read from that log. It is deleted at the end unless its path was given.

    with running_proxy("--backend", "http://127.0.0.1:9000", "--name", "iris") as proxy:
        ...
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any, TypeVar

import orjson

PROJECT = Path(__file__).resolve().parent.parent
START_WITHIN_S = 20.0
STOP_WITHIN_S = 10.0
_LOOK_EVERY_S = 0.02
_LOOPBACK = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # whatever $http_proxy says


class ProcessFailed(RuntimeError):
    """A child process ended, or did not become ready in time; the message carries the end of its log."""


class Process:
    """A child process with its log. `ready` looks once; `stop` may be called at any time, and again."""

    #: What the log says when the process listens; the groups are its URLs.
    listening: re.Pattern[str]
    #: What is asked to find out whether it is ready, below its first URL.
    ready_path: str

    def __init__(self, command: Sequence[str], log: Path | None = None, url: str | None = None) -> None:
        self._own_log = log is None
        self.log = log or _new_log()
        self._urls: tuple[str, ...] = () if url is None else (url,)  # where it listens, if its log does not say so
        launcher = [sys.executable, "-m", "bench.launch", str(os.getpid())]
        with self.log.open("ab") as output:
            # A process group of its own: Ctrl-C in a terminal is for the one who started it, who then stops it.
            self._process = subprocess.Popen(
                [*launcher, *command], stdin=subprocess.DEVNULL, stdout=output, stderr=output, cwd=PROJECT,
                env=_environment(), process_group=0,
            )  # fmt: skip

    def __repr__(self) -> str:
        state = "running" if self.returncode is None else f"ended with {self.returncode}"
        return f"<{type(self).__name__} {self.pid} {state}, {', '.join(self._urls) or 'not listening yet'}>"

    @property
    def pid(self) -> int:
        """The process's number: the command's own, since the launcher becomes it."""
        return self._process.pid

    @property
    def returncode(self) -> int | None:
        """None while it runs."""
        return self._process.poll()

    @property
    def url(self) -> str:
        """Where it listens, without a slash at the end. Known once it is ready."""
        return self._urls[0]

    def log_text(self) -> str:
        """Everything that it has written so far."""
        return self.log.read_text(errors="replace")

    def ready(self) -> bool:
        """Does it listen and answer? Raises `ProcessFailed` if it has ended."""
        if self.returncode is not None:
            raise self.failure(f"ended with {self.returncode}")
        if not self._urls:
            found = self.listening.search(self.log_text())
            self._urls = found.groups() if found else ()
        return bool(self._urls) and answers(self.url + self.ready_path)

    def wait_until_ready(self, within_s: float = START_WITHIN_S) -> None:
        """Look until it is ready; `ProcessFailed` when that takes too long."""
        if not wait_until(self.ready, within_s):
            raise self.failure(f"was not ready within {within_s:g} s")

    def stop(self, within_s: float = STOP_WITHIN_S) -> int:
        """SIGTERM, then SIGKILL if that is not obeyed in time. The exit code."""
        try:
            if self._process.poll() is None:
                self._process.terminate()
            return self._process.wait(within_s)
        except subprocess.TimeoutExpired:
            self._process.kill()
            return self._process.wait()
        finally:
            if self._own_log:
                self.log.unlink(missing_ok=True)

    def failure(self, what: str) -> ProcessFailed:
        """``what`` happened, with the end of the log."""
        lines = self.log_text().splitlines()[-20:]
        return ProcessFailed("\n".join([f"{type(self).__name__} {what}; its log ends:", *lines]))


AnyProcess = TypeVar("AnyProcess", bound=Process)


class Proxy(Process):
    """``mlproxy serve`` on loopback. Arguments are flags, a configuration file's ``-c FILE`` included."""

    listening = re.compile(r"listening on (http://\S+) \(\d+ workers?\), admin (http://\S+)")
    ready_path = "/readyz"

    def __init__(self, *flags: str, log: Path | None = None) -> None:
        ports = ("--host", "127.0.0.1", "--port", "0", "--admin-port", "0")
        super().__init__([sys.executable, "-m", "mlproxy", "serve", *ports, *flags], log)

    @property
    def admin_url(self) -> str:
        """Where its admin API is."""
        return self._urls[1]

    def status(self) -> dict[str, Any]:
        """What ``/api/v1/status`` says now."""
        with _LOOPBACK.open(self.admin_url + "/api/v1/status", timeout=5) as response:
            answer: dict[str, Any] = orjson.loads(response.read())
        return answer


@contextmanager
def running(process: AnyProcess) -> Iterator[AnyProcess]:
    """``process``, ready; stopped at the end."""
    try:
        process.wait_until_ready()
        yield process
    finally:
        process.stop()


def running_proxy(*flags: str, log: Path | None = None) -> AbstractContextManager[Proxy]:
    """A proxy that is ready; stopped at the end."""
    return running(Proxy(*flags, log=log))


def wait_until(condition: Callable[[], bool], within_s: float) -> bool:
    """Look again and again until ``condition`` holds; False when it did not within ``within_s``."""
    give_up_ns = time.monotonic_ns() + int(within_s * 1e9)
    while not condition():
        if time.monotonic_ns() > give_up_ns:
            return False
        time.sleep(_LOOK_EVERY_S)
    return True


def answers(url: str) -> bool:
    """Is a GET of ``url`` answered with 200 now?"""
    try:
        with _LOOPBACK.open(url, timeout=2) as response:
            return bool(response.status == 200)
    except urllib.error.HTTPError as error:
        error.close()
        return False
    except OSError:
        return False


def _environment() -> dict[str, str]:
    """This process's, without what would configure the proxy behind the flags' back."""
    return {name: value for name, value in os.environ.items() if not name.startswith("MLPROXY_") and name != "PORT"}


def _new_log() -> Path:
    fd, name = tempfile.mkstemp(prefix="mlproxy-bench-", suffix=".log")
    os.close(fd)
    return Path(name)
