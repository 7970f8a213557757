"""Becoming controller: make the cluster, or end the last term and own the next.

    1. read the metadata log to its tail; nothing there: create the cluster in term 0
    2. ask the registered brokers whether they are there; choose a node id, or refuse
    3. end the last term's log (PROTOCOL 4); who creates its `end` owns the next term
    4. read what came in before that end
    5. write the first object of the new term: whose it is, the new incarnation, whom it fences

A process that stands in the cluster already leaves out 2, and keeps its incarnation: it ends the
term of a controller that it suspects, if the log does not say since that the term goes on.

Fenced are those who were asked and do not answer, and the controller that was suspected. Others are
not: they will be heard, or missed.

A crash after any step leaves a log that the next process reads from step 1: after 3 an empty term,
which it ends at 0; after 5 a registration, which it finds unanswered and fences.
"""

from __future__ import annotations

import asyncio
import base64
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from random import Random

from objectstore.create import Backoff
from objectstore.errors import AccessDenied, NotFound, StoreError, StoreUnavailable, Throttled
from objectstore.store import ObjectStore
from s3stream.metadata.features import HEADWATER_VERSION
from s3stream.metadata.image import EMPTY_IMAGE, BrokerRegistration, MetadataImage
from s3stream.metadata.log import Unsnapshot
from s3stream.metadata.records import (
    BrokerRegistered,
    ClusterCreated,
    FeatureLevelSet,
    IncarnationFenced,
    Record,
    TermBegun,
)
from s3stream.metadata.tail import Loaded, load, read_on
from wal.errors import Fenced, HoleInLog, TrimmedAway
from wal.keys import meta_log, wal_log
from wal.seal import end_log

from .denial import is_definite, stop_when_denied
from .membership import Identity, choose_node_id, process_name, to_ask

log = logging.getLogger(__name__)

# PUTs in flight of a term's log; each start leaves one seal more than that behind, for ever.
TERM_WINDOW = 4
# A process that lost a term looks again after this, then twice as long, each time.
LOST_TERM_WAIT_S = 1.0
LOST_TERM_WAIT_CAP_S = 60.0

Answers = Callable[[BrokerRegistration, str], Awaitable[bool]]
CheckStore = Callable[[], Awaitable[None]]
# Whether another process decides, so that the term that was read must not be ended.
Elsewhere = Callable[[Loaded], Awaitable[bool]]
# Whether a broker's address refuses connections.
IsGone = Callable[[BrokerRegistration], Awaitable[bool]]


@dataclass(frozen=True, slots=True)
class Won:
    """A term is ours to write. first: records that its first object must hold.

    image: everything before.
    """

    term: int
    window: int
    image: MetadataImage
    node_id: int
    incarnation: int
    process: bytes
    first: list[Record]
    unsnapshot: Unsnapshot


@dataclass(frozen=True, slots=True)
class Standing:
    """Of a process that is registered."""

    node_id: int
    incarnation: int
    process: bytes


