"""The cluster as an operator sees it: from the metadata, and from what brokers tell of themselves.

Made by the controller, which hears them all; without one, from the metadata in the bucket alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import msgspec

from broker.controller.fitness import STARTING
from broker.controller.membership import host_port
from s3stream.metadata.image import BrokerRegistration, MetadataImage

from .load import Load

HOTTEST = 8


class _Part(msgspec.Struct, frozen=True, omit_defaults=False):
    pass


class BrokerPicture(_Part, frozen=True):
    """state: live, draining, starting, sick or fenced; registered, where nobody can tell whether it
    lives. why: of one that is sick.

    leads: partitions, by the metadata. silent_ms: since it was heard; None: it is the controller
    itself, or nobody knows. load: None where it is not known.
    """

    node_id: int
    incarnation: int
    state: str
    address: str
    rack: str | None = None
    http: str | None = None
    leads: int = 0
    is_controller: bool = False
    silent_ms: int | None = None
    load: Load | None = None
    why: str = ""


class MovePicture(_Part, frozen=True):
    """closing: partitions that the old leader has to hand over still. opening: handed over, and
    not reported as open by the new one.
    """

    source: int
    target: int
    closing: int
    opening: int


class FailoverPicture(_Part, frozen=True):
    """Of what a fenced broker led. ending: partitions that wait for the end of its log. opening:
    partitions that have a new leader, which has not opened them yet.
    """

    node_id: int
    incarnation: int
    ending: int
    opening: int


class HotPicture(_Part, frozen=True):
    """share: of what its leader takes and gives, 0 to 1."""

    topic: str
    partition: int
    node_id: int
    bytes_in: int
    bytes_out: int
    share: float


class Unreached(_Part, frozen=True):
    """Node ids: `asking` does not reach `asked`."""

    asking: int
    asked: int


class View(_Part, frozen=True):
    """is_live: the controller made it. controller: its node id. without_leader: partitions."""

    cluster_id: str
    is_live: bool
    controller: int | None
    term: int
    partitions: int
    topics: int
    without_leader: int
    brokers: list[BrokerPicture] = []
    moves: list[MovePicture] = []
    failovers: list[FailoverPicture] = []
    hottest: list[HotPicture] = []
    unreached: list[Unreached] = []


class Told(NamedTuple):
    """What the controller knows beside the metadata, by incarnation. unfit: why nothing is given to
    it for now.
    """

    loads: Mapping[int, Load]
    silent_s: Mapping[int, float]
    unfit: Mapping[int, str] = {}


class _Counted:
    """One walk over all partitions."""

    def __init__(self, image: MetadataImage) -> None:
        self.leads: dict[int, int] = {}
        self.opening: dict[tuple[int, int], int] = {}  # by (source, leader)
        self.total = self.without_leader = 0
        for _, partition in image.partitions():
            self.total += 1
            leader = partition.leader
            self.leads[leader] = self.leads.get(leader, 0) + 1
            state = image.incarnations.get(leader)
            if state is None or state.fenced:
                self.without_leader += 1
            elif partition.source is not None:
                pair = partition.source, leader
                self.opening[pair] = self.opening.get(pair, 0) + 1


def view_of(image: MetadataImage, told: Told | None) -> View:
    """told: None where no controller answers."""
    counted = _Counted(image)
    loads = {} if told is None else told.loads
    holder = image.holder
    brokers = sorted(image.brokers.values(), key=lambda one: one.node_id)
    return View(
        cluster_id=image.cluster_id,
        is_live=told is not None,
        controller=None if holder is None else holder.node_id,
        term=image.term,
        partitions=counted.total,
        topics=len(image.topics),
        without_leader=counted.without_leader,
        brokers=[_broker(image, one, counted, told) for one in brokers],
        moves=_moves(image, counted),
        failovers=_failovers(image, counted),
        hottest=_hottest(image, loads),
        unreached=[
            Unreached(one.node_id, asked)
            for one in brokers
            if not one.fenced and one.incarnation in loads
            for asked in loads[one.incarnation].unreachable
        ],
    )


def _broker(
    image: MetadataImage, broker: BrokerRegistration, counted: _Counted, told: Told | None
) -> BrokerPicture:
    incarnation = broker.incarnation
    state, why = "registered" if told is None else "live", ""
    if broker.fenced:
        state = "fenced"
    elif incarnation in image.draining:
        state = "draining"
    elif told is not None and incarnation in told.unfit:
        why = told.unfit[incarnation]
        state = STARTING if why == STARTING else "sick"
    silent_s = load = None
    if told is not None and not broker.fenced:
        silent_s, load = told.silent_s.get(incarnation), told.loads.get(incarnation)
    holder = image.holder
    return BrokerPicture(
        node_id=broker.node_id,
        incarnation=incarnation,
        state=state,
        address=",".join(host_port(one) for one in broker.listeners),
        rack=broker.rack,
        http=broker.address_http,
        leads=counted.leads.get(incarnation, 0),
        is_controller=holder is not None and holder.process == broker.process,
        silent_ms=None if silent_s is None else round(silent_s * 1000),
        load=load,
        why=why if state == "sick" else "",
    )


def _node(image: MetadataImage, incarnation: int) -> int:
    state = image.incarnations.get(incarnation)
    return -1 if state is None else state.node_id


def _moves(image: MetadataImage, counted: _Counted) -> list[MovePicture]:
    closing: dict[tuple[int, int], int] = {}
    for number in sorted(image.moves):
        move = image.moves[number]
        pair = move.source, move.target
        closing[pair] = closing.get(pair, 0) + len(move.streams)
    pairs = set(closing)
    for source, leader in counted.opening:
        state = image.incarnations.get(source)
        if state is not None and not state.fenced:
            pairs.add((source, leader))
    return [
        MovePicture(
            _node(image, source),
            _node(image, target),
            closing.get((source, target), 0),
            counted.opening.get((source, target), 0),
        )
        for source, target in sorted(pairs)
    ]


def _failovers(image: MetadataImage, counted: _Counted) -> list[FailoverPicture]:
    opening: dict[int, int] = {}
    for (source, _), count in counted.opening.items():
        opening[source] = opening.get(source, 0) + count
    unended = {state.incarnation for state in image.unended()}
    found = []
    for incarnation in sorted(unended | set(opening)):
        state = image.incarnations.get(incarnation)
        if state is None or not state.fenced:
            continue
        ending = counted.leads.get(incarnation, 0) if incarnation in unended else 0
        found.append(
            FailoverPicture(state.node_id, incarnation, ending, opening.get(incarnation, 0))
        )
    return found


def _hottest(image: MetadataImage, loads: Mapping[int, Load]) -> list[HotPicture]:
    found = []
    for incarnation, load in loads.items():
        total = load.bytes_in + load.bytes_out
        for one in load.hottest:
            place = image.partition_of(one.stream_id)
            if place is None or place[1].leader != incarnation:
                continue  # deleted, or moved since
            both = one.bytes_in + one.bytes_out
            found.append(
                HotPicture(
                    place[0].name,
                    place[1].index,
                    _node(image, incarnation),
                    one.bytes_in,
                    one.bytes_out,
                    round(both / max(total, both, 1), 3),
                )
            )
    found.sort(key=lambda one: (-one.bytes_in - one.bytes_out, one.topic, one.partition))
    return found[:HOTTEST]
