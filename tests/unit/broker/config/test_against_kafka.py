"""Our answers beside those that an Apache Kafka 4.3.1 gave (kafka_4_3_1.json)."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pytest

from broker.api.config_resources import ConfigsApi
from broker.config import BrokerConfig, load
from broker.config.definitions import BY_KEY
from broker.config.types import render
from protocol.errors import ErrorCode, KafkaError

from .exchanges import Ask, answer_rows, build_request, config_row

FACTS: dict[str, list[dict[str, Any]]] = json.loads(
    (Path(__file__).parent / "kafka_4_3_1.json").read_text()
)
OTHER_DEFAULT = {row.key for row in BY_KEY.values() if row.differs}


class OneBroker:
    """The metadata of a cluster of one broker and one topic; every change is seen at once."""

    def __init__(self) -> None:
        self.topics: dict[str, dict[str, str]] = {"facts": {}}
        self.cluster: dict[str, str] = {}
        self.own: dict[str, str] = {}
        self.static = load(sets=["node.id=1"]).config

    node_id = 1

    @property
    def config(self) -> BrokerConfig:
        return self.static.with_overrides(self.cluster, self.own)

    def topic_overrides(self, name: str) -> Mapping[str, str] | None:
        return self.topics.get(name)

    def check_topic_name(self, name: str) -> None:
        told = f"'{name}' contains one or more characters other than ASCII alphanumerics, '.', "
        if not name or " " in name:
            why = f"{told}'_' and '-'" if name else "the empty string is not allowed"
            raise KafkaError(ErrorCode.INVALID_TOPIC_EXCEPTION, f"Topic name is invalid: {why}")

    def topic_names(self) -> Iterable[str]:
        return self.topics

    def broker_ids(self) -> Iterable[int]:
        return [1]

    async def alter(
        self,
        resource_type: int,
        name: str,
        changes: Mapping[str, str | None],
        based_on: Mapping[str, str],
    ) -> None:
        if resource_type == 2:
            place = self.topics[name]
        else:
            place = self.own if name else self.cluster
        for key, value in changes.items():
            if value is None:
                place.pop(key, None)
            else:
                place[key] = value


class FakeLoggers:
    def __init__(self) -> None:
        self.by_name = {"root": "ERROR"}

    def levels(self) -> Mapping[str, str]:
        return self.by_name

    def set_level(self, name: str, level: str | None) -> None:
        self.by_name[name] = level or self.by_name["root"]


def ask_ours(api: ConfigsApi, ask: Ask) -> Any:
    """Through the encoded bytes and back, so that what cannot be sent is found too."""
    request, response_class, version = build_request(ask)
    request = type(request).decode(request.encode(version=version), version=version)
    handler = {
        "describe": api.describe,
        "alter": api.alter,
        "incremental": api.incremental_alter,
        "list": api.list_resources,
    }[ask.api]
    response = asyncio.run(handler(request, version))
    decoded = response_class.decode(response.encode(version=version), version=version)
    return answer_rows(ask, decoded)


def mentions(ask: Ask, *words: object) -> bool:
    text = json.dumps(ask.resources)
    return any(json.dumps(word) in text for word in words)


def documented_difference(ask: Ask) -> str | None:
    """Why our answer to this request is another than Kafka's; None: it must be the same."""
    if mentions(ask, "compact,delete") and ask.api == "incremental":
        return "compaction of ordinary topics is refused for now"
    if mentions(ask, "internal.segment.bytes"):
        return "a key for Kafka's own tests, which nobody here would read"
    kinds = {r[0] if isinstance(r, list) else r for r in ask.resources}
    if ask.api == "describe" and kinds & {16, 32} and all(r[1] for r in ask.resources):
        return "groups and client metrics have no configurations here"
    return None


def script() -> list[tuple[Ask, Any]]:
    rows = []
    for exchange in FACTS["exchanges"]:
        fields = {k: v for k, v in exchange.items() if k != "answer"}
        rows.append((Ask(**fields), exchange["answer"]))
    return rows


def test_scripted_requests_are_answered_as_kafka_does_but_for_documented_differences() -> None:
    view = OneBroker()
    api = ConfigsApi(view, view, FakeLoggers(), asyncio.Lock())
    wrong, other = [], []
    for ask, kafkas in script():
        ours = ask_ours(api, ask)
        reason = documented_difference(ask)
        if reason is None and ours != kafkas:
            wrong.append(f"{ask}\n  kafka: {kafkas}\n  ours:  {ours}")
        if reason is not None:
            other.append(reason)
            assert ours != kafkas, f"no longer a difference: {ask}"
    assert not wrong, "\n".join(wrong)
    assert len(other) < 8, other