class Election:
    """One process's attempts to own a term.

    answers: asks a registered broker, with the cluster id, whether it is there. check_store: the
    test of conditional creates; raises UnsuitableStore. elsewhere, is_gone: see there; None: not
    asked. standing, loaded: of a process that is registered already, and what it has read.
    """

    def __init__(
        self,
        store: ObjectStore,
        identity: Identity,
        *,
        now_ms: Callable[[], int],
        rng: Random,
        answers: Answers,
        check_store: CheckStore,
        elsewhere: Elsewhere | None = None,
        is_gone: IsGone | None = None,
        standing: Standing | None = None,
        loaded: Loaded | None = None,
    ) -> None:
        self._store = store
        self._is_gone = is_gone
        self._elsewhere = elsewhere
        self._standing = standing
        self._loaded = loaded
        self._identity = identity
        self._now_ms = now_ms
        self._rng = rng
        self._answers = answers
        self._check_store = check_store
        self._checked = False
        self._lost = 0
        self._answering: list[BrokerRegistration] = []
        self._silent: set[int] = set()
        self._trouble: type[StoreError] | None = None

    async def run_once(self) -> Won | None:
        """A term, or None: another process was faster. Trouble of the store is waited out, a
        refusal is not.

        Raises StartRefused, AccessDenied, UnsuitableStore, Corrupt, HoleInLog; Fenced where a
        registered process finds that it is fenced.
        """
        backoff = Backoff(self._rng)
        denied = 0
        while True:
            try:
                return await self._attempt()
            except AccessDenied as error:
                denied += 1
                if is_definite(error, denied):
                    raise
                await asyncio.sleep(backoff.next_s())
                continue
            except (StoreUnavailable, Throttled) as error:
                self._tell_trouble(error)
                await asyncio.sleep(backoff.next_s())

    def _tell_trouble(self, error: StoreError) -> None:
        """Once for each kind of trouble, however often it is met."""
        if self._trouble is not type(error):
            self._trouble = type(error)
            log.warning("the store does not answer: %s; trying again until it does", error)

    async def wait_after_loss(self) -> None:
        """Who lost a term lets the winner get on its feet before it looks again."""
        bound_s = min(LOST_TERM_WAIT_CAP_S, LOST_TERM_WAIT_S * 2.0 ** min(self._lost, 16))
        self._lost += 1
        await asyncio.sleep(bound_s * (0.5 + self._rng.random() / 2))

    async def _attempt(self) -> Won | None:
        standing = self._standing
        if standing is not None and self._loaded is not None:
            loaded = await self._read_on(self._loaded)
            if loaded.image.goes_on_after(self._loaded.image):
                return None  # somebody decides
            if loaded.image.incarnations[standing.incarnation].fenced:
                # It did decide, about us: a process that is fenced ends nobody's term.
                raise Fenced(wal_log(standing.incarnation), 0, b"")
            node_id, process = standing.node_id, standing.process
        else:
            found = await load(self._store)
            if found is None:
                await self._test_store()
                return self._first_term()
            loaded = found
            if loaded.image.store != self._identity.store:
                await self._test_store()
            if self._elsewhere is not None and await self._elsewhere(loaded):
                return None
            node_id = await self._choose(loaded.image)
            process = self._process(node_id)
        ended = await end_log(
            self._store,
            meta_log(loaded.term),
            loaded.image.window,
            process,
            self._rng,
            on_trouble=stop_when_denied(),
        )
        if not ended.ours:
            return None
        # Crash here: the next term is empty, and ours only by name; the next process ends it.
        current = await self._read_to_end(loaded)
        if standing is not None and current.image.incarnations[standing.incarnation].fenced:
            # In the last records of the term that we ended; the next process ends this one.
            raise Fenced(wal_log(standing.incarnation), 0, b"")
        if (current.term, current.next_seq, current.owner) != (loaded.term + 1, 0, process):
            return None  # which is what another process did while this one was held up
        if standing is not None:
            return self._succession(current, standing)
        return self._next_term(current, node_id, process)

    async def _test_store(self) -> None:
        if not self._checked:
            await self._check_store()
            self._checked = True

    async def _choose(self, image: MetadataImage) -> int:
        asked = to_ask(image)
        answers = await asyncio.gather(
            *(self._answers(broker, image.cluster_id) for broker in asked)
        )
        self._answering = [one for one, there in zip(asked, answers, strict=True) if there]
        silent = [one for one, there in zip(asked, answers, strict=True) if not there]
        self._silent = {one.incarnation for one in silent if await self._is_lost(image, one)}
        node_ids = [broker.node_id for broker in self._answering]
        return choose_node_id(image.brokers, self._identity, node_ids)

    async def _is_lost(self, image: MetadataImage, broker: BrokerRegistration) -> bool:
        """Of one that did not answer: whether it is fenced for that. One question is little to go
        by, on a busy machine; but the controller was asked for longer before it came to this.
        """
        if self._is_gone is None:
            return True
        holder = image.holder
        return (holder is not None and holder.process == broker.process) or (
            await self._is_gone(broker)
        )

    def _process(self, node_id: int) -> bytes:
        return process_name(node_id, self._identity.listeners, self._rng.randbytes(16))

    async def tell_replaced(self, won: Won) -> None:
        """Ask those again that answered before they were replaced: so they find out at once.

        Their answer does not matter, nor whether there is one.
        """
        replaced, self._answering = self._answering, []
        await asyncio.gather(*(self._answers(old, won.image.cluster_id) for old in replaced))

    async def _read_to_end(self, loaded: Loaded) -> Loaded:
        backoff = Backoff(self._rng)
        while True:
            try:
                return await self._read_on(loaded)
            except (StoreUnavailable, Throttled) as error:
                self._tell_trouble(error)
                await asyncio.sleep(backoff.next_s())

    async def _read_on(self, loaded: Loaded) -> Loaded:
        return await read_on_or_again(self._store, loaded)

    def _first_term(self) -> Won:
        node_id = choose_node_id({}, self._identity, ())
        process = self._process(node_id)
        first: list[Record] = [
            ClusterCreated(
                new_cluster_id(self._rng), TERM_WINDOW, self._identity.store, self._now_ms()
            ),
            *self._begin(node_id, 0, process),
            # Nobody older can be in it, so what is written may be as new as we are.
            FeatureLevelSet(HEADWATER_VERSION, self._identity.level),
        ]
        return Won(0, TERM_WINDOW, EMPTY_IMAGE, node_id, 0, process, first, Unsnapshot())

    def _next_term(self, current: Loaded, node_id: int, process: bytes) -> Won:
        image = current.image
        incarnation = image.next_incarnation
        fenced: list[Record] = [
            IncarnationFenced(broker.incarnation)
            for broker in image.live_brokers()
            if broker.node_id != node_id and broker.incarnation in self._silent
        ]
        return Won(
            term=current.term,
            window=image.window,
            image=image,
            node_id=node_id,
            incarnation=incarnation,
            process=process,
            first=[*self._begin(node_id, incarnation, process), *fenced],
            unsnapshot=Unsnapshot(current.records, current.size_bytes, current.terms),
        )

    def _succession(self, current: Loaded, standing: Standing) -> Won:
        image = current.image
        first: list[Record] = [TermBegun(standing.process, standing.node_id, self._now_ms())]
        holder = None if image.holder is None else image.brokers.get(image.holder.node_id)
        if (
            holder is not None
            and holder.incarnation != standing.incarnation
            and not holder.fenced
            and image.holder is not None
            and holder.process == image.holder.process
        ):
            first.append(IncarnationFenced(holder.incarnation))
        return Won(
            term=current.term,
            window=image.window,
            image=image,
            node_id=standing.node_id,
            incarnation=standing.incarnation,
            process=standing.process,
            first=first,
            unsnapshot=Unsnapshot(current.records, current.size_bytes, current.terms),
        )

    def _begin(self, node_id: int, incarnation: int, process: bytes) -> list[Record]:
        identity = self._identity
        return [
            TermBegun(process, node_id, self._now_ms()),
            BrokerRegistered(
                node_id=node_id,
                incarnation=incarnation,
                process=process,
                window=identity.wal_window,
                listeners=identity.listeners,
                rack=identity.rack,
                address_http=identity.address_http,
                level=identity.level,
            ),
        ]


async def read_on_or_again(store: ObjectStore, loaded: Loaded) -> Loaded:
    """To the tail of the metadata log, from a newer snapshot where records went away meanwhile."""
    try:
        return await read_on(store, loaded)
    except (TrimmedAway, HoleInLog, NotFound):
        # Its owner wrote a snapshot and deleted below it while we were reading, or slept.
        again = await load(store)
        assert again is not None, "the cluster is gone"
        return again


def new_cluster_id(rng: Random) -> str:
    """22 characters; never a `-` in front, which command lines take for an option."""
    while True:
        cluster_id = base64.urlsafe_b64encode(rng.randbytes(16)).decode().rstrip("=")
        if not cluster_id.startswith("-"):
            return cluster_id
