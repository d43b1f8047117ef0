"""What KServe v2 costs in the codec: CPU time of each step, in one process. **Effects**: prints.

    python -m bench.micro.tensors [--elements 4] [--batch 32]

A request with one FP32 tensor of one row, a batch of such requests, and its reply with one output of three elements a
row; in JSON, in binary, and, to compare with, rows of KServe v1. The best of 40 runs is shown, for what else the
machine does only ever adds.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

from mlproxy.protocols import codec_for

RUNS = 40


class Form(NamedTuple):
    """A request and the reply to a batch of them; 0 bytes of JSON: all of it is."""

    protocol: str
    body: bytes
    json_bytes: int
    reply_headers: bytes
    reply: bytes


def _json_form(elements: int, batch: int) -> Form:
    data, answers = b",".join([b"0.123"] * elements), b",".join([b"0.123"] * 3 * batch)
    body = b'{"id":"a1","inputs":[{"name":"x","shape":[1,%d],"datatype":"FP32","data":[%b]}]}' % (elements, data)
    reply = b'{"model_name":"m","outputs":[{"name":"y","shape":[%d,3],"datatype":"FP32","data":[%b]}]}'
    return Form("kserve-v2", body, 0, b"", reply % (batch, answers))


def _binary_form(elements: int, batch: int) -> Form:
    tensor = b'[{"name":"%b","shape":[%d,%d],"datatype":"FP32","parameters":{"binary_data_size":%d}}]'
    text = b'{"id":"a1","inputs":%b}' % (tensor % (b"x", 1, elements, 4 * elements))
    answer = b'{"model_name":"m","outputs":%b}' % (tensor % (b"y", batch, 3, 12 * batch))
    headers = b"inference-header-content-length: %d\r\n" % len(answer)
    return Form("kserve-v2", text + bytes(4 * elements), len(text), headers, answer + bytes(12 * batch))


def _rows_form(elements: int, batch: int) -> Form:
    row, answer = b",".join([b"0.123"] * elements), b",".join([b"[0.123,0.123,0.123]"] * batch)
    return Form("kserve-v1", b'{"instances":[[%b]]}' % row, 0, b"", b'{"predictions":[%b]}' % answer)


def _best_us(step: Callable[[], object], times: int) -> float:
    best_ns = min(_spent_ns(step, times) for _ in range(RUNS))
    return best_ns / times / 1000


def _spent_ns(step: Callable[[], object], times: int) -> int:
    begun_ns = time.process_time_ns()
    for _ in range(times):
        step()
    return time.process_time_ns() - begun_ns


def _steps_us(form: Form, batch: int, times: int) -> Sequence[float]:
    """Of one request: parsing, joining, cutting the reply and rendering the answer."""
    codec = codec_for(form.protocol)
    parsed = codec.parse_request(form.body, 0, form.json_bytes)
    reply = codec.split_reply(form.reply_headers, form.reply)
    per_batch = max(1, times // batch)
    return (
        _best_us(lambda: codec.parse_request(form.body, 0, form.json_bytes), times),
        _best_us(lambda: codec.join(parsed.lane_key, [bytes(parsed.items)] * batch), per_batch) / batch,
        _best_us(lambda: codec.split_reply(form.reply_headers, form.reply), per_batch) / batch,
        _best_us(lambda: codec.render([(reply, batch // 2, 1)], parsed.own), times),
    )


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m bench.micro.tensors")
    parser.add_argument("--elements", type=int, default=4, help="of a row")
    parser.add_argument("--batch", type=int, default=32, help="requests per batch")
    parser.add_argument("--times", type=int, default=320, help="of each step in a run")
    arguments = parser.parse_args()
    print(f"{'CPU-us per request':20}" + "".join(f"{step:>10}" for step in ("parse", "join", "split", "render")))
    forms = {"v2, JSON": _json_form, "v2, binary": _binary_form, "v1": _rows_form}
    for name, form in forms.items():
        steps = _steps_us(form(arguments.elements, arguments.batch), arguments.batch, arguments.times)
        print(f"{name:20}" + "".join(f"{step:10.2f}" for step in steps))


if __name__ == "__main__":
    main()