def test_a_fresh_topic_describes_exactly_as_in_kafka() -> None:
    view = OneBroker()
    api = ConfigsApi(view, view, FakeLoggers(), asyncio.Lock())
    [[code, _, _, _, rows]] = ask_ours(api, Ask("describe", [[2, "facts", None]]))
    assert code == 0
    assert rows == FACTS["topic"]


def test_broker_keys_have_kafkas_type_and_default_and_are_dynamic_where_kafkas_are() -> None:
    kafkas = {row["name"]: row for row in FACTS["broker"]}
    checked = 0
    for row in BY_KEY.values():
        if not row.is_kafkas:
            assert row.key not in kafkas, row.key
            continue
        theirs = kafkas[row.key]
        checked += 1
        assert int(row.type) == theirs["type"], row.key
        assert (row.dynamic or row.dynamic_in_kafka) == (not theirs["read_only"]), row.key
        assert row.sensitive == theirs["sensitive"], row.key
        default = render(row.kafka_default) if row.differs else row.default_text  # type: ignore[arg-type]
        assert default == theirs["default"], row.key
    assert checked > 50


def test_every_default_that_differs_gives_a_reason() -> None:
    assert {
        "listeners",
        "broker.heartbeat.interval.ms",
        "leader.imbalance.check.interval.seconds",
        "broker.session.timeout.ms",
        "replica.selector.class",
    } == OTHER_DEFAULT
    assert all(BY_KEY[key].reason for key in OTHER_DEFAULT)


def test_a_failed_change_reaches_nobody_and_a_good_one_is_written_before_the_answer() -> None:
    view = OneBroker()
    api = ConfigsApi(view, view, FakeLoggers(), asyncio.Lock())
    resource = [2, "facts", [["retention.ms", 0, "5"], ["segment.ms", 0, "0"]]]
    [[code, *_]] = ask_ours(api, Ask("incremental", [resource]))
    assert code == ErrorCode.INVALID_CONFIG
    assert view.topics["facts"] == {}
    [[code, *_]] = ask_ours(api, Ask("incremental", [[2, "facts", [["retention.ms", 0, "5"]]]]))
    assert (code, view.topics["facts"]) == (0, {"retention.ms": "5"})


def test_concurrent_appends_are_both_kept() -> None:
    class Slow(OneBroker):
        async def alter(
            self,
            resource_type: int,
            name: str,
            changes: Mapping[str, str | None],
            based_on: Mapping[str, str],
        ) -> None:
            await asyncio.sleep(0.001)
            await super().alter(resource_type, name, changes, based_on)

    view = Slow()
    key = "leader.replication.throttled.replicas"

    async def both() -> None:
        api = ConfigsApi(view, view, FakeLoggers(), asyncio.Lock())
        asks = [
            build_request(Ask("incremental", [[2, "facts", [[key, 2, pair]]]]))
            for pair in ("0:1", "1:1")
        ]
        await asyncio.gather(*(api.incremental_alter(request, v) for request, _, v in asks))

    asyncio.run(both())
    assert sorted(view.topics["facts"][key].split(",")) == ["0:1", "1:1"]


@pytest.mark.parametrize("documentation", [True, False])
def test_documentation_is_told_when_asked_for(documentation: bool) -> None:
    view = OneBroker()
    api = ConfigsApi(view, view, FakeLoggers(), asyncio.Lock())
    request, _, version = build_request(Ask("describe", [[2, "facts", None], [4, "1", None]]))
    request.include_documentation = documentation
    response = asyncio.run(api.describe(request, version))
    texts = [row.documentation for result in response.results for row in result.configs]
    assert texts and all(bool(text) == documentation for text in texts)


def test_values_of_topics_come_from_brokers_coarser_keys() -> None:
    view = OneBroker()
    view.static = load(sets=["node.id=1", "log.retention.hours=1", "log.roll.ms=5000"]).config
    api = ConfigsApi(view, view, FakeLoggers(), asyncio.Lock())
    request, _, version = build_request(
        Ask("describe", [[2, "facts", ["retention.ms", "segment.ms"]]])
    )
    response = asyncio.run(api.describe(request, version))
    rows = {row["name"]: row for row in map(config_row, response.results[0].configs)}
    assert rows["retention.ms"]["value"] == "3600000"
    assert rows["segment.ms"]["value"] == "5000"
    assert rows["segment.ms"]["synonyms"][0] == ["log.roll.ms", "5000", 4]
