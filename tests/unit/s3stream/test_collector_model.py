"""Rounds of deletion against everything that moves references about, in random order.

Brokers upload, compact, hand streams over, die and are taken over while a collector lists, begins
rounds, sleeps, decides and deletes. The decision, the counted references and the settled numbers
are the real ones (`garbage.Round`, `References`, `ObjectNumbers`); logs and stores are sets here.

Held throughout: nothing that a stream's chain reaches is ever deleted. In the end: once all is
quiet, nothing is left that no chain reaches. Each rule taken away loses data in some walk.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random
from uuid import UUID

import msgspec
import pytest

from s3stream.garbage import Candidate, Round, still_needed
from s3stream.metadata.image import (
    EMPTY_IMAGE,
    End,
    IncarnationState,
    MetadataImage,
    PartitionImage,
    TopicImage,
    changed,
)
from s3stream.metadata.records import BEFORE_ALL, BlobRef
from s3stream.references import ObjectNumbers, References
from wal.keys import data_key

STREAMS = 3
TOPIC = UUID(int=1)


@dataclass
class Broker:
    incarnation: int
    references: References = field(default_factory=References)
    numbers: ObjectNumbers = field(default_factory=ObjectNumbers)
    # What its log says: stream -> keys; open or closed.
    entries: dict[int, frozenset[str]] = field(default_factory=dict)
    open: set[int] = field(default_factory=set)
    # Written, and not yet recorded: (number, key, stream, keys that it replaces).
    pending: list[tuple[int, str, int, frozenset[str]]] = field(default_factory=list)
    opened_from: list[str] = field(default_factory=list)


@dataclass
class Recovery:
    key: str
    entries: dict[int, frozenset[str]]


class World:
    def __init__(self, seed: int, rule_broken: str = "") -> None:
        self.rng = Random(seed)
        self.broken = rule_broken
        self.store: set[str] = set()
        self.brokers: dict[int, Broker] = {}
        self.recoveries: dict[int, Recovery] = {}
        self.making: list[tuple[int, int, int, str, dict[int, frozenset[str]]]] = []
        self.image: MetadataImage = changed(EMPTY_IMAGE, cluster_id="x")
        self.round: Round | None = None
        self.candidates: list[Candidate] = []
        self.listed: list[Candidate] | None = None
        self.before: MetadataImage | None = None
        self.reports: dict[int, tuple[int, set[str], int]] = {}
        self.doomed: list[str] = []
        self.deleted = 0
        self.numbered = 0
        self.trace: list[str] = []
        for _ in range(3):
            self.register()
        partitions = tuple(
            PartitionImage(s, s, s % 3, 0, BEFORE_ALL, None, False) for s in range(STREAMS)
        )
        topic = TopicImage("t", TOPIC, False, 1, {}, partitions)
        self.image = changed(self.image, topics=self.image.topics.set("t", topic))
        for s in range(STREAMS):
            self.brokers[s % 3].entries[s] = frozenset()
            self.brokers[s % 3].open.add(s)

    # The metadata log

    def register(self) -> None:
        incarnation = len(self.image.incarnations)
        state = IncarnationState(incarnation, incarnation, 8, False, None, None)
        incarnations = self.image.incarnations.set(incarnation, state)
        self.image = changed(self.image, incarnations=incarnations)
        self.brokers[incarnation] = Broker(incarnation)

    def state(self, incarnation: int) -> IncarnationState:
        return self.image.incarnations[incarnation]

    def set_state(self, incarnation: int, **fields: object) -> None:
        state = msgspec.structs.replace(self.state(incarnation), **fields)
        self.image = changed(
            self.image, incarnations=self.image.incarnations.set(incarnation, state)
        )

    def partition(self, stream: int) -> PartitionImage:
        return self.image.topics["t"].partitions[stream]

    def set_partition(self, stream: int, **fields: object) -> None:
        topic = self.image.topics["t"]
        partitions = list(topic.partitions)
        partitions[stream] = msgspec.structs.replace(partitions[stream], **fields)
        topic = msgspec.structs.replace(topic, partitions=tuple(partitions))
        self.image = changed(self.image, topics=self.image.topics.set("t", topic))

    def live(self) -> list[int]:
        return [i for i in self.image.incarnations if not self.state(i).fenced]

    # What a step does

    def leader_of_open(self) -> tuple[Broker, int] | None:
        able = [
            (self.brokers[p.leader], s)
            for s in range(STREAMS)
            if not self.state((p := self.partition(s)).leader).fenced
            and s in self.brokers[p.leader].open
        ]
        return self.rng.choice(able) if able else None

    def write_object(self) -> None:
        """An upload, or a compaction of all that the stream has."""
        compaction = self.rng.random() < 0.4
        found = self.leader_of_open()
        if found is None:
            return
        broker, stream = found
        number = broker.numbers.draw()
        key = data_key(broker.incarnation, number)
        replaced = broker.entries[stream] if compaction else frozenset()
        self.store.add(key)
        broker.pending.append((number, key, stream, replaced))
        if self.broken == "settled when written":
            broker.numbers.settle([number])

    def record_object(self) -> None:
        able = [b for b in self.brokers.values() if b.pending and b.incarnation in self.live()]
        if not able:
            return
        broker = self.rng.choice(able)
        number, key, stream, replaced = broker.pending.pop(0)
        if stream in broker.open and replaced <= broker.entries[stream]:
            broker.references.hold(key)
            broker.references.release_all(sorted(replaced))
            broker.entries[stream] = broker.entries[stream] - replaced | {key}
        broker.numbers.settle([number])

    def trim(self) -> None:
        found = self.leader_of_open()
        if found is None or not found[0].entries[found[1]]:
            return
        broker, stream = found
        gone = self.rng.choice(sorted(broker.entries[stream]))
        broker.references.release(gone)
        broker.entries[stream] -= {gone}

    def move(self) -> None:
        found = self.leader_of_open()
        if found is None:
            return
        broker, stream = found
        others = [i for i in self.live() if i != broker.incarnation]
        others = [i for i in others if stream not in self.brokers[i].entries]
        if not others or self.partition(stream).source is not None:
            return
        broker.open.discard(stream)
        leader = self.rng.choice(others)
        self.set_partition(stream, leader=leader, source=broker.incarnation)

    def open_stream(self) -> None:
        for stream in range(STREAMS):
            p = self.partition(stream)
            if p.source is None or self.state(p.leader).fenced:
                continue
            broker = self.brokers[p.leader]
            if stream in broker.open:
                continue
            if self.state(p.source).ended is not None:
                recovery = self.recoveries[p.source]
                keys = recovery.entries[stream]
                broker.references.hold(recovery.key)
                broker.opened_from.append(recovery.key)
            elif self.state(p.source).fenced:
                continue
            else:
                keys = self.brokers[p.source].entries[stream]
            if stream in broker.entries:
                broker.references.release_all(sorted(broker.entries[stream]))
            broker.references.hold_all(sorted(keys))
            broker.entries[stream] = keys
            broker.open.add(stream)
            return

    def say_opened(self) -> None:
        able = [
            s
            for s in range(STREAMS)
            if (p := self.partition(s)).source is not None
            and s in self.brokers[p.leader].open
            and not self.state(p.leader).fenced
        ]
        if able:
            self.set_partition(self.rng.choice(able), source=None)

    def drop(self) -> None:
        for incarnation in self.live():
            broker = self.brokers[incarnation]
            for stream in sorted(broker.entries):
                p = self.partition(stream)
                if stream not in broker.open and incarnation not in (p.leader, p.source):
                    broker.references.release_all(sorted(broker.entries.pop(stream)))
                    return

    def checkpoint(self) -> None:
        broker = self.brokers[self.rng.choice(self.live())]
        broker.references.release_all(broker.opened_from)
        broker.opened_from = []

    def fence(self) -> None:
        if len(self.live()) > 1 and len(self.image.incarnations) < 7:
            self.set_state(self.rng.choice(self.live()), fenced=True)
            self.register()

    def write_recovery(self) -> None:
        for state in self.image.unended():
            if any(one[0] == state.incarnation for one in self.making):
                continue
            maker = self.brokers[self.rng.choice(self.live())]
            number = maker.numbers.draw()
            key = data_key(maker.incarnation, number)
            self.store.add(key)
            entries = dict(self.brokers[state.incarnation].entries)
            self.making.append((state.incarnation, maker.incarnation, number, key, entries))
            return

    def record_end(self) -> None:
        if not self.making:
            return
        dead, maker, number, key, entries = self.making.pop(0)
        if self.state(maker).fenced:
            return  # void: made again by another
        self.set_state(dead, ended=End(9, b""), recovery=BlobRef(key, bytes(16), 1))
        self.recoveries[dead] = Recovery(key, entries)
        self.brokers[maker].numbers.settle([number])
        for stream in range(STREAMS):
            p = self.partition(stream)
            if p.leader != dead:
                continue
            source = dead if stream in self.brokers[dead].open else p.source
            leader = self.rng.choice(self.live())
            self.set_partition(stream, leader=leader, source=source)
            broker = self.brokers[leader]
            if leader == source:  # it leads again what it had closed
                broker.open.add(stream)

    # The collector

    def list_candidates(self) -> None:
        if self.round is None and self.listed is None and not self.image.unended():
            self.before = self.image
            self.listed = [Candidate(key, 1) for key in sorted(self.store)]

    def begin(self) -> None:
        if self.listed is None or self.before is None:
            return
        self.candidates, self.listed = self.listed, None
        if self.broken == "listed after the record":
            self.candidates = []
        self.round = Round(self.numbered, self.before, self.image)
        self.numbered += 1
        self.reports = {}
        if self.broken != "images name nothing":
            for image in (self.before, self.image):
                for incarnation in sorted(still_needed(image)):
                    recovery = self.recoveries.get(incarnation)
                    if recovery is not None:
                        self.round.note_named([recovery.key])
                        for keys in recovery.entries.values():
                            self.round.note_named(keys)

    def compose_report(self) -> None:
        if self.round is None:
            return
        able = [i for i in self.round.waiting if i in self.live() and i not in self.reports]
        if able:
            incarnation = self.rng.choice(able)
            broker = self.brokers[incarnation]
            number, keys = broker.references.begin_report()
            if self.broken == "only what is held now":
                keys = broker.references.held()
            self.reports[incarnation] = (number, keys, broker.numbers.lowest_unsettled)

    def report_durable(self) -> None:
        if self.round is None:
            return
        able = [i for i in self.reports if i in self.round.waiting]
        if able:
            incarnation = self.rng.choice(able)
            number, keys, lowest = self.reports[incarnation]
            if incarnation in self.live():
                self.brokers[incarnation].references.report_durable(number)
                self.round.note_report(incarnation, keys, lowest, 0)

    def decide(self) -> None:
        if self.round is None:
            return
        if self.broken == "the fenced are not waited for":
            for incarnation in list(self.round.waiting):
                if incarnation not in self.live():
                    del self.round.waiting[incarnation]
        self.round.note_image(self.image)
        if self.round.abandoned or not self.round.waiting:
            candidates = self.candidates
            if self.broken == "listed after the record":
                candidates = [Candidate(key, 1) for key in sorted(self.store)]
            self.doomed += [one.key for one in self.round.garbage(candidates)]
            self.round = None

    def delete(self) -> None:
        if self.doomed:
            self.deleted += len(self.doomed) and 1
            self.store.discard(self.doomed.pop(self.rng.randrange(len(self.doomed))))

    # What must hold

    def reachable(self) -> set[str]:
        """Every object that some stream's chain reaches from the metadata log."""
        found: set[str] = set()
        for stream in range(STREAMS):
            p = self.partition(stream)
            leader = self.brokers[p.leader]
            if self.state(p.leader).ended is None and stream in leader.open:
                found |= leader.entries[stream]
            elif p.source is not None:
                if self.state(p.source).ended is not None:
                    recovery = self.recoveries[p.source]
                    found |= {recovery.key} | recovery.entries[stream]
                else:
                    found |= self.brokers[p.source].entries[stream]
            elif self.state(p.leader).fenced:
                found |= leader.entries[stream]
        return found

    def check(self) -> None:
        missing = self.reachable() - self.store
        assert not missing, f"deleted while a chain reaches it: {sorted(missing)}"

    steps: tuple[tuple[int, Callable[[World], None]], ...] = ()

    def walk(self, count: int, factors: dict[str, float] | None = None) -> None:
        """factors: by name of the step, for how often it is taken."""
        factors = factors or {}
        weights = [weight * factors.get(act.__name__, 1) for weight, act in self.steps]
        actions = [action for _, action in self.steps]
        for action in self.rng.choices(actions, weights, k=count):
            self.trace.append(action.__name__)
            action(self)
            self.check()

    def settle_down(self) -> None:
        """Everything pending is done, then rounds run one after the other."""
        for _ in range(200):
            for action in (
                World.write_recovery, World.record_end, World.open_stream, World.say_opened,
                World.drop, World.record_object,
            ):  # fmt: skip
                action(self)
        for incarnation in self.live():
            broker = self.brokers[incarnation]
            broker.references.release_all(broker.opened_from)
            broker.opened_from = []
        for _ in range(4):
            self.list_candidates()
            self.begin()
            for _ in range(10):
                self.compose_report()
                self.report_durable()
            self.decide()
            while self.doomed:
                self.delete()
            self.check()


