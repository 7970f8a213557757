"""Configurations of resources: describing, altering and listing them, over small interfaces.

Errors are per resource: one bad resource fails no other.

Chosen: BROKER and BROKER_LOGGER resources are answered by the broker they name and by no other,
as in Kafka. GROUP and CLIENT_METRICS have no configurations here, since the group protocols and
the telemetry that read them are not served: describing shows none, altering is refused.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Any, Protocol

from broker.config.alter import Changes, apply_changes, check_broker_changes
from broker.config.broker_config import BrokerConfig
from broker.config.definitions import SETTINGS
from broker.config.setting import Setting
from broker.config.topic import Described, TopicConfig, validate
from broker.config.types import ConfigType, Source, render
from protocol.errors import ErrorCode, KafkaError
from protocol.messages import (
    AlterConfigsResponse,
    DescribeConfigsResponse,
    IncrementalAlterConfigsResponse,
    ListConfigResourcesResponse,
)

from .loggers import Loggers, check_logger_changes

ATTEMPTS = 50
AGAIN_S = 0.05


class ResourceType(IntEnum):
    TOPIC = 2
    BROKER = 4
    BROKER_LOGGER = 8
    CLIENT_METRICS = 16
    GROUP = 32


class MetadataView(Protocol):
    """What the handlers read; each call sees the newest image."""

    @property
    def node_id(self) -> int: ...

    @property
    def config(self) -> BrokerConfig:
        """This broker's, with all dynamic changes."""

    def topic_overrides(self, name: str) -> Mapping[str, str] | None:
        """None: there is no such topic."""

    def check_topic_name(self, name: str) -> None:
        """Raises KafkaError INVALID_TOPIC_EXCEPTION."""

    def topic_names(self) -> Iterable[str]: ...

    def broker_ids(self) -> Iterable[int]: ...


class MetadataWriter(Protocol):
    async def alter(
        self,
        resource_type: int,
        name: str,
        changes: Mapping[str, str | None],
        based_on: Mapping[str, str],
    ) -> None:
        """Set keys, or remove those whose value is None; durable and seen when this returns.

        name: empty for the cluster level of BROKER. based_on: what stood there before. Raises
        KafkaError; INVALID_UPDATE_VERSION: another broker changed it since.
        """


@dataclass(frozen=True)
class _Outcome:
    """What became of one resource of an alter request."""

    resource_type: int
    name: str
    error: KafkaError | None


