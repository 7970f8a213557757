"""What a broker takes from outside: time, chance, network, storage."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable
from concurrent.futures import Executor
from dataclasses import dataclass
from pathlib import Path

from broker.cluster.heartbeats import NewSender
from broker.cluster.load import ProcessUse
from objectstore.settings import StoreSettings
from objectstore.store import ObjectStore

from .network import Network


@dataclass(frozen=True, slots=True)
class Environment:
    """What a node takes from outside.

    store_name: driver and endpoint, as the probe is kept by. billed: the store charges for
    requests. cache_dir: None for no disk cache. merge_uri, merge_settings: of the same store, for
    the process in which history is merged; None: it is merged in this one. senders: what sends
    heartbeats, given how to read the brokers' secret; None: tasks of the loop. on_request: called
    for each one, before it is handled. process_use: of this process; None: not to be told.
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
    senders: Callable[[Callable[[], Awaitable[bytes]]], NewSender] | None = None
    on_request: Callable[[], None] | None = None
    process_use: Callable[[], ProcessUse] | None = None
