"""What an endpoint's controller has learned, kept in a file over restarts. **Effects.**

Written to a new file that then takes the old one's place, so that who is killed meanwhile leaves a whole one. It is not
forced to the disk: a file that a power cut has damaged is refused, and a few seconds of traffic teach the same.
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from mlproxy.engine.slo.controller import Controller
from mlproxy.engine.slo.state import StateRefused, dump, restore

logger = logging.getLogger("mlproxy.batcher")

SAVE_EVERY_S = 30.0
#: What no state comes near; larger is somebody else's file.
MAX_BYTES = 64 * 1024


class StateFile:
    """One endpoint's file in `server.state_dir`."""

    def __init__(self, folder: str, endpoint: str, controller: Controller) -> None:
        self.path = Path(folder) / f"{endpoint}.json"
        self._new = self.path.with_name(f".{endpoint}.json.new")  # no endpoint's name begins with a dot
        self._endpoint = endpoint
        self._controller = controller
        self._failed = False  # the last time

    def __repr__(self) -> str:
        return f"<StateFile {self.path}>"

    def read(self) -> None:
        """Go on from what the file says, if there is one that can be believed."""
        try:
            with os.fdopen(os.open(self.path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK), "rb") as file:
                data = file.read(MAX_BYTES)
            calls = restore(self._controller, data, time.time())
        except FileNotFoundError:
            return
        except (OSError, StateRefused) as error:
            reason = error.strerror if isinstance(error, OSError) else error
            logger.warning("learns anew endpoint=%s file=%s: %s", self._endpoint, self.path, reason)
            return
        logger.info("going on from what was learned endpoint=%s calls=%d", self._endpoint, calls)

    def contents(self) -> bytes:
        """What is to be written now."""
        return dump(self._controller, time.time())

    def write(self, contents: bytes) -> None:
        """Replace the file. A failure is told once, until one succeeds: the proxy does without."""
        try:
            fd = os.open(self._new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
            with os.fdopen(fd, "wb") as file:
                os.fchmod(fd, 0o600)
                file.write(contents)
            self._new.replace(self.path)
        except OSError as error:
            if not self._failed:
                logger.warning("cannot keep what was learned file=%s: %s", self.path, error.strerror)
            self._failed = True
        else:
            self._failed = False


async def keep_up_to_date(files: Sequence[StateFile], stop: asyncio.Event) -> None:
    """Write ``files`` now and then, and a last time after ``stop``. A disk may be slow: a thread waits for it."""
    last = not files
    while not last:
        with suppress(TimeoutError):
            await asyncio.wait_for(stop.wait(), SAVE_EVERY_S)
        last = stop.is_set()  # what follows has all that was learned until then
        for file in files:
            await asyncio.to_thread(file.write, file.contents())
