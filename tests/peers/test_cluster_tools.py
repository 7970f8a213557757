"""Apache Kafka's own tools of administration, unchanged, against each of three brokers.

Nothing is assumed of when a broker comes to know what another decided: it is asked until it does.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from functools import partial
from itertools import cycle
from pathlib import Path

import pytest

from tests.chaos.cluster import Cluster

from .load import fresh
from .processes import run_tool

pytestmark = [pytest.mark.peer, pytest.mark.timeout(1200)]

ALL = {1, 2, 3}
PARTITIONS = 6


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Nobody is missed only because the tools' Java machines take all processors."""
    directory: Path = tmp_path_factory.mktemp("tools")
    settings = {"broker.session.timeout.ms": "20000"}
    with Cluster(f"file://{directory}/data", directory, settings=settings) as brokers:
        brokers.wait_for(ALL)
        yield brokers


def tool(cluster: Cluster, node_id: int, name: str, *args: str, stdin: str | None = None) -> str:
    """A tool whose one bootstrap server is that broker."""
    at = ("--bootstrap-server", cluster.brokers[node_id].bootstrap)
    if name == "kafka-cluster":
        return run_tool(name, *args, *at, stdin=stdin)
    return run_tool(name, *at, *args, stdin=stdin)


def until(cluster: Cluster, tell: Callable[[], str], wanted: str, *never: str) -> str:
    """What a tool says once it says what is wanted, and nothing that is not."""
    said: list[str] = []

    def wrong() -> str:
        said.append(tell())
        good = wanted in said[-1] and not any(one in said[-1] for one in never)
        return "" if good else said[-1]

    cluster.wait_until(wrong, wanted, every_s=1.0)
    return said[-1]


def new_topic(cluster: Cluster, through: int) -> str:
    topic = fresh("tools")
    tool(
        cluster, through, "kafka-topics", "--create", "--topic", topic,
        "--partitions", str(PARTITIONS),
    )  # fmt: skip
    return topic


def leaders(cluster: Cluster, through: int, topic: str) -> dict[int, int]:
    """By partition, as kafka-topics prints them."""
    described = tool(cluster, through, "kafka-topics", "--describe", "--topic", topic)
    found = {}
    for line in described.splitlines():
        words = line.split()
        if "Partition:" in words and words[words.index("Leader:") + 1] != "none":
            found[int(words[words.index("Partition:") + 1])] = int(
                words[words.index("Leader:") + 1]
            )
    return found


def who_leads(cluster: Cluster, through: int, topic: str) -> str:
    return str(set(leaders(cluster, through, topic).values()))


@pytest.mark.parametrize("through", sorted(ALL))
def test_partitions_are_reassigned_verified_and_described_through_any_broker(
    cluster: Cluster, through: int, tmp_path: Path
) -> None:
    topic = new_topic(cluster, through)
    target = through % 3 + 1
    plan = tmp_path / "plan.json"
    plan.write_text(
        json.dumps(
            {
                "version": 1,
                "partitions": [
                    {"topic": topic, "partition": index, "replicas": [target]}
                    for index in range(PARTITIONS)
                ],
            }
        )
    )
    by_file = ("--reassignment-json-file", str(plan))
    name = "kafka-reassign-partitions"
    begun = tool(cluster, through, name, *by_file, "--execute")
    assert "Successfully started partition reassignments for " in begun
    done = until(
        cluster, lambda: tool(cluster, through, name, *by_file, "--verify"), "is completed",
        "still in progress", "There is no active reassignment",
    )  # fmt: skip
    assert done.count("is completed") == PARTITIONS
    for asked in sorted(ALL):
        until(cluster, partial(who_leads, cluster, asked, topic), str({target}))
    assert "No partition reassignments found." in tool(cluster, through, name, "--list")
    cancelled = tool(cluster, through, name, *by_file, "--cancel")
    assert "None of the specified partition reassignments are active." in cancelled


