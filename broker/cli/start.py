"""`headwater start`: one broker, from its settings to its exit status."""

from __future__ import annotations

import argparse
import asyncio
import gc
import logging
import os
import random
import resource
import signal
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from broker.admin_http import AdminHttp, Health
from broker.cluster.heartbeat_thread import HeartbeatThread
from broker.cluster.lifetime import Lifetime
from broker.config import BrokerConfig, ConfigError
from broker.config.broker_config import Given
from broker.controller import StartRefused
from broker.controller.membership import address_of
from broker.environment import Environment
from broker.heap import QuietHeap, keep_freed_buffers
from broker.network import TcpNetwork
from broker.node import Node
from broker.server import AddressInUse
from objectstore.errors import StoreError
from objectstore.open import create_bucket, display_uri, open_store, parse_uri, s3_address
from objectstore.settings import StoreSettings
from objectstore.store import ObjectStore
from s3stream.metadata.records import Endpoint
from wal.errors import Fenced, LogError

from . import exit_status
from .process_use import process_use
from .settings import load_settings, store_settings

log = logging.getLogger("headwater")

# Docker kills ten seconds after it asked; every part of the end fits into this.
STOP_WITHIN_S = 7.5
NODE_CLOSE_S = 6.0
# For files: as many as uploads have under way at once, the log's window, and some for readers. A
# thread is made when all others are busy. Fewer, and the log waits for an upload's fsync.
EXECUTOR_THREADS = 16
# Files that clients may never take: the store's sockets, the disk cache, logs, the admin address.
RESERVED_FILES = 256
LEAST_CONNECTIONS = 16


class StartFailed(Exception):
    """The message is for the operator. status: what to exit with."""

    def __init__(self, message: str, status: int = exit_status.FAILED) -> None:
        super().__init__(message)
        self.status = status


def run(parsed: argparse.Namespace) -> int:
    try:
        loaded = load_settings(parsed, flags_of(parsed))
        config = loaded.config
        settings = store_settings(config)
        uri = config.text("store")
        parse_uri(uri)
    except (ConfigError, ValueError) as error:
        return _complain(str(error), exit_status.USAGE)
    _configure_logging(config.text("log.level"))
    for warning in loaded.warnings:
        log.warning("%s", warning)
    if parsed.workers is not None and parsed.workers != 1:
        if parsed.workers < 1:
            return _complain("--workers: at least 1", exit_status.USAGE)
        from .workers import run as run_workers

        return run_workers(parsed, config, paste_line)
    config = _with_file_limit(config)
    start = Start(config, settings, uri, stop_at_eof=parsed.worker, paste=not parsed.worker)
    return run_broker(start)


@dataclass(frozen=True)
class Start:
    """stop_at_eof: end when stdin does, as an embedded broker ends with its parent. paste: print
    what to try, once it is ready.
    """

    config: BrokerConfig
    settings: StoreSettings
    uri: str
    stop_at_eof: bool = False
    paste: bool = False


def run_broker(start: Start) -> int:
    """Runs until a signal or a failure; the exit status."""
    import uvloop

    keep_freed_buffers(os.environ)
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            return runner.run(_serve(start))
    except StartFailed as error:
        return _complain(str(error), error.status)


def _complain(message: str, status: int) -> int:
    print(f"headwater: {message}", file=sys.stderr, flush=True)
    return status


def flags_of(parsed: argparse.Namespace) -> dict[str, str]:
    """Settings by key, for the flags that were given."""
    flags = {
        "store": parsed.store,
        "create.bucket": "true" if parsed.create_bucket else None,
        "listeners": ",".join(parsed.listener) if parsed.listener else None,
        "advertised.listeners": parsed.advertised,
        "node.id": parsed.node_id,
        "take.over": "true" if parsed.take_over else None,
        "broker.rack": parsed.rack,
        "http": parsed.http,
        "cache.dir": parsed.cache_dir,
        "log.level": parsed.log_level,
    }
    return {key: text for key, text in flags.items() if text is not None}


def _configure_logging(level: str) -> None:
    logging.basicConfig(
        level=level.upper(),
        stream=sys.stderr,
        format="%(asctime)s %(levelname)s %(name)s: %(message)s",
    )
    # The libraries below tell of every request at debug, and of their own setting up at info.
    for library in ("botocore", "aiobotocore", "asyncio", "urllib3"):
        logging.getLogger(library).setLevel(max(logging.WARNING, logging.getLogger().level))


