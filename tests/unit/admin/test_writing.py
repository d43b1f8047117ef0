"""What callers may send in place of an endpoint's block ends in a refusal, and none of it in the log."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from fastapi import HTTPException, Request

from mlproxy.config import Configuration
from workers.admin.writing import write_endpoint

CONFIGURATION = Configuration.model_validate({"endpoints": [{"name": "iris", "backend": {"urls": ["http://a"]}}]})


def refusal(*messages: dict[str, Any]) -> tuple[int, Any]:
    """Status and detail for a PUT that arrives as these ASGI messages."""
    coming = iter(messages)

    async def receive() -> dict[str, Any]:
        return next(coming)

    request = Request({"type": "http", "method": "PUT", "headers": []}, receive)
    with pytest.raises(HTTPException) as refused:
        asyncio.run(write_endpoint(CONFIGURATION, 0, request, lambda message: {}))
    return refused.value.status_code, refused.value.detail


def test_a_block_that_is_nested_beyond_what_can_be_validated_is_invalid() -> None:
    body = b'{"a":' * 1000 + b"1" + b"}" * 1000
    assert refusal({"type": "http.request", "body": body}) == (422, "the block is nested too deeply")


def test_a_caller_that_leaves_in_the_middle_of_its_block_is_no_defect() -> None:
    begun = {"type": "http.request", "body": b'{"na', "more_body": True}
    assert refusal(begun, {"type": "http.disconnect"}) == (400, "the body is not whole")
