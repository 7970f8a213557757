"""What brokers say to each other: one struct a message, told apart by its name.

Requests to the controller are answered by `NotController` where the one asked is not it.
"""

from __future__ import annotations

from typing import TypeAlias
from uuid import UUID

import msgspec

from broker.controller.topics import NewTopic
from s3stream.metadata.image import TopicImage
from s3stream.metadata.records import BlobRef, Endpoint, Position

from .balance_view import BalanceView
from .followers import Follower
from .load import Load
from .picture import View
from .reads_messages import FollowReads, InviteReads, ReadsInvited, ReadsTold
from .wellness import Health


class _Message(msgspec.Struct, frozen=True, tag_field="t", omit_defaults=True):
    pass


# Before anything else: each side proves that it can read the bucket (`proof`).


class Hello(_Message, frozen=True, tag="hello"):
    nonce: bytes


class HelloBack(_Message, frozen=True, tag="hello-back"):
    nonce: bytes
    proof: bytes


class Prove(_Message, frozen=True, tag="prove"):
    proof: bytes


class Proved(_Message, frozen=True, tag="proved"):
    """From now on the connection is a broker's."""


# Membership.


class Register(_Message, frozen=True, tag="register"):
    """A process asks for an incarnation. node_id: None for the lowest free one.

    token: random, 16 bytes; the same in a repetition, which then finds what the first one got.
    level: the highest `headwater.version` that it reads.
    """

    token: bytes
    node_id: int | None
    take_over: bool
    window: int
    listeners: tuple[Endpoint, ...]
    rack: str | None = None
    address_http: str | None = None
    level: int = 1


class Registered(_Message, frozen=True, tag="registered"):
    node_id: int
    incarnation: int
    process: bytes
    at: Position


class RegisterRefused(_Message, frozen=True, tag="register-refused"):
    """why: for the operator of the process that asked."""

    why: str


class Leave(_Message, frozen=True, tag="leave"):
    """The incarnation serves nobody any more: what it led may go to others at once."""

    incarnation: int


class Heartbeat(_Message, frozen=True, tag="heartbeat"):
    """position: of the sender's image. lag_ms: how late its loop is. garbage: how often something
    of its became needless; a number that grew is an occasion for a round of deletion. load: None
    from an older version. deaf_ms: for how long it has had no answer, where it misses one.
    health: None from an older version.
    """

    incarnation: int
    position: Position
    lag_ms: int = 0
    garbage: int = 0
    load: Load | None = None
    deaf_ms: int = 0
    health: Health | None = None


class HeartbeatBack(_Message, frozen=True, tag="heartbeat-back"):
    """confirmed_ms: so long ago the controller's own term was confirmed; -1: not at all.

    known: the incarnation is registered and not fenced. waiting_ms: so long the oldest decision has
    waited for the store. unfit: why the asking broker is given nothing to lead; "": it is.
    """

    term: int
    confirmed_ms: int
    known: bool
    waiting_ms: int = 0
    unfit: str = ""


class WhoDecides(_Message, frozen=True, tag="who-decides"):
    """Asked of any broker by one that does not reach the controller."""


class ControllerHeard(_Message, frozen=True, tag="controller-heard"):
    """heard: the asked one decides itself, or hears who does."""

    heard: bool


# The metadata log.


class LogAfter(_Message, frozen=True, tag="log-after"):
    """Durable objects of `term` from `seq` on; waits for the first one, at most `wait_ms`."""

    term: int
    seq: int
    wait_ms: int


class LogObject(msgspec.Struct, frozen=True, array_like=True):
    """records: as they are in the object, in order."""

    seq: int
    records: list[bytes]


class LogObjects(_Message, frozen=True, tag="log-objects"):
    objects: list[LogObject]


class ReadTheBucket(_Message, frozen=True, tag="read-the-bucket"):
    """What was asked for is not kept in memory any more, or is of another term."""


# Decisions.


class CreateTopics(_Message, frozen=True, tag="create-topics"):
    topics: list[NewTopic]
    validate_only: bool = False


class DeleteTopics(_Message, frozen=True, tag="delete-topics"):
    topic_ids: list[UUID]