def _with_file_limit(config: BrokerConfig) -> BrokerConfig:
    """Raise the soft file limit to the hard one; clients never get the last of it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
            soft = hard
        except (ValueError, OSError) as error:
            log.warning("the file limit stays at %d: %s", soft, error)
    if soft == resource.RLIM_INFINITY:
        return config
    allowed = max(LEAST_CONNECTIONS, soft - RESERVED_FILES - config.int("storage.connections"))
    if config.int("max.connections") <= allowed:
        return config
    if "max.connections" in config.static:
        log.warning("max.connections is cut to %d: the file limit is %d", allowed, soft)
    static = {**config.static, "max.connections": Given(allowed, "the file limit")}
    return replace(config, static=static)


async def store_door(uri: str, settings: StoreSettings) -> tuple[str, bool]:
    """Driver and endpoint, by which a start tells another door to the store, which it tests anew;
    and whether requests there cost money.
    """
    parsed = parse_uri(uri)
    if parsed.scheme != "s3":
        return parsed.scheme, False
    address = await s3_address(parsed, settings)
    return f"s3 {settings.s3_driver} {address.endpoint or 'aws'}", address.is_billed


def cache_directory(config: BrokerConfig, uri: str) -> Path | None:
    """None: no disk cache. A store in memory needs none, and its cluster is gone with it; one in
    files would be kept on disk twice, and read at half the speed, unless a directory is named.
    """
    scheme = parse_uri(uri).scheme
    if scheme == "memory" or config.int("cache.disk.bytes") == 0:
        return None
    given = config.optional_text("cache.dir")
    if given is not None:
        return Path(given)
    if scheme == "file":
        return None
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "headwater"


class _Stopping:
    """The first signal asks for a graceful end, the second ends at once."""

    def __init__(self, stop_at_eof: bool) -> None:
        self.asked = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            self._loop.add_signal_handler(number, self._signalled)
        if stop_at_eof:
            self._loop.add_reader(sys.stdin.fileno(), self._readable)

    def _signalled(self) -> None:
        if self.asked.is_set():
            os._exit(exit_status.ENDED_AT_ONCE)
        self.asked.set()

    def _readable(self) -> None:
        if not os.read(sys.stdin.fileno(), 4096):
            self._loop.remove_reader(sys.stdin.fileno())
            self.asked.set()


async def _serve(start: Start) -> int:
    stopping = _Stopping(start.stop_at_eof)
    executor = ThreadPoolExecutor(EXECUTOR_THREADS, thread_name_prefix="headwater")
    store = await _open_store(start, executor)
    if store is None:
        return exit_status.OK
    try:
        return await _serve_store(start, stopping, store, executor)
    finally:
        await store.close()
        # Not waited for: a call that hangs in the store must not hold up the end.
        executor.shutdown(wait=False, cancel_futures=True)


async def _open_store(start: Start, executor: ThreadPoolExecutor) -> ObjectStore | None:
    try:
        if start.config.flag("create.bucket"):
            await create_bucket(start.uri, start.settings)
        return await open_store(
            start.uri,
            settings=start.settings,
            rng=random.SystemRandom(),
            now_ms=_now_ms,
            executor=executor,
        )
    except (StoreError, ValueError) as error:
        raise StartFailed(f"{display_uri(start.uri)}: {error}") from error


def _now_ms() -> int:
    return time.time_ns() // 1_000_000


async def _serve_store(
    start: Start, stopping: _Stopping, store: ObjectStore, executor: ThreadPoolExecutor
) -> int:
    config, uri = start.config, start.uri
    network = TcpNetwork()
    door, billed = await store_door(uri, start.settings)
    heap = QuietHeap(executor)
    environment = Environment(
        store=store,
        store_name=door,
        billed=billed,
        network=network,
        now_ms=_now_ms,
        rng=random.SystemRandom(),
        executor=executor,
        cache_dir=cache_directory(config, uri),
        merge_uri=uri,
        merge_settings=start.settings,
        senders=lambda secret: partial(
            HeartbeatThread, secret, time.monotonic, random.SystemRandom()
        ),
        on_request=heap.touched,
        process_use=process_use,
    )
    life = Lifetime(config, lambda config: Node(config, environment), store, random.SystemRandom())
    admin = AdminHttp(
        network,
        lambda: Health(life.node.is_ready, tuple(life.node.trouble.reasons.values())),
        lambda: life.node.metrics.render(),
    )
    address = config.http_address
    try:
        http_port = await admin.listen(address.host, address.port)
    except OSError as error:
        raise StartFailed(
            f"cannot listen on {address}: {error.strerror or error}; "
            "choose another address with --http HOST:PORT",
            exit_status.USAGE,
        ) from error
    try:
        if not await _start_node(life, stopping, uri):
            return exit_status.OK
        # What is there now stays: the collector of cycles need not look at it again.
        gc.collect()
        gc.freeze()
        _print_ready(life.node, replace(address, port=http_port), uri)
        if start.paste:
            node = life.node.controller
            print(paste_line(_host_port(node.image.brokers[node.node_id].listeners[0])), flush=True)
        return await _run_node(life, stopping)
    finally:
        heap.close()
        await admin.close()


async def _start_node(life: Lifetime, stopping: _Stopping, uri: str) -> bool:
    """False where a signal came first. Raises StartFailed."""
    starting = asyncio.create_task(life.start(), name="start")
    asked = asyncio.create_task(stopping.asked.wait(), name="signals")
    await asyncio.wait((starting, asked), return_when=asyncio.FIRST_COMPLETED)
    asked.cancel()
    if not starting.done():
        starting.cancel()
        await asyncio.wait((starting,), timeout=STOP_WITHIN_S)
        return False
    try:
        await starting
    except AddressInUse as error:
        raise StartFailed(str(error), exit_status.USAGE) from error
    except StartRefused as error:
        raise StartFailed(str(error)) from error
    except Fenced as error:
        raise StartFailed(await _replaced(life.node, error), exit_status.REPLACED) from error
    except (StoreError, LogError) as error:
        raise StartFailed(f"{display_uri(uri)}: {error}") from error
    return True


def _print_ready(node: Node, http: object, uri: str) -> None:
    controller = node.controller
    listeners = controller.image.brokers[controller.node_id].listeners
    kafka = ",".join(_host_port(endpoint) for endpoint in listeners)
    print(
        f"headwater is ready: kafka {kafka} http {http} store {display_uri(uri)} "
        f"node {controller.node_id}",
        flush=True,
    )


def paste_line(address: str) -> str:
    """A line that shows the broker at this address at work, for another terminal."""
    program = Path(sys.argv[0])
    named = str(program.absolute()) if program.name == "headwater" else "headwater"
    client = f"demo --bootstrap {address}"
    return (
        f"try it: printf 'hello\\nworld\\n' | {named} produce {client} && "
        f"{named} consume {client} --from-beginning --exit-at-end"
    )


def _host_port(endpoint: Endpoint) -> str:
    host = f"[{endpoint.host}]" if ":" in endpoint.host else endpoint.host
    return f"{host}:{endpoint.port}"


async def _run_node(life: Lifetime, stopping: _Stopping) -> int:
    running = asyncio.create_task(life.run(), name="node")
    asked = asyncio.create_task(stopping.asked.wait(), name="signals")
    await asyncio.wait((running, asked), return_when=asyncio.FIRST_COMPLETED)
    asked.cancel()
    if not running.done():
        log.info("stopping")
        running.cancel()
        await asyncio.wait((running,))
        try:
            async with asyncio.timeout(STOP_WITHIN_S):
                await life.node.close(NODE_CLOSE_S)
        except TimeoutError:
            log.warning("not everything ended in time; the log is left for recovery")
        return exit_status.OK
    try:
        await running
    except Fenced as error:
        message = await _replaced(life.node, error)
        await life.node.abort()
        raise StartFailed(message, exit_status.REPLACED) from error
    except StoreError as error:
        # Trouble is waited out; this one would harm what is stored.
        await life.node.abort()
        raise StartFailed(f"ends, to do no harm: {error}") from error
    except Exception as error:
        log.exception("the broker failed")
        await life.node.abort()
        raise StartFailed(f"ends after a failure: {error}") from error
    raise AssertionError("a node runs until it is stopped")


async def _replaced(node: Node, error: Fenced) -> str:
    """Who took our place: the seal names its maker, the metadata log knows the address."""
    try:
        async with asyncio.timeout(2.0):
            successor = await node.controller.successor()
    except (TimeoutError, AssertionError):
        successor = None
    who = error.maker.decode("utf-8", "replace") or "another process"
    if successor is not None:
        who = f"node {successor.node_id} at {address_of(successor)}"
    return (
        f"{who} has taken this broker's place ({error}); everything acknowledged is in the store, "
        "and this process ends"
    )
