"""When a connection reads on. **Effects**: pauses and resumes its transport."""

from __future__ import annotations

from typing import TYPE_CHECKING

from uvicorn.protocols.http.flow_control import FlowControl

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Sized


class Flow(FlowControl):
    """Uvicorn's, which reads on only while nothing waits: neither requests behind another, nor answers.

    So one connection holds one read's worth of requests at most, whoever wishes to read: Uvicorn does each time that
    an application asks whether its caller is still there.
    """

    def __init__(self, transport: asyncio.Transport, pipeline: Sized) -> None:
        super().__init__(transport)
        self._pipeline = pipeline

    def resume_reading(self) -> None:
        if self.read_paused and not self._pipeline and not self.write_paused and not self._transport.is_closing():
            super().resume_reading()
