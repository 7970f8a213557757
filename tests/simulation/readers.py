"""Clients that read: by fetch sessions, and as members of a consumer group."""

from __future__ import annotations

import asyncio
import struct
from random import Random
from typing import Any

from protocol import messages as m
from protocol.batch_header import iter_headers
from protocol.errors import ErrorCode

from .checkers import Violation
from .client import Disconnected
from .workload import REQUEST_TIMEOUT_S, Client, Topic, World

EARLIEST = -2
LATEST = -1
NO_MEMBER = ""


class Reader(Client):
    """Follows partitions by a fetch session, and now and then goes back to read history again.

    positions: what it reads next, by topic and partition.
    """

    def __init__(
        self,
        world: World,
        name: str,
        rng: Random,
        targets: list[tuple[Topic, int]],
        *,
        rewinds: float = 0.03,
        pace_s: float = 0.05,
    ) -> None:
        super().__init__(world, name, rng)
        self.positions: dict[tuple[str, int], int] = {(t.name, i): 0 for t, i in targets}
        self._topics = {t.name: t for t, _ in targets}
        self._rewinds = rewinds
        self._pace_s = pace_s
        self._version = rng.choice((4, 7, 11, 12, 13, 15, 17))
        self._session = (0, 0)
        self._told: dict[tuple[str, int], int] = {}
        self._out_of_range: list[tuple[str, int]] = []

    async def run(self) -> None:
        while not self.stopping:
            await self.world.busy.wait()
            try:
                await self.poll()
            except Disconnected:
                self._session = (0, 0)
            if self.rng.random() < self._rewinds:
                key = self.rng.choice(list(self.positions))
                start = self.history.at(self._place(key)).start_told
                self.positions[key] = self.rng.randint(
                    min(start, self.positions[key]), self.positions[key]
                )
                self.history.counted["rewound"] += 1
            await self.rest(self._pace_s)

    def _place(self, key: tuple[str, int]) -> Any:
        return self._topics[key[0]].place(key[1])

    async def poll(self, max_wait_ms: int = 300) -> None:
        """One fetch, judged. Raises Disconnected."""
        connection = await self.connected()
        session_id, epoch = self._session
        incremental = epoch > 0
        wanted = {
            key: offset
            for key, offset in self.positions.items()
            if not incremental or self._told.get(key) != offset
        }
        request = self._request(wanted, session_id, epoch, max_wait_ms)
        floors = {
            key: (
                self.history.at(self._place(key)).floor,
                self.history.at(self._place(key)).start_told,
            )
            for key in self.positions
        }
        asked_at, asked = self.loop.time(), dict(self.positions)
        answer = await connection.call(
            request, self._version, REQUEST_TIMEOUT_S + max_wait_ms / 1000
        )
        if self._version >= 7 and answer.error_code:
            code = ErrorCode(answer.error_code)
            if code not in (
                ErrorCode.FETCH_SESSION_ID_NOT_FOUND,
                ErrorCode.INVALID_FETCH_SESSION_EPOCH,
                ErrorCode.FETCH_SESSION_TOPIC_ID_ERROR,
            ):
                raise Violation(f"{self.name}: the fetch was answered with {code.name}")
            self._session = (0, 0)
            return
        if self._version >= 7 and answer.session_id:
            self._session = (answer.session_id, epoch + 1)
            self._told = asked
            self.history.counted["in session"] += incremental
        else:
            self._session = (0, 0)
        stale = self.stale(asked_at)
        for topic in answer.responses:
            name = self._name_of(topic)
            for one in topic.partitions:
                self._judge((name, one.partition_index), one, asked, floors, stale)
        while self._out_of_range:
            key = self._out_of_range[-1]
            start = await list_offset(self, key, EARLIEST)
            if start is None:
                return
            self._out_of_range.pop()
            self.positions[key] = start

    def _judge(
        self,
        key: tuple[str, int],
        one: Any,
        asked: dict[tuple[str, int], int],
        floors: dict[tuple[str, int], tuple[int, int]],
        stale: bool,
    ) -> None:
        place, offset = self._place(key), asked[key]
        if one.error_code == ErrorCode.OFFSET_OUT_OF_RANGE:
            self.history.out_of_range(place, offset)
            self.history.counted["out of range"] += 1
            self._out_of_range.append(key)
            return
        if self.retry(one.error_code, f"fetch of {key} from {offset}"):
            self._session = (0, 0)
            return
        floor, start_floor = floors[key]
        self.history.high_watermark(place, one.high_watermark, floor, stale)
        if self._version >= 5:
            self.history.log_start(place, one.log_start_offset, start_floor, stale)
        if one.records:
            self.positions[key] = self.history.read(
                place, offset, memoryview(one.records), one.high_watermark
            )
            self.note(key, memoryview(one.records))

    def note(self, key: tuple[str, int], records: memoryview) -> None:
        """For who keeps what it reads."""

    def _name_of(self, topic: Any) -> str:
        if self._version < 13:
            return str(topic.topic)
        return next(t.name for t in self._topics.values() if t.id == topic.topic_id)

    def _request(
        self, wanted: dict[tuple[str, int], int], session_id: int, epoch: int, max_wait_ms: int
    ) -> Any:
        small = self.rng.random() < 0.2
        topics: dict[str, Any] = {}
        for (name, index), offset in wanted.items():
            topic = topics.get(name)
            if topic is None:
                topic = topics[name] = m.FetchRequest.FetchTopic(
                    topic=name, topic_id=self._topics[name].id, partitions=[]
                )
            topic.partitions.append(
                m.FetchRequest.FetchTopic.FetchPartition(
                    partition=index,
                    current_leader_epoch=-1,
                    fetch_offset=offset,
                    last_fetched_epoch=-1,
                    log_start_offset=-1,
                    partition_max_bytes=300 if small else 1 << 20,
                )
            )
        return m.FetchRequest(
            max_wait_ms=max_wait_ms,
            min_bytes=1,
            max_bytes=1000 if small else 1 << 20,
            isolation_level=self.rng.randrange(2),
            session_id=session_id,
            session_epoch=epoch,
            topics=list(topics.values()),
            forgotten_topics_data=[],
            rack_id="",
        )


