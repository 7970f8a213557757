"""Requests between brokers: who proved nothing is told nothing."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Awaitable, Callable
from random import Random
from uuid import UUID

import pytest

from broker.cluster.channel import NotProved, Peers
from broker.cluster.messages import (
    AllocateProducerIds,
    CreateTopics,
    Decided,
    Hello,
    HelloBack,
    ProducerIdsGiven,
    Refusal,
    Registered,
    SetFeatureLevel,
    TopicsDecided,
)
from broker.cluster.proof import is_proof, proof_of_asked, proof_of_asking, secret_of
from broker.cluster.serving import PeerServer
from broker.cluster.wire import (
    INTERNAL_API_KEY,
    decode_answer,
    decode_request,
    encode_answer,
    encode_request,
    is_internal,
)
from broker.connection import Connection, ConnectionLimits
from broker.controller.topics import NewTopic
from broker.memory_pool import MemoryPool
from broker.outcome import Outcome
from broker.server import ListenAddress, Server
from protocol.api_versions import SERVED
from protocol.errors import ErrorCode, KafkaError, MalformedFrame
from s3stream.metadata.records import Endpoint, Position
from tests.simulation.loop import SimulatedLoop, start_on
from tests.simulation.network import SimulatedNetwork

WHERE = Endpoint("PLAINTEXT", "h1", 9092)
SECRET = secret_of(bytes(range(16)))


def secret(value: bytes) -> Callable[[], Awaitable[bytes]]:
    async def read() -> bytes:
        return value

    return read


class Asked:
    """A server of requests between brokers, and of nothing else."""

    def __init__(self, loop: SimulatedLoop) -> None:
        self.network = SimulatedNetwork(loop, Random(1))
        self.peers = PeerServer(secret(SECRET), Random(2))
        limits = ConnectionLimits(max_frame_bytes=1 << 20, idle_s=600.0, max_in_flight=10)
        self.server = Server(self.network.at("h1"), self, MemoryPool(1 << 24), limits, 100, 100)

    async def handle(self, connection: Connection, frame: memoryview) -> Outcome:
        return await self.peers.handle(connection, frame)

    async def start(self) -> None:
        await self.server.listen([ListenAddress("PLAINTEXT", "h1", 9092)])

    def asking(self, value: bytes = SECRET) -> Peers:
        return Peers(self.network.at("h2"), secret(value), Random(3))


def run(body: Callable[[Asked], Awaitable[None]]) -> None:
    loop = SimulatedLoop(1)

    async def main() -> None:
        asked = Asked(loop)
        await start_on("n1", asked.start())
        await body(asked)
        await asked.server.abort()

    loop.run(main())


def test_brokers_that_can_read_the_bucket_prove_it_to_each_other_and_are_served() -> None:
    async def body(asked: Asked) -> None:
        async def give(request: AllocateProducerIds) -> ProducerIdsGiven:
            return ProducerIdsGiven(request.incarnation, 1000, Position(0, 1, 2))

        async def refuse(request: SetFeatureLevel) -> Decided:
            raise KafkaError(ErrorCode.INVALID_UPDATE_VERSION, "no such level")

        asked.peers.serve(AllocateProducerIds, give)
        asked.peers.serve(SetFeatureLevel, refuse)
        channel = await asked.asking().open(WHERE)
        given = await channel.call(AllocateProducerIds(7), ProducerIdsGiven, 1.0)
        assert given == ProducerIdsGiven(7, 1000, Position(0, 1, 2))
        with pytest.raises(KafkaError, match="INVALID_UPDATE_VERSION: no such level"):
            await channel.call(SetFeatureLevel("f", 1), Decided, 1.0)
        with pytest.raises(KafkaError, match="NOT_CONTROLLER"):
            await channel.call(CreateTopics([]), TopicsDecided, 1.0)
        assert channel.is_open, "refusals cost no connection"
        channel.close()

    run(body)


def test_who_does_not_know_the_secret_finds_nobody_and_is_served_nothing() -> None:
    async def body(asked: Asked) -> None:
        with pytest.raises(NotProved):
            await asked.asking(secret_of(b"another cluster.")).open(WHERE)

    run(body)


@pytest.mark.parametrize("lie", [b"", b"x" * 32], ids=["no proof", "a wrong one"])
def test_a_request_without_a_proof_closes_the_connection(lie: bytes) -> None:
    class Raw(asyncio.Protocol):
        def __init__(self) -> None:
            self.received = b""
            self.closed = asyncio.Event()

        def data_received(self, data: bytes) -> None:
            self.received += data

        def connection_lost(self, exc: Exception | None) -> None:
            self.closed.set()

    async def body(asked: Asked) -> None:
        from broker.cluster.messages import Prove

        raw = Raw()
        transport, _ = await asked.network.at("h2").connect("h1", 9092, lambda: raw)
        assert isinstance(transport, asyncio.Transport)
        if lie:
            transport.write(encode_request(1, Hello(bytes(16))))
            transport.write(encode_request(2, Prove(lie)))
        else:
            transport.write(encode_request(1, AllocateProducerIds(7)))
        await asyncio.wait_for(raw.closed.wait(), 5)
        if lie:
            (size,) = struct.unpack_from(">i", raw.received)
            assert len(raw.received) == 4 + size, "the answer to hello, and nothing more"
        else:
            assert raw.received == b""

    run(body)


def test_one_side_can_not_be_made_to_answer_its_own_question() -> None:
    asking, asked = bytes(16), bytes(range(16))
    proofs = {
        proof_of_asked(SECRET, asking, asked),
        proof_of_asking(SECRET, asking, asked),
        proof_of_asked(SECRET, asked, asking),
        proof_of_asking(SECRET, asked, asking),
    }
    assert len(proofs) == 4
    assert not is_proof(b"", proofs.pop())


def test_a_lost_connection_fails_what_waits_and_nobody_knows_what_became_of_it() -> None:
    async def body(asked: Asked) -> None:
        never = asyncio.Event()

        async def wait(request: AllocateProducerIds) -> ProducerIdsGiven:
            await never.wait()
            raise AssertionError

        asked.peers.serve(AllocateProducerIds, wait)
        channel = await asked.asking().open(WHERE)
        call = asyncio.create_task(channel.call(AllocateProducerIds(7), ProducerIdsGiven, 60.0))
        await asyncio.sleep(0.1)
        asked.network.cut_all()
        with pytest.raises(OSError, match="lost"):
            await call
        assert not channel.is_open
        channel = await asked.asking().open(WHERE)
        with pytest.raises(TimeoutError):
            await channel.call(AllocateProducerIds(7), ProducerIdsGiven, 0.5)
        assert not channel.is_open, "a late answer must not be taken for the next one's"

    run(body)


def test_frames_say_what_was_said_and_their_key_is_no_kafka_api() -> None:
    request = CreateTopics([NewTopic("t", 3, assignments=[(0, [1, 2])], configs={"a": None})])
    frame = memoryview(encode_request(9, request))[4:]
    assert is_internal(frame)
    assert INTERNAL_API_KEY not in SERVED
    assert decode_request(frame) == (9, request)
    answer = TopicsDecided([(None, Refusal(36, "there", "x"))], Position(1, 2, 3))
    assert decode_answer(encode_answer(9, answer)[4:]) == (9, answer)
    assert UUID(int=1).bytes != b""
    for cut in range(len(frame)):
        if cut > 8:
            with pytest.raises(MalformedFrame):
                decode_request(frame[:cut])


def test_a_field_of_a_later_version_is_skipped() -> None:
    import msgspec

    at = Position(1, 2, 3)
    newer = msgspec.msgpack.encode(
        {"t": "registered", "node_id": 1, "incarnation": 2, "process": b"p", "at": at, "new": 1}
    )
    frame = struct.pack(">ih", 4, 1) + newer
    assert decode_answer(frame) == (4, Registered(1, 2, b"p", at))
    assert not isinstance(decode_answer(frame)[1], HelloBack)
