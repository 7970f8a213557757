"""What each of several brokers of one machine is given, from what was said of all of them.

    ports       the given port plus the worker's number, counted from 0; port 0 stays 0
    HTTP port   in the same way
    node id     in the same way, where one is given; else the cluster gives free ones, and a worker
                that is started anew asks for the one that it had

All other settings are the same for all. Pure.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from broker.config import BrokerConfig, ConfigError
from broker.config.listeners import Address, resolve_listeners

LARGEST_PORT = 65535

_OWN_KEYS = ("listeners", "advertised.listeners", "http", "node.id")


def worker_flags(
    parsed: argparse.Namespace, config: BrokerConfig, number: int, node_id: int | None = None
) -> list[str]:
    """What follows `headwater start` for worker `number`.

    parsed, config: of the supervisor's own start. node_id: that it had before. Raises ConfigError.
    """
    flags: list[str] = []
    for option, value in (
        ("--config", parsed.config),
        ("--store", parsed.store),
        ("--rack", parsed.rack),
        ("--cache-dir", parsed.cache_dir),
        ("--log-level", parsed.log_level),
    ):
        if value is not None:
            flags += [option, value]
    for option, given in (
        ("--create-bucket", parsed.create_bucket),
        ("--take-over", parsed.take_over),
    ):
        if given:
            flags.append(option)
    for entry in parsed.set:
        if entry.partition("=")[0].strip() not in _OWN_KEYS:
            flags += ["--set", entry]
    flags += _listeners(config, number)
    flags += ["--http", str(_moved(config.http_address, number))]
    given_id = config.optional_int("node.id")
    own_id = node_id if given_id is None else given_id + number
    if own_id is not None:
        flags += ["--node-id", str(own_id)]
    return flags


def _listeners(config: BrokerConfig, number: int) -> list[str]:
    flags = []
    told = []
    for one in config.listeners:
        flags += ["--listener", f"{one.name}={_moved(one.bind, number)}"]
        if one.advertised is not None:
            told.append(f"{one.name}://{_moved(one.advertised, number)}")
    # By this flag, and not in the listeners: it may stand in the environment or in a file, too.
    return [*flags, "--advertised", ",".join(told)] if told else flags


def _moved(address: Address, number: int) -> Address:
    port = address.port and address.port + number
    if port > LARGEST_PORT:
        raise ConfigError(f"worker {number + 1} would have port {port}; begin at a lower one")
    return Address(address.host, port)


def clashes(configs: Sequence[Sequence[str]]) -> list[str]:
    """Addresses that two of these listener lists share, such as those of 9092 and 9093 for two."""
    seen: dict[tuple[str, int], int] = {}
    found = []
    for worker, listeners in enumerate(configs):
        for one in resolve_listeners(listeners):
            place = one.bind.host, one.bind.port
            if one.bind.port and seen.setdefault(place, worker) != worker:
                found.append(str(one.bind))
    return found