World.steps = (
    (13, World.write_object), (10, World.record_object), (3, World.trim), (3, World.move),
    (5, World.open_stream), (5, World.say_opened), (4, World.drop), (2, World.checkpoint),
    (1, World.fence), (3, World.write_recovery), (3, World.record_end),
    (5, World.list_candidates), (5, World.begin), (12, World.compose_report),
    (12, World.report_durable), (6, World.decide), (10, World.delete),
)  # fmt: skip
# Reports come late, and streams are handed over all the time meanwhile.
SLOW_REPORTS = {"compose_report": 0.15, "report_durable": 0.5}
MANY_MOVES = {"move": 4, "open_stream": 4, "say_opened": 4, "drop": 8}
DYING = {"fence": 4, "write_recovery": 3, "record_end": 3}


def test_no_walk_deletes_what_a_chain_reaches_and_no_garbage_stays() -> None:
    deleted = 0
    moods: list[dict[str, float]] = [
        {}, SLOW_REPORTS, MANY_MOVES, DYING, SLOW_REPORTS | MANY_MOVES | DYING
    ]  # fmt: skip
    for seed in range(500):
        world = World(seed)
        try:
            world.walk(150, moods[seed % len(moods)])
            world.settle_down()
        except AssertionError as error:
            raise AssertionError(f"seed {seed}: {error}\n{world.trace}") from error
        left = world.store - world.reachable()
        assert not left, f"seed {seed}: never collected: {sorted(left)}"
        deleted += world.deleted
    assert deleted > 2000, "the walks hardly delete anything"


@pytest.mark.parametrize(
    ("rule", "factors"),
    [
        ("settled when written", {}),
        ("listed after the record", {"compose_report": 0.3, "write_recovery": 6, "record_end": 6}),
        ("only what is held now", SLOW_REPORTS | MANY_MOVES | {"trim": 0.2}),
        ("images name nothing", {}),
        ("the fenced are not waited for", MANY_MOVES | DYING),
    ],
)
def test_without_each_rule_some_walk_loses_data(rule: str, factors: dict[str, float]) -> None:
    for seed in range(2000):
        world = World(seed, rule)
        try:
            world.walk(250, factors)
        except AssertionError:
            return
    pytest.fail(f"{rule}: not missed in 2000 walks")
