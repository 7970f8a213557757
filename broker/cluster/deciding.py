"""The controller's side of what other brokers ask: registration, the log, heartbeats, decisions.

Asked while this process owns no term, all of it is answered by NOT_CONTROLLER.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from broker.controller.controller import Controller
from broker.controller.election import Answers
from broker.controller.loads import Loads
from broker.controller.membership import Identity, StartRefused
from broker.controller.registration import register
from protocol.errors import ErrorCode, KafkaError
from s3stream.metadata.image import TopicImage

from . import messages as m
from .channel import refusal_of
from .followers import Followers
from .serving import PeerServer
from .wellness import Wellness

if TYPE_CHECKING:
    from .detector import Detector
    from .feed import LogFeed

# A poll is answered empty after this, so that a follower that went away is not waited for.
LONGEST_WAIT_S = 60.0


class Deciding:
    """What belongs to one term of this process.

    garbage: another broker has more of it. loads: that they told. wellness: of this one.
    """

    def __init__(
        self,
        controller: Controller,
        feed: LogFeed,
        detector: Detector,
        garbage: Callable[[], None],
        loads: Loads,
        wellness: Wellness,
    ) -> None:
        self.controller = controller
        self.feed = feed
        self.detector = detector
        self._garbage = garbage
        self.loads = loads
        self._wellness = wellness
        self._garbage_of: dict[int, int] = {}
        self._followers = Followers()

    def quorum(self) -> m.QuorumShown:
        """The term's log, and how far the others follow it."""
        controller = self.controller
        image = controller.image
        now = asyncio.get_running_loop().time()
        followers = self._followers.of(image, controller.incarnation, now)
        return m.QuorumShown(controller.node_id, image.term, image.position.seq + 1, followers)

    def heard(self, heartbeat: m.Heartbeat) -> m.HeartbeatBack:
        controller = self.controller
        state = controller.image.incarnations.get(heartbeat.incarnation)
        known = state is not None and not state.fenced
        if known:
            self.detector.heard(
                heartbeat.incarnation, heartbeat.lag_ms / 1000, heartbeat.deaf_ms / 1000
            )
            now = asyncio.get_running_loop().time()
            newest = controller.image.position
            self._followers.told(heartbeat.incarnation, heartbeat.position, newest, now)
            before = self._garbage_of.get(heartbeat.incarnation, 0)
            if heartbeat.garbage != before:
                self._garbage_of[heartbeat.incarnation] = heartbeat.garbage
                self._garbage()
            self._note_health(heartbeat)
            if heartbeat.load is not None:
                self.loads.told(heartbeat.incarnation, heartbeat.load)
        age_s = asyncio.get_running_loop().time() - controller.last_confirmed_at
        confirmed_ms = math.ceil(age_s * 1000) if age_s < 3600 else -1
        waiting_ms = round(controller.waiting_s * 1000)
        unfit = controller.fitness.unfit.get(heartbeat.incarnation, "")
        return m.HeartbeatBack(controller.term, confirmed_ms, known, waiting_ms, unfit)

    def _note_health(self, heartbeat: m.Heartbeat) -> None:
        controller = self.controller
        broker = controller.image.broker_of(heartbeat.incarnation)
        if heartbeat.health is None or broker is None:
            return
        fitness = controller.fitness
        lag_s = heartbeat.lag_ms / 1000
        fitness.told(broker.node_id, broker.incarnation, heartbeat.health, lag_s)
        # Its own, in step with the others', and without a timer.
        fitness.told(controller.node_id, controller.incarnation, self._wellness())
        if fitness.is_sick(controller.incarnation):
            self._wellness.called_sick()
        else:
            self._wellness.called_fit()


