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
import random
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from pathlib import Path

from broker.api.handlers import HANDLERS
from broker.config import BrokerConfig
from broker.controller import Controller, Identity, Recovered, TopicDefaults
from broker.controller.answering import STARTING_CLIENT_ID, broker_answers
from broker.controller.denial import Denial, is_definite
from broker.coordinator import GroupConfig, GroupCoordinator
from objectstore.create import Backoff
from objectstore.errors import (
    AccessDenied,
    Corrupt,
    NotFound,
    StoreError,
    StoreUnavailable,
    Throttled,
)
from objectstore.layers import LayeredStore
from objectstore.probe import check_conditional_create
from objectstore.settings import StoreSettings
from objectstore.store import ObjectStore
from objectstore.wrappers.meter import MeterStore, RequestMeter
from objectstore.wrappers.priority import Priority
from objectstore.wrappers.retry import PATIENT, RetryStore
from protocol.errors import KafkaError
from protocol.header import decode_request_header
from s3stream.block_cache import BlockCache
from s3stream.disk_cache import DiskCache
from s3stream.metadata.image import BrokerRegistration, IncarnationState, MetadataImage
from s3stream.metadata.records import Endpoint, Position
from s3stream.node_log import StreamStorage
from s3stream.takeover import recover, write_recovery_object
from wal.errors import Fenced, HoleInLog, LogError, TrimmedAway
from wal.keys import parse_data_key
from wal.seal import LogEnd

from .config_rules import BrokerConfigRules
from .confirmation import Confirmation
from .connection import Connection, ConnectionLimits
from .dispatch import Dispatcher
from .leading import Leading
from .maintenance import Maintenance
from .memory_pool import request_memory
from .metrics import BrokerMetrics
from .network import Network
from .node_metrics import register_metrics
from .outcome import CloseConnection, Outcome
from .partition.fetch_session import FetchSessions
from .partition.partitions import Partitions
from .producer_ids import ProducerIds
from .response_memory import ResponseMemory
from .server import ListenAddress, Server
from .services import Services
from .storage_config import stream_config
from .trouble import Trouble
from .upkeep import Upkeep, merge_runner

log = logging.getLogger(__name__)

DRAIN_S = 3.0
CONFIRM_S = 30.0


@dataclass(frozen=True, slots=True)
class Environment:
    """What a node takes from outside.

    store_name: driver and endpoint, as the probe is kept by. billed: the store charges for
    requests. cache_dir: None for no disk cache. merge_uri, merge_settings: of the same store, for
    the process in which history is merged; None: it is merged in this one. on_request: called for
    each one, before it is handled.
    """

    store: ObjectStore
    store_name: str
    network: Network
    now_ms: Callable[[], int]
    rng: random.Random
    executor: Executor | None = None
    cache_dir: Path | None = None
    billed: bool = False
    merge_uri: str | None = None
    merge_settings: StoreSettings | None = None
    on_request: Callable[[], None] | None = None


