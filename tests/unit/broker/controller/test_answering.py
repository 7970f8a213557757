from __future__ import annotations

import asyncio
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.controller.answering import STARTING_CLIENT_ID, _parse, broker_answers
from protocol.header import decode_request_header
from s3stream.metadata.records import Endpoint

from .network_double import NetworkDouble

CLUSTER = "xLuGw9HEJxA8NExBiesvHg"


def answer_of(cluster_id: str) -> bytes:
    body = struct.pack(">ibih", 1, 0, 0, 0) + b"\x00"
    body += bytes([len(cluster_id) + 1]) + cluster_id.encode() + b"\x00\x00\x00\x00\x01\x01\x00"
    return struct.pack(">i", len(body)) + body


class Peer(asyncio.Protocol):
    """Answers whatever comes with fixed bytes, in pieces; None: never."""

    def __init__(self, answer: bytes | None, requests: list[bytes]) -> None:
        self.answer = answer
        self.requests = requests

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.requests.append(data)
        if self.answer == b"":
            self.transport.close()
        elif self.answer is not None:
            for start in range(0, len(self.answer), 5):
                self.transport.write(self.answer[start : start + 5])


def asks(answer: bytes | None, *, port: int = 9092, requests: list[bytes] | None = None) -> bool:
    async def main() -> bool:
        network = NetworkDouble()
        seen: list[bytes] = [] if requests is None else requests
        await network.listen("h", 9092, lambda: Peer(answer, seen))
        return await broker_answers(network, [Endpoint("PLAINTEXT", "h", port)], CLUSTER, 0.05)

    return asyncio.run(main())


def test_a_broker_of_the_same_cluster_answers() -> None:
    assert asks(answer_of(CLUSTER)) is True


@pytest.mark.parametrize(
    "answer",
    [
        answer_of("another-cluster-id-222"),
        b"HTTP/1.1 400 Bad Request\r\n\r\n",
        b"\x7f\xff\xff\xff",
        b"\x00\x00\x00\x00",
        b"",
        None,
    ],
    ids=["another-cluster", "http", "absurd-length", "empty-frame", "hangs-up", "says-nothing"],
)
def test_whoever_else_has_the_port_is_not_our_broker(answer: bytes | None) -> None:
    assert asks(answer) is False


def test_a_refused_connection_is_no_answer() -> None:
    assert asks(answer_of(CLUSTER), port=9093) is False


def test_the_question_is_a_well_formed_request_under_its_own_name() -> None:
    requests: list[bytes] = []
    asks(answer_of(CLUSTER), requests=requests)
    (request,) = requests
    assert struct.unpack(">i", request[:4])[0] == len(request) - 4
    header = decode_request_header(memoryview(request)[4:])
    assert (header.api_key, header.api_version) == (60, 0)
    assert header.client_id == STARTING_CLIENT_ID


@given(st.binary(max_size=80))
def test_no_answer_makes_the_parser_fail(answer: bytes) -> None:
    found = _parse(answer)
    assert found is None or isinstance(found, str)


@given(st.binary(max_size=60))
def test_nor_does_one_that_begins_well(rest: bytes) -> None:
    _parse(struct.pack(">ibih", 1, 0, 0, 0) + rest)
