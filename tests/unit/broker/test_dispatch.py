"""Frames that no client would send: nothing escapes, nothing hangs, the broker goes on."""

from __future__ import annotations

import asyncio
import logging
import struct
from random import Random
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from broker.outcome import CloseConnection, Deferred, WhenDone
from protocol import codec
from protocol.api_versions import SERVED, ApiKey
from protocol.errors import MalformedFrame

from .api.requests import fetch, produce
from .node_rig import Rig, batch, run

# A fetch may ask to wait for 25 days, and gets that; so may who joins a group.
PATIENCE_S = 2.0**31 / 1000 + 3600


def header(key: int, version: int) -> bytes:
    flexible = codec.request_class(key).flexible_version_q(version)
    return struct.pack(">hhih", key, version, 7, 1) + b"c" + (b"\x00" if flexible else b"")


def sound(key: int, version: int, rng: Random) -> bytes:
    """A request that decodes, mostly of default values."""
    request: Any
    if key == ApiKey.PRODUCE:
        request = produce([("t", 0, batch(rng.randrange(1, 4)))], acks=rng.choice([-1, 0, 1]))
    elif key == ApiKey.FETCH:
        request = fetch([("t", 0, rng.randrange(3))], max_wait_ms=rng.randrange(50))
    else:
        request = codec.request_class(key)(version=version)
    body: bytes = request.encode(version=version)
    return body


def mangled(body: bytes, rng: Random) -> bytes:
    data = bytearray(body)
    match rng.randrange(6):
        case 0:
            return bytes(rng.randbytes(rng.randrange(200)))
        case 1:
            return bytes(data[: rng.randrange(len(data) + 1)])
        case 2:
            return bytes(data) + rng.randbytes(rng.randrange(50))
        case 3 if data:
            at = rng.randrange(len(data))
            data[at : at + 4] = rng.choice(
                [b"\x7f\xff\xff\xff", b"\xff\xff\xff\xff", b"\x80\x00\x00\x00", b"\xff\xff\xff\x0f"]
            )
            return bytes(data)
        case _:
            for _ in range(rng.randrange(4) if data else 0):
                data[rng.randrange(len(data))] = rng.randrange(256)
            return bytes(data)


async def handled(rig: Rig, connection: Any, frame: bytes) -> list[Any] | None:
    """The answer; None for none, or a closed connection."""
    try:
        async with asyncio.timeout(PATIENCE_S):
            outcome = await rig.node.handle(connection, memoryview(bytearray(frame)))
            if isinstance(outcome, Deferred):
                return await outcome.finish
            if isinstance(outcome, WhenDone):
                await asyncio.wait(outcome.until, timeout=PATIENCE_S / 2)
                return outcome.finish()
            return outcome
    except (MalformedFrame, CloseConnection):
        return None


class _Held:
    """Stands for a connection: what handlers use of it."""

    listener = "PLAINTEXT"
    client_host, client_port = "10.0.0.9", 1
    principal = "User:ANONYMOUS"
    client_software = ("fuzz", "1")

    def __init__(self) -> None:
        self.grants: list[Any] = []

    def hold(self, grant: Any) -> None:
        self.grants.append(grant)


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.integers(0, 2**32))
def test_arbitrary_requests_are_answered_or_close_their_connection(seed: int) -> None:
    rng = Random(seed)
    logging.getLogger("broker").setLevel(logging.CRITICAL + 1)

    async def body(rig: Rig) -> None:
        await rig.topic()
        connection = _Held()
        for _ in range(250):
            key, versions = rng.choice(sorted(SERVED.items()))
            version = rng.randint(versions[0], versions[1])
            data = header(key, version) + mangled(sound(key, version, rng), rng)
            answer = await handled(rig, connection, data)
            if answer is not None:
                whole = b"".join(answer)
                assert struct.unpack_from(">ii", whole) == (len(whole) - 4, 7)
            for grant in connection.grants:
                grant.release()
            connection.grants.clear()
        assert rig.node.services.responses.used_bytes == 0
        assert await rig.client().ask(produce([("t", 0, batch())]), 9)

    try:
        run(body)
    finally:
        logging.getLogger("broker").setLevel(logging.NOTSET)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.binary(max_size=40), max_size=20))
def test_arbitrary_frames_close_or_are_answered(frames: list[bytes]) -> None:
    async def body(rig: Rig) -> None:
        for data in frames:
            await handled(rig, _Held(), data)

    run(body)


@pytest.mark.parametrize("key", sorted(SERVED))
def test_every_request_of_default_values_is_answered_without_an_unforeseen_error(
    key: ApiKey, caplog: pytest.LogCaptureFixture
) -> None:
    async def body(rig: Rig) -> None:
        first, last = SERVED[key]
        for version in range(first, last + 1):
            if key == ApiKey.PRODUCE and version < 3:
                continue
            request = codec.request_class(key)(version=version)
            data = header(key, version) + request.encode(version=version)
            assert await handled(rig, _Held(), data) is not None or key == ApiKey.PRODUCE, version
        assert not [r for r in caplog.records if r.exc_info], "an exception was logged"

    run(body)


def test_what_is_not_served_closes_but_for_the_question_what_is() -> None:
    async def body(rig: Rig) -> None:
        for key, version in ((0, 99), (1, 0), (3, 99), (4, 0), (999, 0), (-1, 0)):
            with pytest.raises(MalformedFrame):
                frame = struct.pack(">hhih", key, version, 7, -1) + bytes(30)
                await rig.node.handle(_Held(), memoryview(bytearray(frame)))  # type: ignore[arg-type]
        frame = struct.pack(">hhih", 18, 99, 7, -1) + bytes(30)
        answer = await handled(rig, _Held(), frame)
        assert answer is not None
        whole = b"".join(answer)
        assert struct.unpack_from(">iih", whole) == (len(whole) - 4, 7, 35)

    run(body)


def test_a_request_that_comes_before_its_time_waits_for_it() -> None:
    async def body(rig: Rig) -> None:
        rig.node._serving.clear()
        client = rig.client()
        client.send(fetch([("none", 0, 0)]), 12)
        await asyncio.sleep(5)
        assert client.transport.sent == b""
        rig.node._serving.set()
        await asyncio.sleep(0.1)
        assert len(client.answers(1, 12)) == 1

    run(body)