class DecidingServer:
    """deciding: this process's term, None while it has none."""

    def __init__(
        self, peers: PeerServer, deciding: Callable[[], Deciding | None], answers: Answers
    ) -> None:
        self._deciding = deciding
        self._answers = answers
        peers.serve(m.Register, self._register)
        peers.serve(m.Leave, self._leave)
        peers.serve(m.Heartbeat, self._heartbeat)
        peers.serve(m.LogAfter, self._log_after)
        peers.serve(m.CreateTopics, self._create_topics)
        peers.serve(m.DeleteTopics, self._delete_topics)
        peers.serve(m.CreatePartitions, self._create_partitions)
        peers.serve(m.AlterConfigs, self._alter_configs)
        peers.serve(m.SetFeatureLevel, self._set_feature_level)
        peers.serve(m.ReportOpened, self._opened)
        peers.serve(m.AllocateProducerIds, self._allocate_producer_ids)
        peers.serve(m.MoveLeaders, self._move_leaders)
        peers.serve(m.HandedOver, self._handed_over)
        peers.serve(m.CancelMoves, self._cancel_moves)
        peers.serve(m.SetDraining, self._set_draining)
        peers.serve(m.Unregister, self._unregister)
        peers.serve(m.ShowQuorum, self._show_quorum)

    def _now(self) -> Deciding:
        deciding = self._deciding()
        if deciding is None or not deciding.controller.owns_term:
            raise KafkaError(ErrorCode.NOT_CONTROLLER)
        return deciding

    @property
    def _controller(self) -> Controller:
        return self._now().controller

    async def _register(self, request: m.Register) -> m.Answer:
        controller = self._controller
        identity = Identity(
            node_id=request.node_id,
            take_over=request.take_over,
            listeners=request.listeners,
            store="",
            wal_window=request.window,
            rack=request.rack,
            address_http=request.address_http,
            level=request.level,
        )
        try:
            broker = await register(controller, identity, request.token, self._answers)
        except StartRefused as error:
            return m.RegisterRefused(str(error))
        controller.fitness.registered(broker.incarnation)
        position = controller.image.position
        return m.Registered(broker.node_id, broker.incarnation, broker.process, position)

    async def _leave(self, request: m.Leave) -> m.Decided:
        controller = self._controller
        await controller.fence([request.incarnation])
        return m.Decided(controller.image.position)

    async def _heartbeat(self, request: m.Heartbeat) -> m.HeartbeatBack:
        return self._now().heard(request)

    async def _log_after(self, request: m.LogAfter) -> m.Answer:
        deciding = self._now()
        if request.term > deciding.feed.term:
            raise KafkaError(ErrorCode.NOT_CONTROLLER)
        wait_s = min(max(request.wait_ms / 1000, 0.0), LONGEST_WAIT_S)
        return await deciding.feed.after(request.term, request.seq, wait_s)

    async def _create_topics(self, request: m.CreateTopics) -> m.TopicsDecided:
        controller = self._controller
        outcomes = await controller.create_topics(
            request.topics, validate_only=request.validate_only
        )
        return _topics_decided(outcomes, controller)

    async def _delete_topics(self, request: m.DeleteTopics) -> m.TopicsDecided:
        controller = self._controller
        return _topics_decided(await controller.delete_topics(request.topic_ids), controller)

    async def _create_partitions(self, request: m.CreatePartitions) -> m.Decided:
        controller = self._controller
        await controller.create_partitions(
            request.name, request.total, request.assignments, validate_only=request.validate_only
        )
        return m.Decided(controller.image.position)

    async def _alter_configs(self, request: m.AlterConfigs) -> m.Decided:
        controller = self._controller
        await controller.alter_configs(
            request.resource_type,
            request.name,
            request.changes,
            validate_only=request.validate_only,
            based_on=request.based_on,
        )
        return m.Decided(controller.image.position)

    async def _set_feature_level(self, request: m.SetFeatureLevel) -> m.Decided:
        controller = self._controller
        await controller.set_feature_level(request.name, request.level)
        return m.Decided(controller.image.position)

    async def _opened(self, request: m.ReportOpened) -> m.Decided:
        controller = self._controller
        await controller.opened(request.streams, request.incarnation)
        return m.Decided(controller.image.position)

    async def _allocate_producer_ids(self, request: m.AllocateProducerIds) -> m.ProducerIdsGiven:
        controller = self._controller
        first, count = await controller.allocate_producer_ids(request.incarnation)
        return m.ProducerIdsGiven(first, count, controller.image.position)

    async def _move_leaders(self, request: m.MoveLeaders) -> m.MovesBegun:
        controller = self._controller
        moves = await controller.move_leaders(request.assignment)
        return m.MovesBegun(moves, controller.image.position)

    async def _handed_over(self, request: m.HandedOver) -> m.Decided:
        controller = self._controller
        await controller.handed_over(request.move, request.contents)
        return m.Decided(controller.image.position)

    async def _cancel_moves(self, request: m.CancelMoves) -> m.Decided:
        controller = self._controller
        await controller.cancel_moves(request.moves)
        return m.Decided(controller.image.position)

    async def _set_draining(self, request: m.SetDraining) -> m.Decided:
        controller = self._controller
        await controller.set_draining(request.incarnation, request.draining)
        return m.Decided(controller.image.position)

    async def _unregister(self, request: m.Unregister) -> m.Decided:
        controller = self._controller
        await controller.unregister(request.node_id)
        return m.Decided(controller.image.position)

    async def _show_quorum(self, request: m.ShowQuorum) -> m.QuorumShown:
        return self._now().quorum()


def _topics_decided(
    outcomes: Sequence[TopicImage | KafkaError], controller: Controller
) -> m.TopicsDecided:
    told: list[tuple[TopicImage | None, m.Refusal | None]] = []
    for outcome in outcomes:
        if isinstance(outcome, KafkaError):
            told.append((None, refusal_of(outcome)))
        else:
            told.append((outcome, None))
    return m.TopicsDecided(told, controller.image.position)
