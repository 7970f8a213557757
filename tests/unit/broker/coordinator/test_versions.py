"""Every version served, with an answer that succeeds and one that does not."""

from __future__ import annotations

from typing import Any

import pytest

from protocol.api_versions import SERVED
from protocol.messages import FindCoordinatorRequest, LeaveGroupRequest
from tests.unit.broker.coordinator import requests as rq
from tests.unit.broker.coordinator.broker_double import HANDLERS, BrokerDouble
from tests.unit.broker.coordinator.test_rebalances import member_of, started
from tests.unit.broker.coordinator.virtual_loop import run

VERSIONS = [
    (int(key), version)
    for key, served in SERVED.items()
    if int(key) in HANDLERS
    for version in range(served[0], served[1] + 1)
]


def _request(broker: BrokerDouble, key: int, version: int, group: str, member: str) -> Any:
    topic = broker.topics["a"]
    kind = None if version < 5 else "consumer"
    match key:
        case 8 if version >= 10:
            return rq.commit_by_id(group, {topic: {0: 1}})
        case 8:
            return rq.commit(group, {"a": {0: 1}}, member=member, generation=1)
        case 9 if version >= 10:
            return rq.fetch_by_id(group, {topic: [0]})
        case 9 if version >= 8:
            return rq.fetch(group, {"a": [0]})
        case 9:
            return rq.fetch_one(group, {"a": [0]})
        case 10 if version >= 4:
            return FindCoordinatorRequest(key_type=0, coordinator_keys=[group])
        case 10:
            return FindCoordinatorRequest(key=group, key_type=0)
        case 11:
            return rq.join(group, member)
        case 12:
            return rq.heartbeat(group, member, 1)
        case 13 if version >= 3:
            return rq.leave(group, (member, None))
        case 13:
            return LeaveGroupRequest(group_id=group, member_id=member)
        case 14:
            return rq.sync(group, member, 1, kind=kind, protocol="range")
        case 15:
            return rq.describe(group, operations=version >= 3)
        case 16:
            return rq.list_groups()
        case 42:
            return rq.delete_groups(group)
    return rq.delete_offsets(group, {"b": [0]})


def _codes(value: Any) -> list[int]:
    """Every error code in a message, from the outside in."""
    found = []
    for name, part in value.to_dict(json=False).items():
        found += _codes_of(name, part)
    return found


def _codes_of(name: str, part: Any) -> list[int]:
    if name == "error_code":
        return [part]
    if isinstance(part, dict):
        return [code for n, p in part.items() for code in _codes_of(n, p)]
    if isinstance(part, list):
        return [code for p in part for code in _codes_of("", p)]
    return []


def test_all_versions_are_here() -> None:
    assert {key for key, _ in VERSIONS} == set(HANDLERS)


@pytest.mark.parametrize(("key", "version"), VERSIONS)
def test_version_succeeds(key: int, version: int) -> None:
    async def main() -> list[int]:
        broker = await started()
        member = await member_of(broker)
        group = "g"
        if key in (42,) or (key, version) == (8, 10):
            await broker(rq.commit("simple", {"a": {0: 1}}), 9)
            group = "simple"
        return _codes(await broker(_request(broker, key, version, group, member), version))

    assert set(run(main())) <= {0}


@pytest.mark.parametrize(("key", "version"), [v for v in VERSIONS if v[0] not in (9, 10, 16)])
def test_version_can_say_no(key: int, version: int) -> None:
    async def main() -> list[int]:
        broker = await started()
        member = await member_of(broker)
        group = "missing"
        request = _request(broker, key, version, group, member)
        if (key, version) == (8, 10):
            request = rq.commit_by_id("g", {broker.topics["a"]: {0: 1}})
        return _codes(await broker(request, version))

    codes = run(main())
    # Before version 6 a missing group is described as a dead one.
    assert any(codes) or (key == 15 and version < 6)
