"""Answers of one batch in one record: whatever their number and length, each comes out as it went in."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from mlproxy.ipc.records import pack_answers, unpack_answers


@given(st.lists(st.tuples(st.integers(0, 2**64 - 1), st.binary(max_size=300)), max_size=300))
def test_answers_come_out_as_they_went_in(answers: list[tuple[int, bytes]]) -> None:
    packed = pack_answers([request_id for request_id, _ in answers], [body for _, body in answers])
    assert list(unpack_answers(len(answers), packed)) == answers