class Node:
    """One broker: `start`, then `run` until it returns or raises, then `close`."""

    def __init__(self, config: BrokerConfig, environment: Environment) -> None:
        self.config = config
        self.environment = environment
        self.metrics = BrokerMetrics()
        self._stores, self.meter = _by_priority(environment.store)
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
        self._controller: Controller | None = None
        self._storage: StreamStorage | None = None
        self._block_cache: BlockCache | None = None
        self._leading: Leading | None = None
        self._maintenance: Maintenance | None = None
        self._upkeep: Upkeep | None = None
        self._upkeep_task: asyncio.Task[None] | None = None
        self._recovery_numbers: list[int] = []
        self._tasks: list[asyncio.Task[None]] = []

    # -- what tests and tools look at

    @property
    def controller(self) -> Controller:
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
    def is_ready(self) -> bool:
        """Serves clients, and can acknowledge a write as far as is known."""
        return self._serving.is_set() and not self.trouble.reasons

    # -- requests

    async def handle(self, connection: Connection, frame: memoryview) -> Outcome:
        """See connection.Handler: a request that comes before its time waits."""
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
        self._controller = controller = Controller(
            self._stores[Priority.WAL],
            Identity(
                node_id=config.optional_int("node.id"),
                take_over=config.flag("take.over"),
                listeners=advertised(config, ports),
                store=env.store_name,
                wal_window=config.int("wal.window"),
                rack=config.optional_text("broker.rack"),
                address_http=config.optional_text("http"),
            ),
            rules=BrokerConfigRules(lambda: self.config),
            defaults=self._topic_defaults,
            answers=self._answers,
            check_store=lambda: check_conditional_create(self.store, env.rng),
            now_ms=env.now_ms,
            rng=env.rng,
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
        confirmation = Confirmation(storage, config.int("broker.session.timeout.ms") / 1000)
        await controller.finish_failovers(self._recover)
        storage.numbers.settle(self._recovery_numbers)  # named by durable records, or given up
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
        )
        self._dispatcher = Dispatcher(services, HANDLERS)
        register_metrics(self)
        raise_first(self._tasks)
        self._serving.set()

    async def _open_disk_cache(self, controller: Controller) -> DiskCache | None:
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
            except Corrupt:
                # Of some partitions only; the others are served, and these are tried again.
                log.exception("some partitions cannot be opened")
                return
            else:
                return

    def _start_upkeep(self, controller: Controller, storage: StreamStorage) -> None:
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

    async def _answers(self, broker: BrokerRegistration, cluster_id: str) -> bool:
        # An address that we hold ourselves cannot be the old broker's. One that we are only to
        # advertise may still lead to it: two machines with the same settings.
        ours = {(one.bind.host, self._ports[one.name]) for one in self.config.listeners}
        others = [e for e in broker.listeners if (e.host, e.port) not in ours]
        return await broker_answers(self.environment.network, others, cluster_id)

    async def _recover(self, state: IncarnationState, ended: LogEnd) -> Recovered:
        """Read an ended log once and write down what it held."""
        # Hundreds of reads; one that fails must not make all of them begin again.
        store = RetryStore(self._stores[Priority.WAL], self.environment.rng, PATIENT)
        recovered = await recover(store, state.incarnation, ended.end)
        entries = recovered.entries
        if not entries:
            return Recovered({}, None)
        blobs = await write_recovery_object(recovered, self.storage.object_writer)
        made = (parse_data_key(blob.key) for blob in blobs)
        self._recovery_numbers += [one[1] for one in made if one is not None]
        opened = {one: Position(*entries[one].appointment) for one in sorted(entries)}
        return Recovered(opened, blobs[0])

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
        """Answer what was received, make it durable, leave a short log behind."""
        loop = asyncio.get_running_loop()
        end = loop.time() + deadline_s
        if self._upkeep_task is not None:
            self._upkeep_task.cancel()  # a merge is not worth waiting for
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
            await self._controller.close(max(end - loop.time(), 0.1))
        await self.abort()

    async def abort(self) -> None:
        """End at once; what was acknowledged is in the store, as after a crash."""
        self.trouble.close()
        await self.server.abort()
        self.groups.close()
        if self._leading is not None:
            self._leading.close()
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


def _by_priority(store: ObjectStore) -> tuple[dict[Priority, ObjectStore], RequestMeter]:
    """The store for each class of requests, and what counts them all.

    A store without layers is the same for all classes.
    """
    if isinstance(store, LayeredStore):
        return {one: store.at(one) for one in Priority}, store.meter
    metered = MeterStore(store, RequestMeter())
    return dict.fromkeys(Priority, metered), metered.meter


def advertised(config: BrokerConfig, ports: dict[str, int]) -> tuple[Endpoint, ...]:
    """What clients are told, with the port really bound where 0 was asked."""
    told = []
    for one in config.listeners:
        address = one.advertised or one.bind
        told.append(Endpoint(one.name, address.host, address.port or ports[one.name]))
    return tuple(told)


def group_config(config: BrokerConfig) -> GroupConfig:
    """The group coordinator's settings, by Kafka's keys."""
    return GroupConfig(
        group_min_session_timeout_ms=config.int("group.min.session.timeout.ms"),
        group_max_session_timeout_ms=config.int("group.max.session.timeout.ms"),
        group_initial_rebalance_delay_ms=config.int("group.initial.rebalance.delay.ms"),
        group_max_size=config.int("group.max.size"),
        offsets_retention_minutes=config.int("offsets.retention.minutes"),
        offsets_retention_check_interval_ms=config.int("offsets.retention.check.interval.ms"),
        offset_metadata_max_bytes=config.int("offset.metadata.max.bytes"),
        offset_commit_timeout_ms=config.int("offsets.commit.timeout.ms"),
        offsets_topic_num_partitions=config.int("offsets.topic.num.partitions"),
        offsets_topic_segment_bytes=config.int("offsets.topic.segment.bytes"),
        offsets_topic_replication_factor=config.int("offsets.topic.replication.factor"),
    )
