"""Changes to configurations (AlterConfigs, KIP-339): what stands there afterwards, if allowed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum

from protocol.errors import ErrorCode, KafkaError

from .broker_config import BrokerConfig
from .definitions import BY_KEY
from .topic import TopicConfig
from .topic_definitions import BY_TOPIC_KEY
from .types import ConfigType, InvalidValue, Value, render, unique


class Operation(IntEnum):
    SET = 0
    DELETE = 1
    APPEND = 2
    SUBTRACT = 3


@dataclass(frozen=True)
class Changes:
    """entries: (key, operation, value) each, no key twice, a value wherever one is needed.

    incremental: False replaces everything by the entries, which are all SET then.
    """

    entries: tuple[tuple[str, int, str | None], ...]
    incremental: bool


def apply_changes(changes: Changes, config: TopicConfig) -> dict[str, str]:
    """The topic's overrides afterwards, not checked except for what an operation needs.

    Raises KafkaError.
    """
    new = dict(config.overrides) if changes.incremental else {}
    for key, operation, text in changes.entries:
        row = BY_TOPIC_KEY.get(key)
        current = config.get(key) if row is not None else None
        _apply(new, key, operation, text, row.type if row is not None else None, current)
    return new


def check_broker_changes(
    changes: Changes, config: BrokerConfig, old: Mapping[str, str], *, cluster: bool
) -> dict[str, str]:
    """What stands at this level afterwards. Raises KafkaError.

    old: what stands there. cluster: the level of all brokers, not of this one.
    """
    new = dict(old) if changes.incremental else {}
    for key, operation, text in changes.entries:
        row = BY_KEY.get(key)
        current = config.get(key) if row is not None else None
        _apply(new, key, operation, text, row.type if row is not None else None, current)
    touched = [key for key, _, _ in changes.entries if key in new]
    for key in touched:
        if key not in BY_KEY:
            # Kafka keeps such keys for plug-ins, and nobody here would read them.
            raise KafkaError(ErrorCode.INVALID_CONFIG, f"Unknown broker config name: {key}")
    static = [key for key in touched if not BY_KEY[key].dynamic]
    if static:
        raise KafkaError(
            ErrorCode.INVALID_REQUEST,
            f"Cannot update these configs dynamically: [{', '.join(static)}]",
        )
    for key in touched:
        try:
            BY_KEY[key].parse(new[key])
        except InvalidValue as error:
            raise KafkaError(ErrorCode.INVALID_REQUEST, str(error)) from None
    _check_min_insync_replicas(changes, new, cluster)
    return new


def check_broker_overrides(overrides: Mapping[str, str]) -> None:
    """Whether a broker, or all of them, may have exactly these. Raises KafkaError.

    For who decides: the broker that was asked has given its finer answers before.
    """
    for key, text in overrides.items():
        row = BY_KEY.get(key)
        if row is None or not row.dynamic:
            raise KafkaError(ErrorCode.INVALID_CONFIG, f"{key} cannot be changed dynamically")
        try:
            row.parse(text)
        except InvalidValue as error:
            raise KafkaError(ErrorCode.INVALID_CONFIG, str(error)) from None


def _check_min_insync_replicas(changes: Changes, new: Mapping[str, str], cluster: bool) -> None:
    """Since KIP-966 one value counts for the whole cluster, and there always is one."""
    key = "min.insync.replicas"
    if cluster and key not in new:
        raise KafkaError(
            ErrorCode.INVALID_CONFIG,
            f"Cluster-level {key} cannot be removed while ELR is enabled.",
        )
    if not cluster and any(name == key for name, _, _ in changes.entries):
        raise KafkaError(
            ErrorCode.INVALID_CONFIG,
            f"Broker-level {key} cannot be altered while ELR is enabled.",
        )


def _apply(
    new: dict[str, str],
    key: str,
    operation: int,
    text: str | None,
    type_: ConfigType | None,
    current: Value,
) -> None:
    if operation == Operation.SET:
        assert text is not None, key
        new[key] = text
    elif operation == Operation.DELETE:
        new.pop(key, None)
    elif operation in (Operation.APPEND, Operation.SUBTRACT):
        word = Operation(operation).name
        if type_ is not ConfigType.LIST:
            raise KafkaError(
                ErrorCode.INVALID_CONFIG,
                f"Can't {word} to key {key} because its type is not LIST.",
            )
        assert text is not None and (current is None or isinstance(current, tuple)), key
        old = current or ()
        words = unique(word.strip() for word in text.split(","))
        if operation == Operation.APPEND:
            left = unique((*old, *words))
        else:
            left = tuple(word for word in old if word not in words)
        new[key] = render(left) or ""
    else:
        # Kafka fails on an operation that it does not know, with this code and no message.
        raise KafkaError(ErrorCode.UNKNOWN_SERVER_ERROR)
