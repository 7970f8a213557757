"""Where FindCoordinator sends clients, and what it refuses until there is more."""

from __future__ import annotations

from dataclasses import replace

from broker.coordinator.java_hash import partition_for
from protocol.errors import ErrorCode
from protocol.messages import FindCoordinatorRequest
from tests.unit.broker.coordinator.broker_double import BrokerDouble
from tests.unit.broker.coordinator.test_rebalances import CONFIG
from tests.unit.broker.coordinator.virtual_loop import run


def test_transaction_is_refused_for_good() -> None:
    async def main() -> None:
        broker = await BrokerDouble().start()
        old = await broker(FindCoordinatorRequest(key="t", key_type=1), 1)
        new = await broker(FindCoordinatorRequest(key_type=1, coordinator_keys=["t", "u"]), 6)
        refused = ErrorCode.TRANSACTIONAL_ID_AUTHORIZATION_FAILED
        assert (old.error_code, old.node_id) == (refused, -1)
        assert [c.error_code for c in new.coordinators] == [refused] * 2
        assert "transactions" in new.coordinators[0].error_message

    run(main())


def test_nobody_coordinates_while_the_offsets_topic_has_no_leader() -> None:
    async def main() -> None:
        broker = await BrokerDouble(coordinator_topic_exists=False).start()
        r = await broker(FindCoordinatorRequest(key="g", key_type=0), 3)
        assert (r.error_code, r.node_id, r.port) == (15, -1, -1)
        assert r.error_message == "The coordinator is not available."

    run(main())


def test_groups_are_spread_over_all_partitions() -> None:
    broker = BrokerDouble(config=replace(CONFIG, offsets_topic_num_partitions=50))
    groups = [f"group-{i}" for i in range(500)]
    found = {broker.groups.partition_for(group) for group in groups}
    assert found == set(range(50))
    assert broker.groups.partition_for("hello") == partition_for("hello", 50)