class ConfigsApi:
    """The four handlers. They answer for one broker."""

    def __init__(
        self,
        view: MetadataView,
        writer: MetadataWriter,
        loggers: Loggers,
        altering: asyncio.Lock,
    ) -> None:
        """altering: shared by all who alter; a change is computed from what stands there."""
        self._view = view
        self._writer = writer
        self._loggers = loggers
        self._altering = altering

    async def describe(self, request: Any, version: int) -> Any:
        results = []
        for resource in request.resources:
            kind, name = resource.resource_type, resource.resource_name
            # An empty list of keys asks for all of them, like null.
            keys = frozenset(resource.configuration_keys or ()) or None
            error: KafkaError | None = None
            rows: Sequence[Described] = ()
            try:
                rows = self._describe(kind, name, keys)
            except KafkaError as failure:
                error = failure
            results.append(
                DescribeConfigsResponse.DescribeConfigsResult(
                    error_code=int(error.code if error else ErrorCode.NONE),
                    # Kafka has an empty message here where there is none, not null.
                    error_message=(error.message or "") if error else "",
                    resource_type=kind,
                    resource_name=name,
                    configs=[
                        _config_result(row, request.include_synonyms, request.include_documentation)
                        for row in rows
                    ],
                )
            )
        return DescribeConfigsResponse(throttle_time_ms=0, results=results)

    def _describe(self, kind: int, name: str, keys: frozenset[str] | None) -> Sequence[Described]:
        if kind == ResourceType.TOPIC:
            self._view.check_topic_name(name)
            overrides = self._view.topic_overrides(name)
            if overrides is None:
                raise KafkaError(ErrorCode.UNKNOWN_TOPIC_OR_PARTITION)
            return TopicConfig(self._view.config, overrides).describe(keys)
        if kind == ResourceType.BROKER:
            return self._describe_broker(name, keys)
        if kind == ResourceType.BROKER_LOGGER:
            if not name:
                raise _bad_request("Broker id must not be empty")
            self._check_own_id(name, "Broker id", "Unexpected broker id, expected {}")
            return [
                _logger_row(logger, level)
                for logger, level in self._loggers.levels().items()
                if keys is None or logger in keys
            ]
        if kind == ResourceType.CLIENT_METRICS:
            if not name:
                raise _bad_request("Client metrics subscription name must not be empty")
            return ()
        if kind == ResourceType.GROUP:
            if not name:
                raise _bad_request("Group name must not be empty")
            return ()
        raise _bad_request(
            "This most likely occurs because of a request being malformed by the client library "
            "or the message was sent to an incompatible broker. See the broker logs for more "
            "details."
        )

    def _describe_broker(self, name: str, keys: frozenset[str] | None) -> list[Described]:
        config = self._view.config
        wanted = [row for row in SETTINGS if keys is None or row.key in keys]
        if not name:
            cluster = config.cluster_level
            return [
                _broker_row(row, config, only=Source.DYNAMIC_DEFAULT_BROKER)
                for row in wanted
                if row.key in cluster
            ]
        self._check_own_id(name, "Broker id", "Unexpected broker id, expected {} or empty string,")
        return [_broker_row(row, config) for row in wanted]

    def _check_own_id(self, name: str, what: str, unexpected: str) -> None:
        try:
            number = int(name)
        except ValueError:
            raise _bad_request(f"{what} must be an integer, but it is: {name}") from None
        if number != self._view.node_id:
            raise _bad_request(f"{unexpected.format(self._view.node_id)} but received {number}")

    async def alter(self, request: Any, version: int) -> Any:
        """AlterConfigs: what a resource does not name goes back to its default."""
        outcomes = [
            await self._one(resource, request.validate_only, incremental=False)
            for resource in _checked_resources(request.resources)
        ]
        return AlterConfigsResponse(
            throttle_time_ms=0,
            responses=[
                AlterConfigsResponse.AlterConfigsResourceResponse(**_response_fields(outcome))
                for outcome in outcomes
            ],
        )

    async def incremental_alter(self, request: Any, version: int) -> Any:
        outcomes = [
            await self._one(resource, request.validate_only, incremental=True)
            for resource in _checked_resources(request.resources)
        ]
        return IncrementalAlterConfigsResponse(
            throttle_time_ms=0,
            responses=[
                IncrementalAlterConfigsResponse.AlterConfigsResourceResponse(
                    **_response_fields(outcome)
                )
                for outcome in outcomes
            ],
        )

    async def list_resources(self, request: Any, version: int) -> Any:
        """Resources that have, or could have, configurations."""
        response = ListConfigResourcesResponse
        asked = [ResourceType.CLIENT_METRICS] if version == 0 else request.resource_types
        kinds = set(asked) or set(ResourceType)
        if not kinds <= set(ResourceType):
            return response(
                throttle_time_ms=0,
                error_code=int(ErrorCode.UNSUPPORTED_VERSION),
                config_resources=[],
            )
        brokers = [str(number) for number in sorted(self._view.broker_ids())]
        names: list[tuple[ResourceType, Iterable[str]]] = [
            (ResourceType.BROKER_LOGGER, brokers),
            (ResourceType.BROKER, brokers),
            (ResourceType.TOPIC, sorted(self._view.topic_names())),
        ]
        return response(
            throttle_time_ms=0,
            error_code=0,
            config_resources=[
                response.ConfigResource(resource_name=name, resource_type=int(kind))
                for kind, members in names
                if kind in kinds
                for name in members
            ],
        )

    async def _one(self, checked: _Checked, validate_only: bool, *, incremental: bool) -> _Outcome:
        resource = checked.resource
        kind, name = resource.resource_type, resource.resource_name
        error = checked.error
        try:
            if error is None:
                changes = _changes(resource, incremental)
                async with self._altering:
                    await self._apply_again(kind, name, changes, validate_only)
        except KafkaError as failure:
            error = failure
        return _Outcome(kind, name, error)

    async def _apply_again(
        self, kind: int, name: str, changes: Changes, validate_only: bool
    ) -> None:
        """Computed anew while other brokers change the same resource."""
        for _ in range(ATTEMPTS):
            try:
                await self._apply(kind, name, changes, validate_only)
                return
            except KafkaError as error:
                if error.code is not ErrorCode.INVALID_UPDATE_VERSION:
                    raise
            # What they decided comes here in a moment.
            await asyncio.sleep(AGAIN_S)
        raise KafkaError(ErrorCode.REQUEST_TIMED_OUT)

    async def _apply(self, kind: int, name: str, changes: Changes, validate_only: bool) -> None:
        if kind == ResourceType.TOPIC:
            await self._alter_topic(name, changes, validate_only)
        elif kind == ResourceType.BROKER:
            await self._alter_broker(name, changes, validate_only)
        elif kind == ResourceType.BROKER_LOGGER and changes.incremental:
            self._check_own_id(name, "Node id", "Unexpected node id. Expected {},")
            levels = check_logger_changes(self._loggers, changes.entries)
            if not validate_only:
                for logger, level in levels.items():
                    self._loggers.set_level(logger, level)
        elif kind == ResourceType.CLIENT_METRICS:
            if not name:
                raise _bad_request("Subscription name can't be empty")
            for key, _, _ in changes.entries:
                raise _bad_request(f"Unknown client metrics configuration: {key}")
        elif kind == ResourceType.GROUP:
            if not name:
                raise _bad_request("Default group resources are not allowed.")
            for key, _, _ in changes.entries:
                raise KafkaError(ErrorCode.INVALID_CONFIG, f"Unknown group config name: {key}")
        else:
            raise _bad_request(f"Unknown resource type {kind}")

    async def _alter_topic(self, name: str, changes: Changes, validate_only: bool) -> None:
        if not name:
            raise _bad_request("Default topic resources are not allowed.")
        self._view.check_topic_name(name)
        old = self._view.topic_overrides(name)
        if old is None:
            raise KafkaError(
                ErrorCode.UNKNOWN_TOPIC_OR_PARTITION, f"The topic '{name}' does not exist."
            )
        config = self._view.config
        new = apply_changes(changes, TopicConfig(config, old))
        validate(name, new, config)
        await self._write(ResourceType.TOPIC, name, old, old, new, validate_only)

    async def _alter_broker(self, name: str, changes: Changes, validate_only: bool) -> None:
        if name:
            self._check_own_id(name, "Node id", "Unexpected broker id, expected {},")
        config = self._view.config
        # What every cluster is born with stands at its level, and is stored nowhere.
        stored = config.broker_overrides if name else config.cluster_overrides
        old = config.broker_overrides if name else config.cluster_level
        new = check_broker_changes(changes, config, old, cluster=not name)
        await self._write(ResourceType.BROKER, name, stored, old, new, validate_only)

    async def _write(
        self,
        kind: ResourceType,
        name: str,
        stored: Mapping[str, str],
        old: Mapping[str, str],
        new: Mapping[str, str],
        validate_only: bool,
    ) -> None:
        changed: dict[str, str | None] = {k: v for k, v in new.items() if old.get(k) != v}
        changed |= dict.fromkeys(key for key in old if key not in new)
        if changed and not validate_only:
            await self._writer.alter(int(kind), name, changed, stored)


