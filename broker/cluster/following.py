"""A broker that does not decide: it follows the metadata log, and watches who writes it.

    poll        the controller's newest records, as soon as they are durable; nothing ticks here
    the bucket  while the controller is away, or keeps no more what comes next
    heartbeats  both ways: who is not answered suspects

An answer counts as of when the controller could still write what it decides: one that is cut off
from the store decides nothing, however well it answers. An address that refuses connections is that
of a dead process, and suspected soon.

Suspecting is not enough to end a term: first the log itself is read. A controller that misses
somebody, and hears at least half of the others, says in the log that its term goes on: then it is
this broker that is cut off. Other records prove nothing: one that hears almost nobody writes them
too.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from random import Random

from broker.controller.election import read_on_or_again
from broker.controller.fitness import STARTING
from broker.controller.membership import host_port
from objectstore.create import Backoff
from objectstore.errors import AccessDenied, NotFound, StoreUnavailable, Throttled
from objectstore.store import ObjectStore
from protocol.errors import KafkaError
from s3stream.metadata.image import BrokerRegistration, MetadataImage
from s3stream.metadata.records import Endpoint, Position
from s3stream.metadata.tail import Loaded, fold
from wal.errors import Fenced
from wal.keys import meta_log, wal_log

from .channel import Channel, Peers
from .heartbeats import NewSender
from .joining import holder_of
from .load import Load
from .messages import Heartbeat, HeartbeatBack, LogAfter, LogObjects, ReadTheBucket
from .wellness import Wellness

log = logging.getLogger(__name__)

POLL_WAIT_S = 30.0
# More than a poll may take: the controller is not there, or its answer was lost.
POLL_TIMEOUT_S = POLL_WAIT_S + 5.0
# While the controller is away the bucket is looked at so often.
BUCKET_EACH_S = 1.0
# Of the session time-out: an address that has refused for so long is suspected.
REFUSED_SHARE = 1 / 6
# Of the session time-out: a store that takes so long to be read kept the controller waiting too.
SLOW_STORE_SHARE = 1 / 4
# In heartbeats: one that has no answer yet is not without one.
DEAF = 1.5
# Without answers for so long, in heartbeats, the bucket is read: what the controller says there
# counts from when it is read.
READS_AFTER = 2.0
# Half a second, about.
MEETING_LOOKS = 5
# What is wrong with the metadata itself is not waited out: it ends the broker, loudly.
WAITED_OUT = (StoreUnavailable, Throttled, AccessDenied, NotFound)

# Timers may fire this early; waiting for the rest of it would be waiting for nothing.
_ROUNDING_S = 1e-3


class Following:
    """From `loaded` on, as `incarnation`.

    address: of a registered broker, for brokers. on_image: called with each image that follows.
    new_sender: of heartbeats. garbage: how often something became needless here. load,
    wellness: of this broker.
    """

    def __init__(
        self,
        store: ObjectStore,
        loaded: Loaded,
        incarnation: int,
        peers: Peers,
        address: Callable[[BrokerRegistration], Endpoint | None],
        *,
        session_timeout_s: float,
        heartbeat_s: float,
        new_sender: NewSender,
        on_image: Callable[[MetadataImage], None],
        garbage: Callable[[], int],
        load: Callable[[], Load],
        wellness: Wellness,
        rng: Random,
    ) -> None:
        self.loaded = loaded
        self.confirmed_at = float("-inf")
        self.has_heard = False  # whoever decides, since the owner of this said False
        self._store = store
        self._incarnation = incarnation
        self._peers = peers
        self._address = address
        self._session_timeout_s = session_timeout_s
        self._on_image = on_image
        self._garbage = garbage
        self._load = load
        self._wellness = wellness
        self._rng = rng
        now = asyncio.get_running_loop().time()
        self._heard_at = now
        # Any answer, whatever it was worth.
        self._answered_at = now
        self._refused_at: float | None = None
        self._reading = asyncio.Lock()
        self._told: Endpoint | None = None
        self._changed = asyncio.Event()
        self._new_sender = new_sender
        self._heartbeat_s = heartbeat_s

    @property
    def image(self) -> MetadataImage:
        return self.loaded.image

    def controller(self) -> Endpoint | None:
        """Where the one is that decides; None: nobody, as far as the image tells."""
        holder = holder_of(self.image)
        return None if holder is None or holder.fenced else self._address(holder)

    def grace(self, longer_s: float = 0.0) -> None:
        """Whoever decides is given the whole session time-out again, and so much longer."""
        now = asyncio.get_running_loop().time()
        self._heard_at = max(self._heard_at, now + longer_s)

    # Reading.

    async def read_bucket(self) -> bool:
        """Whether the log went on. Raises StoreError, LogError."""
        async with self._reading:
            before = self.image.position
            self._advance(await read_on_or_again(self._store, self.loaded))
            return self.image.position != before

    def _advance(self, loaded: Loaded) -> None:
        before, self.loaded = self.loaded.image, loaded
        if loaded.image is before:
            return
        if loaded.image.goes_on_after(before):
            self.grace()
        self._changed.set()
        self._on_image(loaded.image)

    def _fold(self, term: int, answer: LogObjects) -> None:
        """term: whose objects they are; the bucket may have told of a later one meanwhile."""
        loaded = self.loaded
        if term != loaded.term:
            return
        image, seq = loaded.image, loaded.next_seq
        records, size_bytes = loaded.records, loaded.size_bytes
        for one in answer.objects:
            if one.seq != seq:
                continue  # what the bucket told us meanwhile
            image = fold(image, meta_log(loaded.term), seq, one.records)
            seq += 1
            records += len(one.records)
            size_bytes += sum(map(len, one.records))
        self._advance(
            Loaded(
                image,
                loaded.term,
                seq,
                loaded.owner,
                loaded.snapshot,
                loaded.terms,
                records,
                size_bytes,
            )
        )

    async def _poll(self) -> None:
        backoff = Backoff(self._rng, 0.05)
        looked_at = float("-inf")
        loop = asyncio.get_running_loop()
        channel: Channel | None = None
        where: Endpoint | None = None
        try:
            while True:
                try:
                    where = self.controller()
                    if where is None:
                        raise ConnectionError("nobody is known to decide")
                    channel = await self._peers.open(where)
                    self._refused_at = None
                    backoff, self._told = Backoff(self._rng, 0.05), None
                    await self._poll_at(channel, where)
                except (OSError, TimeoutError, KafkaError, *WAITED_OUT) as error:
                    self._note_refused(isinstance(error, ConnectionRefusedError))
                    self._tell_unreachable(where, error)
                finally:
                    if channel is not None:
                        channel.close()
                        channel = None
                if loop.time() - looked_at >= BUCKET_EACH_S:
                    looked_at = loop.time()
                    try:
                        await self.read_bucket()
                    except WAITED_OUT as error:
                        log.debug("reading the metadata log: %s", error)
                await asyncio.sleep(backoff.next_s(BUCKET_EACH_S))
        finally:
            if channel is not None:
                channel.close()

    def _note_refused(self, refused: bool) -> None:
        """Of the last attempt to reach whoever decides. Others' time-outs prove nothing."""
        if not refused:
            self._refused_at = None
        elif self._refused_at is None:
            self._refused_at = asyncio.get_running_loop().time()
            self._changed.set()

    def _tell_unreachable(self, where: Endpoint | None, error: Exception) -> None:
        """Once for each address, until it is reached again."""
        if where is not None and where != self._told and isinstance(error, OSError | TimeoutError):
            self._told = where
            log.warning(
                "node %d, which decides, is not reached at %s (%s); the bucket tells meanwhile",
                -1 if self.image.holder is None else self.image.holder.node_id,
                host_port(where),
                error or type(error).__name__,
            )

    async def _poll_at(self, channel: Channel, where: Endpoint) -> None:
        """Until the controller is another one, or this one answers no more."""
        while self.controller() == where:
            place = self.loaded
            request = LogAfter(place.term, place.next_seq, round(POLL_WAIT_S * 1000))
            answer = await channel.call(request, LogObjects | ReadTheBucket, POLL_TIMEOUT_S)  # type: ignore[arg-type]
            self._answered_at = asyncio.get_running_loop().time()
            self.has_heard = True
            if isinstance(answer, LogObjects):
                if answer.objects:
                    self.grace()  # they are durable
                self._fold(place.term, answer)
            elif not await self.read_bucket():
                return  # it has nothing of what comes next, nor has the bucket: ask again later

    # Watching.

    def _beat(self, late_s: float) -> tuple[Endpoint | None, Heartbeat]:
        late_ms = round(late_s * 1000)
        deaf_s = asyncio.get_running_loop().time() - self._answered_at
        deaf_ms = round(deaf_s * 1000) if deaf_s > DEAF * self._heartbeat_s else 0
        said = Heartbeat(
            self._incarnation,
            self.image.position,
            late_ms,
            self._garbage(),
            self._load(),
            deaf_ms,
            self._wellness(),
        )
        return self.controller(), said

    def beat(self) -> Heartbeat:
        """What a heartbeat would say now."""
        return self._beat(0.0)[1]

    def _heard(self, sent_at: float, back: HeartbeatBack) -> None:
        if back.term < self.image.term:
            return  # it does not know yet that it was replaced
        now = asyncio.get_running_loop().time()
        self._answered_at = now
        self._heard_at = max(self._heard_at, now - back.waiting_ms / 1000)
        if back.unfit and back.unfit != STARTING:
            self._wellness.called_sick()
        else:
            self._wellness.called_fit()
        if back.known and back.confirmed_ms >= 0:
            self.confirmed_at = max(self.confirmed_at, sent_at - back.confirmed_ms / 1000)

    async def run(self) -> None:
        """Until the controller is to be succeeded. Raises Fenced: this incarnation was."""
        polling = asyncio.create_task(self._poll(), name="metadata-poll")
        # Each time a new one: a thread is started once.
        sender = self._new_sender(
            self._beat, self._heard, self._heartbeat_s, self._session_timeout_s / 2
        )
        beating = asyncio.create_task(sender.run(), name="heartbeats")
        reading = asyncio.create_task(self._read_while_deaf(), name="metadata-bucket")
        tasks = (polling, beating, reading)
        try:
            await self._watch(*tasks)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)

    async def _watch(self, *tasks: asyncio.Task[None]) -> None:
        loop = asyncio.get_running_loop()
        while True:
            self.raise_if_fenced()
            self._changed.clear()
            left_s = self._suspect_at() - loop.time()
            due = loop.time() + max(left_s, 0.0)
            changed = asyncio.create_task(self._changed.wait(), name="metadata-changed")
            try:
                await asyncio.wait(
                    (changed, *tasks),
                    timeout=max(left_s, 0.0),
                    return_when=asyncio.FIRST_COMPLETED,
                )
            finally:
                changed.cancel()
            for task in tasks:
                if task.done():
                    task.result()
            if loop.time() - due > self._session_timeout_s / 8:
                self._heard_at += loop.time() - due  # we slept: what was sent is not read yet
            if loop.time() < self._suspect_at() - _ROUNDING_S:
                continue
            if await self._is_silent():
                return

    async def _read_while_deaf(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            wait_s = self._answered_at + READS_AFTER * self._heartbeat_s - loop.time()
            if wait_s > _ROUNDING_S:
                await asyncio.sleep(wait_s)
                continue
            try:
                await self.read_bucket()
            except WAITED_OUT as error:
                log.debug("reading the metadata log: %s", error)
            await asyncio.sleep(BUCKET_EACH_S)

    @property
    def hears(self) -> bool:
        """Whether whoever decides is heard, and can write what it decides."""
        since = asyncio.get_running_loop().time() - self._heard_at
        return since < READS_AFTER * self._heartbeat_s and self._refused_at is None

    def _suspect_at(self) -> float:
        """None is given to one that left in good order, or was fenced by another that is gone."""
        holder = holder_of(self.image)
        if holder is not None and holder.fenced:
            return self._heard_at
        suspect_at = self._heard_at + self._session_timeout_s
        if self._refused_at is not None:
            refused_since = max(self._refused_at, self._heard_at)
            soon = refused_since + REFUSED_SHARE * self._session_timeout_s
            suspect_at = min(suspect_at, soon)
        return suspect_at

    async def _is_silent(self) -> bool:
        """Whether the log, too, does not say that the term goes on."""
        loop = asyncio.get_running_loop()
        began = loop.time()
        try:
            await self.read_bucket()
        except WAITED_OUT as error:
            log.debug("the controller is silent, and the store too: %s", error)
            await asyncio.sleep(BUCKET_EACH_S)
            # It may have waited for the store as we did, and is well now.
            self.grace()
            return False
        if loop.time() - began > SLOW_STORE_SHARE * self._session_timeout_s:
            self.grace()
        return loop.time() >= self._suspect_at() - _ROUNDING_S

    async def meet_winner(self) -> None:
        """After a term was lost: whoever won it is about to say so in the log, and the one before
        may still answer, and tell nothing of that.
        """
        before, backoff = self.image, Backoff(self._rng, 0.05)
        for _ in range(MEETING_LOOKS):
            try:
                await self.read_bucket()
            except WAITED_OUT as error:
                log.debug("reading the metadata log: %s", error)
            if self.image.goes_on_after(before):
                return
            await asyncio.sleep(backoff.next_s())

    def raise_if_fenced(self) -> None:
        """Raises Fenced where the image says so of this incarnation."""
        state = self.image.incarnations.get(self._incarnation)
        if state is not None and state.fenced:
            newer = self.image.brokers.get(state.node_id)
            by = b"" if newer is None or newer.incarnation == self._incarnation else newer.process
            holder = self.image.holder
            raise Fenced(wal_log(self._incarnation), 0, by or (holder.process if holder else b""))

    async def catch_up(self, position: Position) -> None:
        """Until the image is there. Raises LogError."""
        backoff = Backoff(self._rng)
        while self.image.position < position:
            try:
                await self.read_bucket()
            except WAITED_OUT as error:
                log.warning("reading the metadata log waits: %s", error)
            if self.image.position < position:
                await asyncio.sleep(backoff.next_s())
