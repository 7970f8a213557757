"""A process's place in the cluster: it decides, or it follows who does.

    start     own a term, or be registered by the one who owns it
    decides   until its term is ended by another: then it follows, under the same incarnation
    follows   until its incarnation is fenced: that ends this member, and the node with it; or
              until the controller is not heard and the log does not grow: then it succeeds it

The other parts of the broker see one image and one set of decisions, wherever those are made.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from random import Random
from typing import Any

from broker.controller.controller import ConfigRules, Controller
from broker.controller.election import Answers, CheckStore, Standing
from broker.controller.levelling import BalanceSettings
from broker.controller.loads import Loads
from broker.controller.membership import Identity
from broker.controller.subscribers import Subscriber, Subscribers
from broker.controller.topics import TopicDefaults
from objectstore.errors import StoreError
from objectstore.store import ObjectStore
from protocol.errors import ErrorCode, KafkaError
from s3stream.metadata.image import EMPTY_IMAGE, BrokerRegistration, MetadataImage
from s3stream.metadata.records import Endpoint, Position
from s3stream.metadata.tail import Loaded
from wal.errors import Fenced

from .channel import Peers
from .deciding import Deciding, DecidingServer
from .detector import Detector
from .feed import LogFeed
from .following import Following
from .heartbeats import NewSender
from .joining import Joining
from .messages import ControllerHeard, WhoDecides
from .operating import OperatorServer
from .own_load import OwnLoad
from .place import Place
from .positions import Positions
from .remote import RemoteDecisions
from .serving import PeerServer
from .wellness import Wellness

log = logging.getLogger(__name__)

REACH_S = 10.0
LOST_WAIT_S = 0.5
LOST_WAIT_CAP_S = 30.0


@dataclass(frozen=True, slots=True)
class ClusterTimes:
    """session_timeout_s: unheard for so long, one is suspected. heartbeat_s: between two."""

    session_timeout_s: float
    heartbeat_s: float


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What a member asks of the rest of the broker.

    peers, serving: requests between brokers, out and in. new_sender: of heartbeats. address: where
    a broker is for brokers.
    answers: whether a registered broker is there, asked as a client. is_gone: whether its address
    refuses. garbage: how often something became needless here; more_garbage: so it is elsewhere.
    own_load, wellness: what this broker tells of its load, and how well it is. balance: of the
    process that decides.
    term_won: this process decides now, and does what deciding brings with it.
    """

    peers: Peers
    serving: PeerServer
    new_sender: NewSender
    address: Callable[[BrokerRegistration], Endpoint | None]
    answers: Answers
    is_gone: Callable[[BrokerRegistration], Coroutine[Any, Any, bool]]
    check_store: CheckStore
    garbage: Callable[[], int]
    more_garbage: Callable[[], None]
    own_load: OwnLoad
    balance: BalanceSettings
    wellness: Wellness
    term_won: Callable[[], None]
    now_ms: Callable[[], int]
    rng: Random