class Refusal(msgspec.Struct, frozen=True, array_like=True):
    """A KafkaError."""

    code: int
    message: str | None
    detail: str


class TopicsDecided(_Message, frozen=True, tag="topics-decided"):
    """One outcome for each topic asked for, in order."""

    outcomes: list[tuple[TopicImage | None, Refusal | None]]
    at: Position


class CreatePartitions(_Message, frozen=True, tag="create-partitions"):
    name: str
    total: int
    assignments: list[list[int]] | None = None
    validate_only: bool = False


class AlterConfigs(_Message, frozen=True, tag="alter-configs"):
    """based_on: what stood there when the changes were computed; None: it does not matter."""

    resource_type: str
    name: str
    changes: dict[str, str | None]
    validate_only: bool = False
    based_on: dict[str, str] | None = None


class SetFeatureLevel(_Message, frozen=True, tag="set-feature-level"):
    name: str
    level: int


class ReportOpened(_Message, frozen=True, tag="report-opened"):
    incarnation: int
    streams: list[tuple[int, int]]


class MoveLeaders(_Message, frozen=True, tag="move-leaders"):
    """Incarnations by stream id. Answered by the numbers of the moves."""

    assignment: dict[int, int]


class MovesBegun(_Message, frozen=True, tag="moves-begun"):
    moves: list[int]
    at: Position


class HandedOver(_Message, frozen=True, tag="handed-over"):
    move: int
    contents: BlobRef


class CancelMoves(_Message, frozen=True, tag="cancel-moves"):
    moves: list[int]


class SetDraining(_Message, frozen=True, tag="set-draining"):
    incarnation: int
    draining: bool


class Decided(_Message, frozen=True, tag="decided"):
    """It is durable, and in every image from this position on."""

    at: Position


class AllocateProducerIds(_Message, frozen=True, tag="allocate-producer-ids"):
    incarnation: int


class ProducerIdsGiven(_Message, frozen=True, tag="producer-ids-given"):
    first: int
    count: int
    at: Position


# What operators ask.


class Unregister(_Message, frozen=True, tag="unregister"):
    """A node that is gone is to be forgotten."""

    node_id: int


class ShowQuorum(_Message, frozen=True, tag="show-quorum"):
    """Answered by the controller alone, which hears every broker."""


class QuorumShown(_Message, frozen=True, tag="quorum-shown"):
    """The log of the term: who writes it, how long it is, how far others follow it."""

    node_id: int
    term: int
    end: int
    followers: list[Follower]


class ShowCluster(_Message, frozen=True, tag="show-cluster"):
    """Answered by the controller alone, which hears every broker."""


class ClusterShown(_Message, frozen=True, tag="cluster-shown"):
    view: View


class BalanceNow(_Message, frozen=True, tag="balance-now"):
    """One step of the balancer, or only its plan."""

    plan_only: bool


class Balanced(_Message, frozen=True, tag="balanced"):
    """moves: begun. why_not: nothing was planned, and why; "" else."""

    plan: BalanceView
    moves: list[int]
    why_not: str = ""


# Whatever was asked.


class NotController(_Message, frozen=True, tag="not-controller"):
    """The one asked does not decide; nothing was done."""


class Failed(_Message, frozen=True, tag="failed"):
    error: Refusal


Request: TypeAlias = (
    Hello
    | Prove
    | Register
    | Leave
    | Heartbeat
    | WhoDecides
    | LogAfter
    | CreateTopics
    | DeleteTopics
    | CreatePartitions
    | AlterConfigs
    | SetFeatureLevel
    | ReportOpened
    | AllocateProducerIds
    | MoveLeaders
    | HandedOver
    | CancelMoves
    | SetDraining
    | Unregister
    | ShowQuorum
    | ShowCluster
    | BalanceNow
    | FollowReads
    | InviteReads
)

Answer: TypeAlias = (
    HelloBack
    | Proved
    | Registered
    | RegisterRefused
    | HeartbeatBack
    | ControllerHeard
    | LogObjects
    | ReadTheBucket
    | TopicsDecided
    | Decided
    | ProducerIdsGiven
    | MovesBegun
    | QuorumShown
    | ClusterShown
    | Balanced
    | ReadsTold
    | ReadsInvited
    | NotController
    | Failed
)
