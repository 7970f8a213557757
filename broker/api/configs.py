"""DescribeConfigs (32), AlterConfigs (33), IncrementalAlterConfigs (44), ListConfigResources (74).

Served: 1-4, 0-2, 0-1, 0-1. DescribeConfigs 3 adds types and documentation; ListConfigResources 0
lists client metrics only, 1 any types. What they answer: see `config_resources`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from typing import Any
from weakref import WeakKeyDictionary

from broker.config.broker_config import BrokerConfig
from broker.controller.topics import check_name
from broker.request_context import RequestContext
from broker.services import Services

from .config_resources import ConfigsApi, ResourceType
from .loggers import PythonLoggers

# One for each broker of the process (a simulation has several): see ConfigsApi.
_ALTERING: WeakKeyDictionary[object, asyncio.Lock] = WeakKeyDictionary()


class _Metadata:
    """The controller and its image, as the handlers want them."""

    def __init__(self, services: Services) -> None:
        self._services = services

    @property
    def node_id(self) -> int:
        return self._services.controller.node_id

    @property
    def config(self) -> BrokerConfig:
        return self._services.config

    def topic_overrides(self, name: str) -> Mapping[str, str] | None:
        topic = self._services.image.topics.get(name)
        return None if topic is None else topic.configs

    def check_topic_name(self, name: str) -> None:
        check_name(name)

    def topic_names(self) -> Iterable[str]:
        return [topic.name for topic in self._services.image.topics.values()]

    def broker_ids(self) -> Iterable[int]:
        return [broker.node_id for broker in self._services.image.live_brokers()]

    async def alter(
        self,
        resource_type: int,
        name: str,
        changes: Mapping[str, str | None],
        based_on: Mapping[str, str],
    ) -> None:
        kind = "topic" if resource_type == ResourceType.TOPIC else "broker"
        await self._services.controller.alter_configs(kind, name, changes, based_on=based_on)


def _api(ctx: RequestContext) -> ConfigsApi:
    metadata = _Metadata(ctx.services)
    altering = _ALTERING.setdefault(ctx.services.controller, asyncio.Lock())
    return ConfigsApi(metadata, metadata, PythonLoggers(), altering)


async def describe_configs(ctx: RequestContext, request: Any, version: int) -> Any:
    return await _api(ctx).describe(request, version)


async def alter_configs(ctx: RequestContext, request: Any, version: int) -> Any:
    return await _api(ctx).alter(request, version)


async def incremental_alter_configs(ctx: RequestContext, request: Any, version: int) -> Any:
    return await _api(ctx).incremental_alter(request, version)


async def list_config_resources(ctx: RequestContext, request: Any, version: int) -> Any:
    return await _api(ctx).list_resources(request, version)
