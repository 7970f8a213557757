"""The one place that wires a broker's parts, used alike by `headwater start`, tests and simulation.

Order of a start:

    1. listeners are bound (a busy port stops the start), nothing is served
    2. the controller joins the cluster: own term, own incarnation, the old one fenced
    3. this incarnation's log is open; logs of fenced incarnations are ended and read
    4. what the image gives this broker is opened and reported
    5. groups load, requests are served

A `Fenced` that leaves a part ends the node: somebody else owns what it wrote to.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence

from broker.api.handlers import HANDLERS
from broker.cluster.drain import Drain
from broker.cluster.member import Member
from broker.cluster.secret import Secret
from broker.cluster.serving import PeerServer
from broker.cluster.wire import is_internal
from broker.config import BrokerConfig
from broker.controller import TopicDefaults
from broker.controller.answering import STARTING_CLIENT_ID
from broker.controller.denial import Denial, is_definite
from broker.coordinator import GroupCoordinator
from objectstore.create import Backoff
from objectstore.errors import (
    AccessDenied,
    Corrupt,
    NotFound,
    StoreError,
    StoreUnavailable,
    Throttled,
)
from objectstore.wrappers.priority import Priority
from protocol.errors import ErrorCode, KafkaError
from protocol.header import decode_request_header
from s3stream.block_cache import BlockCache
from s3stream.disk_cache import DiskCache
from s3stream.metadata.image import MetadataImage
from s3stream.node_log import StreamStorage
from wal.errors import Fenced, HoleInLog, LogError, TrimmedAway

from .config_rules import BrokerConfigRules
from .confirmation import Confirmation
from .connection import Connection, ConnectionLimits
from .dispatch import Dispatcher
from .environment import Environment
from .failovers import Failovers
from .leading import Leading
from .maintenance import Maintenance
from .memory_pool import request_memory
from .metrics import BrokerMetrics
from .node_load import load_meter
from .node_member import new_member
from .node_metrics import register_metrics
from .node_racks import new_rack_reads, register_rack_metrics
from .node_settings import by_priority, group_config
from .node_symptoms import NodeSymptoms
from .outcome import CloseConnection, Outcome
from .partition.fetch_session import FetchSessions
from .partition.partitions import Partitions
from .producer_ids import ProducerIds
from .racks.rack_reads import RackReads
from .response_memory import ResponseMemory
from .server import ListenAddress, Server
from .services import Services
from .storage_config import stream_config
from .trouble import Trouble
from .upkeep import Upkeep, merge_runner

log = logging.getLogger(__name__)

MOVE_AWAY_S = 10.0
DRAIN_S = 3.0
LEAVE_S = 1.0
SERVES_S = 1.0
CONFIRM_S = 30.0


class Node:
    """One broker: `start`, then `run` until it returns or raises, then `close`."""

    def __init__(self, config: BrokerConfig, environment: Environment) -> None:
        self.config = config
        self.environment = environment
        self.metrics = BrokerMetrics()
        self._stores, self.meter = by_priority(environment.store)
        self.trouble = Trouble()
        self._denial = Denial()
        self.store = self._stores[Priority.READ]
        self.pool = request_memory(config.int("memory.request.bytes"))
        self.server = Server(
            environment.network,
            self,
            self.pool,
            ConnectionLimits(
                max_frame_bytes=config.int("socket.request.max.bytes"),
                idle_s=config.int("connections.max.idle.ms") / 1000,
                max_in_flight=config.int("in.flight.produce.per.connection"),
            ),
            config.int("max.connections"),
            config.int("max.connections.per.ip"),
        )
        self.partitions = Partitions()
        self.groups = GroupCoordinator(group_config(config), environment.now_ms, environment.rng)
        self._on_request = environment.on_request
        self._serving = asyncio.Event()
        self._ports: dict[str, int] = {}
        self._dispatcher: Dispatcher | None = None
        self._services: Services | None = None
        self._controller: Member | None = None
        self._storage: StreamStorage | None = None
        self._block_cache: BlockCache | None = None
        self._leading: Leading | None = None
        self._maintenance: Maintenance | None = None
        self._upkeep: Upkeep | None = None
        self._upkeep_task: asyncio.Task[None] | None = None
        self._peers: PeerServer | None = None
        self._racks: RackReads | None = None
        self._failovers: Failovers | None = None
        self._failover_task: asyncio.Task[None] | None = None
        self._tasks: list[asyncio.Task[None]] = []

    # -- what tests and tools look at

    @property
    def controller(self) -> Member:
        assert self._controller is not None, "not started"
        return self._controller

    @property
    def storage(self) -> StreamStorage:
        assert self._storage is not None, "not started"
        return self._storage

    @property
    def services(self) -> Services:
        assert self._services is not None, "not started"
        return self._services

    @property
    def block_cache(self) -> BlockCache:
        assert self._block_cache is not None, "not started"
        return self._block_cache

    @property
    def upkeep(self) -> Upkeep:
        assert self._upkeep is not None, "not started"
        return self._upkeep

    @property
    def is_member(self) -> bool:
        """It was given a node id and an incarnation."""
        return self._controller is not None and self._controller.is_registered

    @property
    def is_ready(self) -> bool:
        """Serves clients, and can acknowledge a write as far as is known."""
        return self._serving.is_set() and not self.trouble.reasons

    # -- requests

    async def handle(self, connection: Connection, frame: memoryview) -> Outcome:
        """See connection.Handler: a request that comes before its time waits."""
        if is_internal(frame):
            # Before we serve clients too: who owns a term is asked from then on.
            if self._peers is None:
                raise CloseConnection("not a member yet")
            return await self._peers.handle(connection, frame)
        if not self._serving.is_set():
            if decode_request_header(frame).client_id == STARTING_CLIENT_ID:
                # Perhaps our own question, at an address that we were given by another name.
                raise CloseConnection("not serving yet")
            await self._serving.wait()
        assert self._dispatcher is not None
        if self._on_request is not None:
            self._on_request()
        return await self._dispatcher.handle(connection, frame)

    # -- starting

    async def start(self) -> None:
        """Serve clients when it returns. Raises AddressInUse, StartRefused, StoreError, Fenced."""
        try:
            # Without a permission that it needs a start would wait for ever, and tell nobody.
            await self._denial.guard(self._start())
        except KafkaError as error:
            await self.abort()
            # A decision that this start needs met the end of its term: we were replaced already.
            if isinstance(error.__cause__, Fenced):
                raise error.__cause__ from None
            raise
        except (HoleInLog, TrimmedAway, NotFound, Corrupt):
            # Who was replaced finds things gone that its successor took over and let be deleted.
            fenced = await self._fenced()
            await self.abort()
            if fenced is not None:
                raise fenced from None
            raise
        except BaseException:
            await self.abort()
            raise

    async def _fenced(self) -> Fenced | None:
        """Whether another process has ended our term; None also where nobody can tell."""
        if self._controller is None or self._storage is None:
            return None  # the controller has no term of ours yet
        backoff = Backoff(self.environment.rng)
        try:
            async with asyncio.timeout(CONFIRM_S):
                while True:
                    try:
                        await self._controller.confirm()
                        return None
                    except StoreError:
                        await asyncio.sleep(backoff.next_s())
        except Fenced as error:
            return error
        except (LogError, TimeoutError):
            return None

    async def _start(self) -> None:
        config, env = self.config, self.environment
        ports = await self.server.listen(
            [ListenAddress(one.name, one.bind.host, one.bind.port) for one in config.listeners]
        )
        self._ports = ports
        secret = Secret(self.store)
        self._peers = PeerServer(secret, env.rng)
        self._controller = controller = new_member(
            self.config,
            env,
            ports,
            secret,
            self._peers,
            store=self._stores[Priority.WAL],
            probed=self.store,
            rules=BrokerConfigRules(lambda: self.config),
            defaults=self._topic_defaults,
            upkeep=lambda: self._upkeep,
            symptoms=NodeSymptoms(
                self._serving.is_set, lambda: self._storage, lambda: self._block_cache, self.pool
            ),
            meter=load_meter(self.metrics, self.partitions, env.process_use),
            term_won=self._term_won,
            on_trouble=lambda error: self.trouble.tell("the metadata log", error),
        )
        await controller.start()
        self._spawn(controller.run(), "controller")
        self._apply_config(controller.image)
        controller.subscribe(self._config_changed)
        self._block_cache = BlockCache(
            config.int("cache.memory.bytes"), await self._open_disk_cache(controller)
        )
        self._storage = storage = StreamStorage(
            self.store,
            controller.incarnation,
            controller.wal_window,
            stream_config(self.config, billed=env.billed),
            rng=env.rng,
            now_ms=env.now_ms,
            block_cache=self._block_cache,
            wal_store=self._stores[Priority.WAL],
            upload_store=self._stores[Priority.UPLOAD],
            on_trouble=lambda error: self._met("the write-ahead log", error),
            on_upload_trouble=lambda error: self._met("data objects", error, blocks=False),
        )
        self._spawn(storage.run(), "storage")
        confirmation = Confirmation(
            storage,
            config.int("broker.session.timeout.ms") / 1000,
            heard_at=lambda: controller.confirmed_at,
        )
        self._failovers = failovers = Failovers(
            controller, storage, self._stores[Priority.WAL], env.rng
        )
        await failovers.finish()
        controller.subscribe(failovers.image_changed)
        self._spawn(failovers.run(), "failovers")
        self._failover_task = self._tasks[-1]
        self._leading = leading = Leading(
            controller,
            storage,
            confirmation,
            self.partitions,
            self.groups,
            lambda: self.config,
            env.now_ms,
            env.rng,
        )
        await self._open_partitions(leading)
        self._spawn(leading.run(), "leading")
        self._maintenance = Maintenance(self)
        self._spawn(self._maintenance.run(), "maintenance")
        self._start_upkeep(controller, storage)
        self._racks = racks = new_rack_reads(self, secret, self._peers, confirmation)
        self._spawn(racks.run(), "rack reads")
        self._services = services = Services(
            config=self.config,
            controller=controller,
            storage=storage,
            confirmation=confirmation,
            partitions=self.partitions,
            groups=self.groups,
            sessions=FetchSessions(
                config.int("max.incremental.fetch.session.cache.slots"), env.rng
            ),
            producer_ids=ProducerIds(controller),
            responses=ResponseMemory(config.int("memory.response.bytes")),
            metrics=self.metrics,
            now_ms=env.now_ms,
            rng=env.rng,
            settled=leading.settled,
            led_on=leading.led_on,
            racks=racks,
        )
        self._dispatcher = Dispatcher(services, HANDLERS)
        register_metrics(self)
        register_rack_metrics(self)
        raise_first(self._tasks)
        self._serving.set()
        await controller.serves(SERVES_S)

    async def _open_disk_cache(self, controller: Member) -> DiskCache | None:
        env, size_bytes = self.environment, self.config.int("cache.disk.bytes")
        if env.cache_dir is None or not size_bytes:
            return None
        return await DiskCache.open(
            env.cache_dir,
            size_bytes,
            controller.image.cluster_id,
            controller.node_id,
            executor=env.executor,
        )

    async def _open_partitions(self, leading: Leading) -> None:
        backoff = Backoff(self.environment.rng)
        refused = 0
        while True:
            try:
                await leading.reconcile()
            except AccessDenied as error:
                refused += 1
                if is_definite(error, refused):
                    raise
                await asyncio.sleep(backoff.next_s())
            except (Throttled, StoreUnavailable) as error:
                log.warning("opening partitions waits for the store: %s", error)
                await asyncio.sleep(backoff.next_s())
            except KafkaError as error:
                if error.code is not ErrorCode.REQUEST_TIMED_OUT:
                    raise
                # Nobody decides at the moment: what is open is served, and reported later.
                log.warning("openings are not reported yet: %s", error)
                return
            except Corrupt:
                # Of some partitions only; the others are served, and these are tried again.
                log.exception("some partitions cannot be opened")
                return
            else:
                return

    def _start_upkeep(self, controller: Member, storage: StreamStorage) -> None:
        env = self.environment
        store = self._stores[Priority.COMPACTION]
        self._upkeep = upkeep = Upkeep(
            storage,
            controller,
            self.config,
            runner=merge_runner(
                self.config, store, uri=env.merge_uri, settings=env.merge_settings, rng=env.rng
            ),
            decides=lambda: controller.owns_term,
            store=store,
            rng=env.rng,
        )
        controller.subscribe(upkeep.image_changed)
        self._spawn(upkeep.run(), "upkeep")
        self._upkeep_task = self._tasks[-1]

    def _topic_defaults(self) -> TopicDefaults:
        return TopicDefaults(
            self.config.int("num.partitions"), self.config.int("default.replication.factor")
        )

    def _term_won(self) -> None:
        """This process decides now: what the one before left unfinished, or undeleted."""
        if self._upkeep is not None:
            self._upkeep.rounds.wanted()
        if self._failovers is not None:
            self._failovers.wanted()

    def _met(self, part: str, error: StoreError | None, *, blocks: bool = True) -> None:
        self._denial.note(part, error)
        self.trouble.tell(part, error, blocks=blocks)

    def _config_changed(self, old: MetadataImage, new: MetadataImage) -> None:
        if old.configs is not new.configs:
            self._apply_config(new)

    def _apply_config(self, image: MetadataImage) -> None:
        """Take over dynamic settings: the immutable view is swapped."""
        node_id = str(self.controller.node_id)
        self.config = self.config.with_overrides(
            image.resource_configs("broker", ""), image.resource_configs("broker", node_id)
        )
        if self._services is not None:
            self._services.config = self.config
        if self._leading is not None:
            self._leading.set_config()

    def _spawn(self, coroutine: object, name: str) -> None:
        self._tasks.append(asyncio.create_task(coroutine, name=name))  # type: ignore[arg-type]

    # -- running and ending

    async def run(self) -> None:
        """Until a part ends, which is an error, or the caller cancels. Raises Fenced."""
        await asyncio.wait(self._tasks, return_when=asyncio.FIRST_COMPLETED)
        raise_first(self._tasks)
        ended = [task.get_name() for task in self._tasks if task.done()]
        raise AssertionError(f"ended by themselves: {ended}")

    async def close(self, deadline_s: float = 6.0) -> None:
        """Move what is led here to the others, where there are any; answer what was received, make
        it durable, leave a short log behind.

        deadline_s: of what comes after the moves, which have a time of their own.
        """
        if self._serving.is_set() and self._controller is not None:
            await Drain(self._controller).run(MOVE_AWAY_S)
        loop = asyncio.get_running_loop()
        end = loop.time() + deadline_s
        for task in (self._upkeep_task, self._failover_task):
            if task is not None:
                task.cancel()  # a merge is not worth waiting for; another ends what is begun
        await self.server.drain(min(DRAIN_S, deadline_s / 2))
        self.groups.close()
        if self._leading is not None:
            self._leading.close()
        if self._storage is not None:
            try:
                await self._storage.close(max(end - loop.time(), 0.1))
            except (StoreError, LogError) as error:
                log.warning("the log is left for recovery at the next start: %s", error)
        if self._controller is not None:
            if self._controller.is_registered:
                await self._controller.leave(min(LEAVE_S, max(end - loop.time(), 0.1)))
            await self._controller.close(max(end - loop.time(), 0.1))
        await self.abort()

    async def abort(self) -> None:
        """End at once; what was acknowledged is in the store, as after a crash."""
        self.trouble.close()
        await self.server.abort()
        self.groups.close()
        if self._leading is not None:
            self._leading.close()
        if self._racks is not None:
            self._racks.close()
        if self._storage is not None:
            await self._storage.abort()
        if self._controller is not None:
            await self._controller.abort()
        if self._block_cache is not None:
            await self._block_cache.close()
            self._block_cache = None
        tasks, self._tasks = self._tasks, []
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
        for task in tasks:
            if not task.cancelled():
                task.exception()


def raise_first(tasks: Sequence[asyncio.Task[None]]) -> None:
    """Raise what parts ended with, if any did: `Fenced` first, the rest may follow from it."""
    ended = [task for task in tasks if task.done() and not task.cancelled()]
    errors = [error for task in ended if (error := task.exception()) is not None]
    for error in sorted(errors, key=lambda error: not isinstance(error, Fenced)):
        raise error