def test_a_reassignment_is_proposed_and_one_that_is_wrong_is_refused(
    cluster: Cluster, tmp_path: Path
) -> None:
    topic = new_topic(cluster, 2)
    wanted = tmp_path / "topics.json"
    wanted.write_text(json.dumps({"version": 1, "topics": [{"topic": topic}]}))
    name = "kafka-reassign-partitions"
    proposed = tool(
        cluster, 3, name, "--generate", "--topics-to-move-json-file", str(wanted),
        "--broker-list", "1,2",
    )  # fmt: skip
    _, _, plan = proposed.partition("Proposed partition reassignment configuration")
    partitions = json.loads(plan)["partitions"]
    assert len(partitions) == PARTITIONS
    assert {tuple(one["replicas"]) for one in partitions} == {(1,), (2,)}
    wrong = tmp_path / "wrong.json"
    bad = [{"topic": topic, "partition": 0, "replicas": [9]}]
    wrong.write_text(json.dumps({"version": 1, "partitions": bad}))
    with pytest.raises(AssertionError, match="broker"):
        tool(cluster, 1, name, "--reassignment-json-file", str(wrong), "--execute")


@pytest.mark.parametrize("through", sorted(ALL))
def test_whoever_leads_is_the_preferred_leader(cluster: Cluster, through: int) -> None:
    topic = new_topic(cluster, 1)
    name, one = "kafka-leader-election", ("--topic", topic, "--partition", "1")
    until(cluster, lambda: str(len(leaders(cluster, through, topic))), str(PARTITIONS))
    for kind in ("preferred", "unclean"):
        said = tool(cluster, through, name, "--election-type", kind, *one)
        assert f"Valid replica already elected for partitions {topic}-1" in said
    everything = ("--election-type", "preferred", "--all-topic-partitions")
    assert "Error" not in tool(cluster, through, name, *everything)


def test_settings_of_one_broker_and_of_all_are_changed_and_shown(cluster: Cluster) -> None:
    name, brokers = "kafka-configs", ("--entity-type", "brokers")

    def described(through: int, *of: str) -> str:
        return tool(cluster, through, name, "--describe", *brokers, *of)

    for through in sorted(ALL):
        # Each of them lets another one be set, which the tool asks itself.
        other = str(through % 3 + 1)
        tool(cluster, through, name, "--alter", *brokers, "--entity-name", other,
             "--add-config", f"log.retention.ms={1000000 + through}")  # fmt: skip
        shown = f"DYNAMIC_BROKER_CONFIG:log.retention.ms={1000000 + through}"
        until(cluster, partial(described, through, "--entity-name", other), shown)
    for through in sorted(ALL):
        tool(cluster, through, name, "--alter", *brokers, "--entity-default",
             "--add-config", f"log.retention.bytes={2000000 + through}")  # fmt: skip
        shown = f"DYNAMIC_DEFAULT_BROKER_CONFIG:log.retention.bytes={2000000 + through}"
        until(cluster, partial(described, through % 3 + 1, "--entity-default"), shown)
    tool(cluster, 2, name, "--alter", *brokers, "--entity-default",
         "--delete-config", "log.retention.bytes")  # fmt: skip
    said = until(cluster, lambda: described(3), "Default configs", "log.retention.bytes")
    assert said.count("DYNAMIC_BROKER_CONFIG:log.retention.ms") == 3