class Member(Place):
    """Implements broker.controller.decisions.Membership."""

    def __init__(
        self,
        store: ObjectStore,
        identity: Identity,
        times: ClusterTimes,
        around: Surroundings,
        *,
        rules: ConfigRules,
        defaults: Callable[[], TopicDefaults],
        on_trouble: Callable[[StoreError | None], None] | None = None,
    ) -> None:
        self._store = store
        self._identity = identity
        self._times = times
        self._around = around
        self._rules = rules
        self._defaults = defaults
        self._on_trouble = on_trouble
        self._image = EMPTY_IMAGE
        self._subscribers = Subscribers("this broker ends")
        self._positions = Positions()
        self._subscribers.add(self._positions.image_changed)
        self._standing: Standing | None = None
        self._deciding: Deciding | None = None
        self._following: Following | None = None
        self._remote: RemoteDecisions | None = None
        self._lost = 0
        self._lost_to: Fenced | None = None
        DecidingServer(around.serving, lambda: self._deciding, around.answers)
        around.serving.serve(WhoDecides, self._who_decides)
        OperatorServer(around.serving, lambda: self._deciding, around.own_load)
        self._subscribers.add(around.own_load.reach.image_changed)

    # What this process is.

    @property
    def image(self) -> MetadataImage:
        """Every decision that has come here."""
        return self._image

    @property
    def is_registered(self) -> bool:
        return self._standing is not None

    @property
    def node_id(self) -> int:
        return self._stands.node_id

    @property
    def incarnation(self) -> int:
        """Of this process; its write-ahead log carries it."""
        return self._stands.incarnation

    @property
    def wal_window(self) -> int:
        """PUTs in flight of this incarnation's log."""
        return self.image.incarnations[self.incarnation].window

    @property
    def owns_term(self) -> bool:
        """Whether this process decides, as far as it knows; a durable decision proves it."""
        return self._deciding is not None and self._deciding.controller.owns_term

    @property
    def confirmed_at(self) -> float:
        """Loop time at which a controller that surely was one had not fenced this incarnation."""
        return float("-inf") if self._following is None else self._following.confirmed_at

    @property
    def detector(self) -> Detector | None:
        """Where this process decides: who is heard."""
        return None if self._deciding is None else self._deciding.detector

    def subscribe(self, subscriber: Subscriber) -> None:
        """See `Term.subscribe`."""
        self._subscribers.add(subscriber)

    def _advance(self, new: MetadataImage) -> None:
        """Every image comes by here, whoever read it first."""
        old = self._image
        if new.position > old.position:
            self._image = new
            self._subscribers.tell(old, new)
            if self._remote is not None and new.goes_on_after(old):
                self._remote.controller_changed()
            if self._deciding is not None and new.brokers is not old.brokers:
                self._deciding.detector.image_changed()

    # Starting and ending.

    async def start(self) -> None:
        """Join the cluster (or make it): stand registered under a new incarnation.

        Raises StartRefused, AccessDenied, UnsuitableStore, Corrupt, HoleInLog.
        """
        around = self._around
        joining = Joining(
            self._identity,
            around.peers,
            around.address,
            around.is_gone,
            around.answers,
            self._times.session_timeout_s,
            around.rng,
        )
        while not await self._win(joining=joining):
            if joining.joined is not None:
                registered, loaded = joining.joined
                self._standing = Standing(
                    registered.node_id, registered.incarnation, registered.process
                )
                await self._follow_from(loaded).catch_up(registered.at)
                log.info("joined as node %d, incarnation %d", self.node_id, self.incarnation)
                return

    async def _win(self, *, joining: Joining | None = None) -> bool:
        """Own a term; False where another process does."""
        feed = LogFeed()
        following = self._following
        standing = None if following is None else self._stands
        controller = Controller(
            self._store,
            self._identity,
            rules=self._rules,
            defaults=self._defaults,
            answers=self._around.answers,
            check_store=self._around.check_store,
            now_ms=self._around.now_ms,
            rng=self._around.rng,
            elsewhere=joining,
            is_gone=self._around.is_gone,
            standing=standing,
            loaded=None if following is None else following.loaded,
            on_trouble=self._on_trouble,
            on_object=feed.add,
        )
        # Ours first: it holds the image of what came before the term.
        controller.subscribe(lambda old, new: self._advance(new))
        if not await controller.attempt():
            if joining is not None and joining.joined is None and not joining.waited:
                await asyncio.sleep(self._longer_s())
            return False
        feed.term = controller.term
        self._standing = Standing(controller.node_id, controller.incarnation, controller.process)
        self._following = None
        if self._remote is not None:
            self._remote.close()
            self._remote = None
        self._lost = 0
        loads = Loads(controller.incarnation, self._around.own_load)
        controller.balance_by(loads, self._around.balance)
        self._deciding = Deciding(
            controller,
            feed,
            self._new_detector(controller),
            self._around.more_garbage,
            loads,
            self._around.wellness,
        )
        self._around.term_won()
        return True

    def _new_detector(self, controller: Controller) -> Detector:
        return Detector(
            controller.incarnation,
            self._times.session_timeout_s,
            self._times.heartbeat_s,
            lambda: self._image,
            fence=controller.fence,
            assert_term=controller.assert_term,
            is_gone=self._around.is_gone,
        )

    def _follow_from(self, loaded: Loaded) -> Following:
        stands = self._stands
        self._following = following = Following(
            self._store,
            loaded,
            stands.incarnation,
            self._around.peers,
            self._around.address,
            session_timeout_s=self._times.session_timeout_s,
            heartbeat_s=self._times.heartbeat_s,
            new_sender=self._around.new_sender,
            on_image=self._advance,
            garbage=self._around.garbage,
            load=self._around.own_load,
            wellness=self._around.wellness,
            rng=self._around.rng,
        )
        self._advance(loaded.image)
        if self._remote is not None:
            self._remote.close()
        self._remote = RemoteDecisions(
            self._around.peers, following.controller, self._reached, stands.incarnation
        )
        return following

    async def _who_decides(self, request: WhoDecides) -> ControllerHeard:
        heard = self.owns_term or (self._following is not None and self._following.hears)
        return ControllerHeard(heard)

    async def _reached(self, position: Position) -> None:
        try:
            await self._positions.reached(position, REACH_S)
        except TimeoutError as error:
            raise KafkaError(
                ErrorCode.REQUEST_TIMED_OUT, "The decision is made, and has not come here yet."
            ) from error

    async def run(self) -> None:
        """Owner's task, after `start`: until closed.

        Raises Fenced: this incarnation serves nobody any more. Anything else is a bug.
        """
        serving = asyncio.create_task(self._run(), name="member")
        reach = self._around.own_load.reach
        reaching = asyncio.create_task(
            reach.run(lambda: self._image, self.incarnation), name="reach"
        )
        try:
            await self._subscribers.watch(serving)
        finally:
            for task in (serving, reaching):
                task.cancel()
            await asyncio.wait((serving, reaching))
            if not reaching.cancelled() and (error := reaching.exception()) is not None:
                log.error("asking the other brokers failed", exc_info=error)
            if not serving.cancelled():
                serving.exception()

    async def _run(self) -> None:
        while True:
            if self._deciding is not None:
                await self._decide(self._deciding)
            else:
                assert self._following is not None, "start() first"
                await self._follow(self._following)

    async def _decide(self, deciding: Deciding) -> None:
        """Until the term is another's."""
        controller = deciding.controller
        running = asyncio.create_task(controller.run(), name="term")
        detecting = asyncio.create_task(deciding.detector.run(), name="detector")
        try:
            await asyncio.wait((running, detecting), return_when=asyncio.FIRST_COMPLETED)
            for task in (running, detecting):
                if task.done():
                    task.result()
        except Fenced as error:
            log.warning("the term is another process's now: %s", error)
            self._lost_to = error
        finally:
            for task in (running, detecting):
                task.cancel()
            await asyncio.wait((running, detecting))
        await self._resign(deciding)

    async def _resign(self, deciding: Deciding) -> None:
        controller = deciding.controller
        self._deciding = None
        deciding.feed.close()
        await controller.abort()
        image = self._image
        ours = image.position.term == controller.term
        self._follow_from(
            Loaded(
                image,
                controller.term,
                image.position.seq + 1 if ours else 0,
                controller.process,
                None,
            )
        )

    async def _follow(self, following: Following) -> None:
        """Until this process decides, or is given reason to follow anew."""
        try:
            await following.run()
        except Fenced as error:
            # Who ended our term can say best who it is.
            raise self._lost_to or error from error
        if following.has_heard:
            self._lost = 0
        log.warning("the controller is not heard, and nothing is decided: its term is ended")
        # A moment, of another length for each: it seldom takes two to do this.
        await asyncio.sleep(self._around.rng.random() * self._times.heartbeat_s / 2)
        try:
            won = await self._win()
        except StoreError as error:
            log.warning("its term cannot be ended: %s", error)
            won = False
        if won:
            log.info("decides from term %d on", self._image.term)
            return
        # Following goes on meanwhile: whoever won has things to tell.
        following.has_heard = False
        await following.meet_winner()
        following.grace(self._longer_s())

    def _longer_s(self) -> float:
        """Who lost a term waits, each time twice as long, before it ends another."""
        bound_s = min(LOST_WAIT_CAP_S, LOST_WAIT_S * 2.0 ** min(self._lost, 16))
        self._lost += 1
        return bound_s * (0.5 + self._around.rng.random() / 2)

    async def close(self, deadline_s: float | None = None) -> None:
        """Write what was decided, then stop."""
        if self._deciding is not None:
            self._deciding.feed.close()
            await self._deciding.controller.close(deadline_s)
        await self.abort()

    async def abort(self) -> None:
        """Stop at once."""
        await self._around.wellness.close()
        if self._deciding is not None:
            self._deciding.feed.close()
            await self._deciding.controller.abort()
        if self._remote is not None:
            self._remote.close()
            self._remote = None
