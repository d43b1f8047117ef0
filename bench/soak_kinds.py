"""The kinds of callers in a soak, ordinary, rude and broken, and how often each comes. **Effects.**"""

from __future__ import annotations

import asyncio
import contextlib

from bench.soak_caller import Caller, Kind, Wrong


async def plain(caller: Caller) -> None:
    """A few predictions on one connection."""
    connection = await caller.open()
    for _ in range(caller.rng.randint(1, 5)):
        instances = caller.instances(caller.rng.choice((1, 1, 1, 2, 3)))
        connection.send(caller.request(instances))
        await caller.expect(connection, instances)


async def oversized(caller: Caller) -> None:
    """More instances than a batch takes."""
    instances = caller.instances(caller.rng.randint(9, 40))
    connection = await caller.open()
    connection.send(caller.request(instances))
    await caller.expect(connection, instances)


async def large(caller: Caller) -> None:
    """A body larger than a ring."""
    instances = caller.instances(2, padding=caller.rng.randint(20_000, 90_000))
    connection = await caller.open()
    connection.send(caller.request(instances))
    await caller.expect(connection, instances)


async def poisonous(caller: Caller) -> None:
    """The backend refuses it, and with it whoever shares its batch."""
    instances = caller.instances(poison=True)
    connection = await caller.open()
    connection.send(caller.request(instances))
    await caller.expect(connection, instances, "relayed-400")


async def hurried(caller: Caller) -> None:
    """Little time."""
    instances = caller.instances()
    connection = await caller.open()
    connection.send(caller.request(instances, b"X-Request-Timeout-Ms: %d" % caller.rng.randint(1, 60)))
    await caller.expect(connection, instances, "deadline-exceeded")


async def urgent(caller: Caller) -> None:
    """With a priority, the same one each time or not."""
    connection = await caller.open()
    for _ in range(caller.rng.randint(1, 4)):
        instances = caller.instances(caller.rng.choice((1, 1, 12)))
        connection.send(caller.request(instances, b"X-MLProxy-Priority: %d" % caller.rng.randint(1, 2)))
        await caller.expect(connection, instances)


async def compressed(caller: Caller) -> None:
    """Compressed, a plain one in between."""
    connection = await caller.open()
    for coding in ("gzip", "", "deflate"):
        instances = caller.instances(2, padding=caller.rng.choice((0, 5000)))
        connection.send(caller.request(instances, coding=coding, chunked=caller.rng.choice((0, 20))))
        await caller.expect(connection, instances)


async def leaving(caller: Caller) -> None:
    """Gone before the answer, perhaps in the middle of the body."""
    connection = await caller.open()
    data = caller.request(caller.instances(caller.rng.choice((1, 20)), padding=caller.rng.choice((0, 5000))))
    connection.send(data if caller.rng.random() < 0.7 else data[: caller.rng.randrange(len(data))])
    await asyncio.sleep(caller.rng.uniform(0, 0.03))
    connection.leave()


async def slow(caller: Caller) -> None:
    """In small pieces."""
    instances = caller.instances()
    connection = await caller.open()
    data = caller.request(instances)
    for start in range(0, len(data), 40):
        connection.send(data[start : start + 40])
        await asyncio.sleep(0.05)
    await caller.expect(connection, instances)


async def pipelining(caller: Caller) -> None:
    """Several at once, with something that passes through between them."""
    connection, batch = await caller.open(), []
    data = []
    for _ in range(caller.rng.randint(2, 8)):
        batch.append(instances := caller.instances())
        data += [caller.request(instances), b"GET /v1/models/a/x HTTP/1.1\r\nHost: soak\r\n\r\n"]
    connection.send(b"".join(data))
    for instances in batch:
        await caller.expect(connection, instances)
        status, _, body = await connection.response()
        if (status, body) != (200, b'{"path":"/v1/models/a/x"}') and status != 502:
            raise Wrong(f"passed through: {status} {body[:200]!r}")


async def chunked(caller: Caller) -> None:
    """Chunks with extensions and trailers, after 100 Continue."""
    instances = caller.instances(2)
    connection = await caller.open()
    connection.send(caller.request(instances, b"Expect: 100-continue", chunked=caller.rng.randint(1, 50)))
    await caller.expect(connection, instances)


async def ancient(caller: Caller) -> None:
    """HTTP/1.0, which ends with its answer."""
    instances = caller.instances()
    connection = await caller.open()
    connection.send(caller.request(instances, version=b"1.0"))
    await caller.expect(connection, instances)
    if await connection.reader.read(1):
        raise Wrong("an HTTP/1.0 connection goes on")


_HEAD = b"POST /v1/models/a:predict HTTP/1.1\r\nHost: soak\r\n"
GARBAGE = (
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    b"GET / HTTP/9.9\r\n\r\n",
    _HEAD + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    _HEAD + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\n[1234]",
    _HEAD + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    _HEAD + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n",
    _HEAD + b"Content-Length: 3\r\n\r\n{[}",
    b"POST /v1/models/a:predict HTTP/1.1\r\nHost : s\r\nContent-Length: -1\r\n\r\n",
    b"GET /v1/models/a HTTP/1.1\r\nHost: s\r\nX: " + b"y" * 40_000 + b"\r\n\r\n",
    bytes(range(256)),
)


async def garbage(caller: Caller) -> None:
    """A good request, and something that is none right behind it: the first gets its answer."""
    instances = caller.instances()
    connection = await caller.open()
    connection.send(caller.request(instances) + caller.garbage(caller.rng.choice(GARBAGE)))
    await caller.expect(connection, instances)
    with contextlib.suppress(ConnectionResetError):
        rest = await connection.reader.read(4096)
        if b" 200 " in rest[:20]:
            raise Wrong(f"garbage was answered {rest[:200]!r}")


async def deaf(caller: Caller) -> None:
    """Asks and never reads."""
    connection = await caller.open(receive_bytes=2048)
    connection.send(b"".join(caller.request(caller.instances(1, padding=4000)) for _ in range(10)))
    await asyncio.sleep(1)
    connection.leave()


#: How often each kind comes, relative to the others.
MIX: dict[Kind, int] = {
    plain: 60, oversized: 6, large: 4, poisonous: 1, hurried: 6, leaving: 6, slow: 1, pipelining: 3, chunked: 4,
    ancient: 3, garbage: 4, deaf: 1, urgent: 6, compressed: 4,
}  # fmt: skip
