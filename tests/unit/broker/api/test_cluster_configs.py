"""Settings of brokers, of one and of all, through any broker of a cluster."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from protocol.errors import ErrorCode
from protocol.messages import (
    AlterConfigsRequest,
    DescribeConfigsRequest,
    IncrementalAlterConfigsRequest,
)

from ..cluster import fleet as fleets
from ..cluster.fleet import Fleet
from .fleet_client import FleetClient

BROKER = 4
SET, DELETE = 0, 1
KEY = "log.retention.ms"


def run(body: Callable[[Fleet, FleetClient], Awaitable[None]]) -> None:
    async def main(fleet: Fleet) -> None:
        for number in (1, 2, 3):
            await fleet.start(number)
        await body(fleet, FleetClient(fleet))

    fleets.run(main)


async def alter(
    client: FleetClient, through: int, name: str, value: str | None, operation: int = SET
) -> Any:
    """name: a broker's id, or empty for all of them. The answer to the one resource."""
    kind = IncrementalAlterConfigsRequest.AlterConfigsResource
    entry = kind.AlterableConfig(name=KEY, config_operation=operation, value=value)
    resource = kind(resource_type=BROKER, resource_name=name, configs=[entry])
    request = IncrementalAlterConfigsRequest(resources=[resource], validate_only=False)
    answer = await client.ask(through, request, 1)
    return answer.responses[0]


async def described(client: FleetClient, through: int, name: str) -> Any:
    """Its value and where it comes from; None: not set at this level."""
    kind = DescribeConfigsRequest.DescribeConfigsResource
    resource = kind(resource_type=BROKER, resource_name=name, configuration_keys=[KEY])
    request = DescribeConfigsRequest(resources=[resource])
    answer = await client.ask(through, request, 4)
    (result,) = answer.results
    assert result.error_code == 0
    found = [(one.value, one.config_source) for one in result.configs]
    return found[0] if found else None


DYNAMIC_BROKER, DYNAMIC_DEFAULT = 2, 3


@pytest.mark.parametrize("through", [1, 2, 3])
def test_the_default_of_all_brokers_is_set_through_any_and_holds_on_all(through: int) -> None:
    async def body(fleet: Fleet, client: FleetClient) -> None:
        nodes = fleet.nodes()
        assert (await alter(client, through, "", "1111")).error_code == 0
        await fleet.until(
            lambda: all(n.services.config.optional_int(KEY) == 1111 for n in nodes), 5
        )
        for number in (1, 2, 3):
            assert await described(client, number, "") == ("1111", DYNAMIC_DEFAULT)
            assert await described(client, number, str(number)) == ("1111", DYNAMIC_DEFAULT)
        # A second change finds the first, and it goes again.
        assert (await alter(client, through % 3 + 1, "", "2222")).error_code == 0
        assert (await alter(client, through, "", None, DELETE)).error_code == 0
        await fleet.until(
            lambda: all(n.services.config.optional_int(KEY) != 2222 for n in nodes), 5
        )
        assert await described(client, through, "") is None

    run(body)


def test_a_brokers_own_setting_is_taken_by_that_broker_and_outweighs_the_default() -> None:
    async def body(fleet: Fleet, client: FleetClient) -> None:
        assert (await alter(client, 1, "", "1111")).error_code == 0
        assert (await alter(client, 2, "2", "3333")).error_code == 0
        await fleet.until(
            lambda: (
                [n.services.config.optional_int(KEY) for n in fleet.nodes()] == [1111, 3333, 1111]
            ),
            5,
        )
        assert await described(client, 2, "2") == ("3333", DYNAMIC_BROKER)
        refused = await alter(client, 1, "2", "4444")
        assert refused.error_code == ErrorCode.INVALID_REQUEST
        assert refused.error_message == ("Unexpected broker id, expected 1, but received 2")

    run(body)


def test_all_settings_of_all_brokers_are_replaced_at_once_by_the_older_request() -> None:
    async def body(fleet: Fleet, client: FleetClient) -> None:
        assert (await alter(client, 1, "", "1111")).error_code == 0
        kind = AlterConfigsRequest.AlterConfigsResource
        entries = [
            kind.AlterableConfig(name="min.insync.replicas", value="1"),
            kind.AlterableConfig(name="log.retention.bytes", value="5000"),
        ]
        resource = kind(resource_type=BROKER, resource_name="", configs=entries)
        request = AlterConfigsRequest(resources=[resource], validate_only=False)
        answer = await client.ask(3, request, 2)
        assert answer.responses[0].error_code == 0
        stored = fleet.node(3).controller.image.resource_configs("broker", "")
        assert dict(stored) == {"log.retention.bytes": "5000"}

    run(body)