@dataclass(frozen=True)
class _Checked:
    """A resource of an alter request; error: known before anything is looked up."""

    resource: Any
    error: KafkaError | None


def _checked_resources(resources: Sequence[Any]) -> list[_Checked]:
    seen: dict[tuple[int, str], int] = {}
    for resource in resources:
        identity = (resource.resource_type, resource.resource_name)
        seen[identity] = seen.get(identity, 0) + 1
    checked = []
    for resource in resources:
        error = None
        names = [entry.name for entry in resource.configs]
        nulls = [
            entry.name
            for entry in resource.configs
            if entry.value is None and getattr(entry, "config_operation", 0) != 1
        ]
        if seen[(resource.resource_type, resource.resource_name)] > 1:
            error = _bad_request("Each resource must appear at most once.")
        elif len(set(names)) < len(names):
            error = _bad_request("Error due to duplicate config keys")
        elif nulls:
            error = _bad_request(f"Null value not supported for : {', '.join(nulls)}")
        checked.append(_Checked(resource, error))
    return checked


def _changes(resource: Any, incremental: bool) -> Changes:
    entries = tuple(
        (entry.name, entry.config_operation if incremental else 0, entry.value)
        for entry in resource.configs
    )
    return Changes(entries, incremental)


def _response_fields(outcome: _Outcome) -> dict[str, Any]:
    error = outcome.error
    return {
        "error_code": int(error.code if error else ErrorCode.NONE),
        "error_message": error.message if error else None,
        "resource_type": outcome.resource_type,
        "resource_name": outcome.name,
    }


def _broker_row(row: Setting, config: BrokerConfig, only: Source | None = None) -> Described:
    chain = tuple(c for c in config.chain(row.key) if only is None or c.source is only)
    if only is not None:
        value: str | None = render(row.parse(config.cluster_level[row.key]))
    else:
        value = render(config.get(row.key))
    return Described(
        row.key,
        None if row.sensitive else value,
        chain[0].source if chain else Source.DEFAULT,
        chain,
        row.type,
        not row.dynamic,
        row.sensitive,
        row.meaning,
    )


def _logger_row(name: str, level: str) -> Described:
    return Described(name, level, Source.BROKER_LOGGER, (), ConfigType.UNKNOWN, False, False, None)


def _config_result(row: Described, synonyms: bool, documentation: bool) -> Any:
    result = DescribeConfigsResponse.DescribeConfigsResult.DescribeConfigsResourceResult
    return result(
        name=row.name,
        value=row.value,
        read_only=row.read_only,
        config_source=int(row.source),
        is_sensitive=row.sensitive,
        synonyms=[
            result.DescribeConfigsSynonym(name=s.name, value=s.value, source=int(s.source))
            for s in (row.synonyms if synonyms else ())
        ],
        config_type=int(row.type),
        documentation=_documentation(row, documentation),
    )


def _documentation(row: Described, wanted: bool) -> str | None:
    if row.source == Source.BROKER_LOGGER:
        # Kafka never fills it in for loggers, and then it is empty, not null.
        return ""
    return row.documentation if wanted else None


def _bad_request(message: str) -> KafkaError:
    return KafkaError(ErrorCode.INVALID_REQUEST, message)