LATE_LOOKS = 100


class WholeReader(Reader):
    """Reads partitions from their start to their end, for the last check of all."""

    def __init__(
        self, world: World, name: str, rng: Random, targets: list[tuple[Topic, int]]
    ) -> None:
        super().__init__(world, name, rng, targets, rewinds=0)
        self._version = 12
        self.batches: dict[tuple[str, int], list[tuple[int, int]]] = {
            key: [] for key in self.positions
        }
        self.starts: dict[tuple[str, int], int] = {}

    async def read_all(self) -> None:
        ends: dict[tuple[str, int], int] = {}
        for key in self.positions:
            self.starts[key] = self.positions[key] = await self._bound(key, EARLIEST)
            ends[key] = await self._bound(key, LATEST)
        looks = 0
        while any(self.positions[key] < end for key, end in ends.items()):
            await self._look()
        # A request that a client gave up may have waited somewhere, and be carried out only now.
        while looks < LATE_LOOKS and any(
            self.positions[key] < self.history.at(self._place(key)).floor for key in ends
        ):
            looks += 1
            await self._look()
        for key, batches in self.batches.items():
            self.history.check_whole(self._place(key), batches, self.starts[key])

    async def _look(self) -> None:
        try:
            await self.poll(0)
        except Disconnected:
            self._session = (0, 0)

    def note(self, key: tuple[str, int], records: memoryview) -> None:
        found = self.batches[key]
        for _, header in iter_headers(records):
            if found and header.base_offset < found[-1][1]:
                continue
            if header.base_offset > (found[-1][1] if found else self.starts[key]):
                # Retention went by while this was reading, as `out_of_range` has made sure.
                found.clear()
                self.starts[key] = header.base_offset
            found.append((header.base_offset, header.last_offset + 1))

    async def _bound(self, key: tuple[str, int], timestamp: int) -> int:
        while True:
            try:
                found = await list_offset(self, key, timestamp)
            except Disconnected:
                continue
            if found is not None:
                return found
            await self.rest(0.1)


async def list_offset(client: Client, key: tuple[str, int], timestamp: int) -> int | None:
    """None: try again. Raises Disconnected."""
    topic_class = m.ListOffsetsRequest.ListOffsetsTopic
    request = m.ListOffsetsRequest(
        replica_id=-1,
        isolation_level=0,
        topics=[
            topic_class(
                name=key[0],
                partitions=[
                    topic_class.ListOffsetsPartition(
                        partition_index=key[1], current_leader_epoch=-1, timestamp=timestamp
                    )
                ],
            )
        ],
        timeout_ms=2000,
    )
    answer = await client.call(request, client.rng.choice((2, 5, 7, 10)))
    told = answer.topics[0].partitions[0]
    if client.retry(told.error_code, f"ListOffsets of {key}"):
        return None
    return int(told.offset)