@pytest.mark.parametrize("through", sorted(ALL))
def test_the_quorum_and_the_features_are_told_by_any_broker(cluster: Cluster, through: int) -> None:
    name = "kafka-metadata-quorum"
    controller = cluster.controller(through)
    status = tool(cluster, through, name, "describe", "--status")
    assert f"LeaderId:               {controller}\n" in status
    for other in ALL - {controller}:
        assert f'{{"id": {other}}}' in status.partition("CurrentObservers:")[2]

    def replication() -> str:
        rows = [
            line.split()
            for line in tool(cluster, through, name, "describe", "--replication").splitlines()[1:]
        ]
        return str({int(row[0]): (row[3], row[-1]) for row in rows if row} == caught_up)

    caught_up = {one: ("0", "Leader" if one == controller else "Observer") for one in ALL}
    until(cluster, replication, "True")
    features = tool(cluster, through, "kafka-features", "describe")
    assert "Feature: headwater.version" in features
    with pytest.raises(AssertionError, match="cannot be lowered"):
        tool(cluster, through, "kafka-features", "downgrade", "--feature", "headwater.version=1")


def committed(described: str, topic: str) -> list[int]:
    """Of each partition committed for: a member may leave before it has asked about all."""
    rows = [line.split() for line in described.splitlines() if topic in line]
    return [int(row[3]) for row in rows if row[3] != "-"]


def test_groups_offsets_and_log_directories_are_shown_by_any_broker(
    cluster: Cluster,
) -> None:
    turn = cycle(sorted(ALL))
    topic, group = new_topic(cluster, next(turn)), fresh("group")
    lines = "".join(f"{n}\n" for n in range(60))
    tool(cluster, next(turn), "kafka-console-producer", "--topic", topic, stdin=lines)
    ends = tool(cluster, next(turn), "kafka-get-offsets", "--topic", topic)
    assert sum(int(line.rpartition(":")[2]) for line in ends.split()) == 60
    tool(
        cluster, next(turn), "kafka-console-consumer", "--topic", topic, "--from-beginning",
        "--max-messages", "60", "--group", group, "--timeout-ms", "60000",
    )  # fmt: skip
    groups = "kafka-consumer-groups"
    described = tool(cluster, next(turn), groups, "--describe", "--group", group)
    assert sum(committed(described, topic)) == 60
    tool(
        cluster, next(turn), groups, "--group", group, "--topic", topic, "--reset-offsets",
        "--to-earliest", "--execute",
    )  # fmt: skip
    described = tool(cluster, next(turn), groups, "--describe", "--group", group)
    assert committed(described, topic) == [0] * PARTITIONS
    assert group in tool(cluster, next(turn), groups, "--list").split()
    dirs = tool(cluster, next(turn), "kafka-log-dirs", "--describe", "--topic-list", topic)
    told = json.loads(dirs.splitlines()[-1])
    shown = [
        part["partition"]
        for broker in told["brokers"]
        for directory in broker["logDirs"]
        for part in directory["partitions"]
    ]
    assert sorted(shown) == [f"{topic}-{index}" for index in range(PARTITIONS)]
    versions = tool(cluster, next(turn), "kafka-broker-api-versions")
    assert versions.count("AlterPartitionReassignments(45): 0 to 1") == 3
    assert versions.count("UnregisterBroker(64): 0") == 3


def test_a_broker_that_is_lost_is_listed_unregistered_and_may_come_again(
    cluster: Cluster,
) -> None:
    lost = cluster.other_than(cluster.controller(1))
    asked = cluster.other_than(lost)
    with pytest.raises(AssertionError, match="is alive"):
        tool(cluster, asked, "kafka-cluster", "unregister", "--id", str(lost))
    cluster.brokers[lost].kill()

    def endpoints() -> str:
        return tool(cluster, asked, "kafka-cluster", "list-endpoints", "--include-fenced-brokers")

    listed = until(cluster, endpoints, " fenced ")
    assert [line.split()[0] for line in listed.splitlines() if " fenced " in line] == [str(lost)]
    said = tool(cluster, asked, "kafka-cluster", "unregister", "--id", str(lost))
    assert f"Broker {lost} is no longer registered." in said
    until(cluster, endpoints, "unfenced", " fenced ")
    with pytest.raises(AssertionError, match="is not currently registered"):
        tool(cluster, asked, "kafka-cluster", "unregister", "--id", str(lost))
    cluster.add(lost)
    cluster.wait_for(ALL)