class Committer(Reader):
    """Reads and commits, as the one member of a group; or for a group without members, and then it
    commits numbers of its own.

    Now and then it forgets everything, joins anew and goes on from the committed offsets.
    """

    def __init__(
        self,
        world: World,
        name: str,
        rng: Random,
        targets: list[tuple[Topic, int]],
        *,
        member: bool,
    ) -> None:
        super().__init__(world, name, rng, targets, rewinds=0)
        self._member = member
        self._group = f"group-{name}"
        self._member_id = NO_MEMBER
        self._generation = -1
        self._committed = 0

    async def run(self) -> None:
        while not self.stopping:
            try:
                if not await self._join() or not await self.fetch_offsets():
                    await self.rest(0.2)
                    continue
                while not self.stopping and self.rng.random() > 0.03:
                    await self.world.busy.wait()
                    # Mostly reading and committing; often enough the commit is what is under way
                    # when the broker dies.
                    if self.rng.random() < 0.7:
                        await self.poll(100)
                    if not await self._commit():
                        break
                    await self.rest(0.15)
            except Disconnected:
                self._session = (0, 0)

    async def _find(self) -> bool:
        """Ask for the coordinator, which makes the internal topic where there is none yet."""
        request = m.FindCoordinatorRequest(
            key=self._group, key_type=0, coordinator_keys=[self._group]
        )
        version = self.rng.choice((1, 2, 3, 4, 5))
        answer = await self.call(request, version, 6.0)
        told = answer.coordinators[0] if version >= 4 else answer
        return not self._left(told.error_code)

    async def _join(self) -> bool:
        if not await self._find():
            return False
        if not self._member:
            return True
        request = m.JoinGroupRequest(
            group_id=self._group,
            session_timeout_ms=2_000,
            rebalance_timeout_ms=2_000,
            member_id=self._member_id,
            group_instance_id=None,
            protocol_type="consumer",
            protocols=[
                m.JoinGroupRequest.JoinGroupRequestProtocol(
                    name="range", metadata=_subscription(*self._topics)
                )
            ],
            reason="simulated",
        )
        answer = await self.call(request, 7, 6.0)
        if answer.error_code == ErrorCode.MEMBER_ID_REQUIRED:
            self._member_id = answer.member_id
            return False
        if self._left(answer.error_code):
            return False
        self._member_id, self._generation = answer.member_id, answer.generation_id
        leads = answer.leader == answer.member_id
        sync = m.SyncGroupRequest(
            group_id=self._group,
            generation_id=self._generation,
            member_id=self._member_id,
            group_instance_id=None,
            protocol_type="consumer",
            protocol_name="range",
            assignments=[
                m.SyncGroupRequest.SyncGroupRequestAssignment(
                    member_id=one.member_id, assignment=b"simulated"
                )
                for one in answer.members
            ]
            if leads
            else [],
        )
        return not self._left((await self.call(sync, 5, 6.0)).error_code)

    def _left(self, code: int) -> bool:
        """True for an error after which a member joins again."""
        if code in (
            ErrorCode.UNKNOWN_MEMBER_ID,
            ErrorCode.ILLEGAL_GENERATION,
            ErrorCode.REBALANCE_IN_PROGRESS,
        ):
            if code == ErrorCode.UNKNOWN_MEMBER_ID:
                self._member_id = NO_MEMBER
            self.history.counted[f"told {ErrorCode(code).name}"] += 1
            return True
        return self.retry(code, f"group {self._group}")

    async def fetch_offsets(self) -> bool:
        """Go on from what was committed; False: try again. Raises Disconnected."""
        floors = {
            key: self.history.last_committed(self._group, self._place(key))
            for key in self.positions
        }
        asked_at = self.loop.time()
        topic_class = m.OffsetFetchRequest.OffsetFetchRequestTopic
        request = m.OffsetFetchRequest(
            group_id=self._group,
            topics=[
                topic_class(
                    name=name, partition_indexes=[i for n, i in self.positions if n == name]
                )
                for name in self._topics
            ],
            require_stable=True,
        )
        answer = await self.call(request, self.rng.choice((5, 7)))
        if self._left(answer.error_code):
            return False
        for topic in answer.topics:
            for one in topic.partitions:
                if self._left(one.error_code):
                    return False
                key = (topic.name, one.partition_index)
                self.history.committed_read(
                    self._group,
                    self._place(key),
                    one.committed_offset,
                    floors[key],
                    self.stale(asked_at),
                )
                if self._member:
                    self.positions[key] = max(one.committed_offset, 0)
        return True

    async def _commit(self) -> bool:
        topic_class = m.OffsetCommitRequest.OffsetCommitRequestTopic
        offsets = dict(self.positions)
        if not self._member:
            # So that each commit tells something new, also while nothing new can be read.
            self._committed += 1
            offsets = dict.fromkeys(offsets, self._committed)
        for key, offset in offsets.items():
            self.history.committing(self._group, self._place(key), offset)
        request = m.OffsetCommitRequest(
            group_id=self._group,
            generation_id_or_member_epoch=self._generation,
            member_id=self._member_id,
            group_instance_id=None,
            retention_time_ms=-1,
            topics=[
                topic_class(
                    name=name,
                    partitions=[
                        topic_class.OffsetCommitRequestPartition(
                            partition_index=index,
                            committed_offset=offset,
                            committed_leader_epoch=-1,
                            committed_metadata="",
                        )
                        for (of, index), offset in offsets.items()
                        if of == name
                    ],
                )
                for name in self._topics
            ],
        )
        answer = await self.call(request, self.rng.choice((2, 6, 8)), 8.0)
        good = True
        for topic in answer.topics:
            for one in topic.partitions:
                if self._left(one.error_code):
                    good = False
                else:
                    key = (topic.name, one.partition_index)
                    self.history.committed(self._group, self._place(key), offsets[key])
        return good


def _subscription(*topics: str) -> bytes:
    names = b"".join(struct.pack(">h", len(t)) + t.encode() for t in topics)
    return struct.pack(">hi", 0, len(topics)) + names + struct.pack(">i", -1)


async def patiently(act: Any, rest_s: float = 0.1) -> Any:
    """Call `act` until it returns something true."""
    while True:
        try:
            if result := await act():
                return result
        except Disconnected:
            pass
        await asyncio.sleep(rest_s)
