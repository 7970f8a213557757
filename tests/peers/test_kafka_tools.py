"""Apache Kafka's own command-line tools against a broker, unchanged."""

from __future__ import annotations

import json
import uuid

import pytest

from .processes import BrokerProcess, run_tool

pytestmark = [pytest.mark.peer, pytest.mark.timeout(300)]


def fresh(prefix: str) -> str:
    return f"{prefix}-{uuid.uuid4().hex[:8]}"


def test_topics_are_created_described_altered_and_deleted(file_broker: BrokerProcess) -> None:
    at = ("--bootstrap-server", file_broker.bootstrap)
    topic = fresh("tool")
    run_tool(
        "kafka-topics", *at, "--create", "--topic", topic,
        "--partitions", "3", "--config", "retention.ms=60000",
    )  # fmt: skip
    assert topic in run_tool("kafka-topics", *at, "--list").split()
    described = run_tool("kafka-topics", *at, "--describe", "--topic", topic)
    assert "PartitionCount: 3" in described
    assert "retention.ms=60000" in described
    run_tool("kafka-topics", *at, "--alter", "--topic", topic, "--partitions", "5")
    run_tool(
        "kafka-configs", *at, "--alter", "--entity-type", "topics", "--entity-name", topic,
        "--add-config", "max.message.bytes=5000",
    )  # fmt: skip
    configs = run_tool(
        "kafka-configs", *at, "--describe", "--entity-type", "topics", "--entity-name", topic
    )
    assert "max.message.bytes=5000" in configs
    run_tool("kafka-topics", *at, "--delete", "--topic", topic)
    assert topic not in run_tool("kafka-topics", *at, "--list").split()


def test_console_producer_and_consumer_pass_records_on(file_broker: BrokerProcess) -> None:
    at = ("--bootstrap-server", file_broker.bootstrap)
    topic = fresh("console")
    lines = "".join(f"k{i}:v{i}\n" for i in range(50))
    run_tool(
        "kafka-console-producer", *at, "--topic", topic, "--reader-property", "parse.key=true",
        "--reader-property", "key.separator=:", stdin=lines,
    )  # fmt: skip
    out = run_tool(
        "kafka-console-consumer", *at, "--topic", topic, "--from-beginning",
        "--max-messages", "50", "--timeout-ms", "30000", "--formatter-property", "print.key=true",
        "--formatter-property", "key.separator=:",
    )  # fmt: skip
    assert out.splitlines() == lines.splitlines()


def test_offsets_are_listed_deleted_and_reset(file_broker: BrokerProcess) -> None:
    at = ("--bootstrap-server", file_broker.bootstrap)
    topic, group = fresh("offsets"), fresh("group")
    run_tool(
        "kafka-console-producer", *at, "--topic", topic,
        stdin="".join(f"{i}\n" for i in range(20)),
    )  # fmt: skip
    out = run_tool("kafka-get-offsets", *at, "--topic", topic)
    assert f"{topic}:0:20" in out
    run_tool(
        "kafka-console-consumer", *at, "--topic", topic, "--from-beginning",
        "--max-messages", "10", "--group", group, "--timeout-ms", "30000",
    )  # fmt: skip
    described = run_tool("kafka-consumer-groups", *at, "--describe", "--group", group)
    assert topic in described
    reset = run_tool(
        "kafka-consumer-groups", *at, "--group", group, "--topic", topic,
        "--reset-offsets", "--to-offset", "7", "--execute",
    )  # fmt: skip
    assert "7" in reset
    described = run_tool("kafka-consumer-groups", *at, "--describe", "--group", group)
    row = next(line.split() for line in described.splitlines() if topic in line)
    assert row[3:6] == ["7", "20", "13"]
    path = file_broker.directory / f"delete-{topic}.json"
    path.write_text(
        json.dumps({"version": 1, "partitions": [{"topic": topic, "partition": 0, "offset": 5}]})
    )
    assert "low_watermark: 5" in run_tool(
        "kafka-delete-records", *at, "--offset-json-file", str(path)
    )
    assert f"{topic}:0:5" in run_tool("kafka-get-offsets", *at, "--topic", topic, "--time", "-2")


def test_verifiable_and_perf_tools_report_success(file_broker: BrokerProcess) -> None:
    topic = fresh("verifiable")
    out = run_tool(
        "kafka-verifiable-producer", "--bootstrap-server", file_broker.bootstrap, "--topic", topic,
        "--max-messages", "200", "--acks", "-1",
    )  # fmt: skip
    done = [json.loads(line) for line in out.splitlines() if '"tool_data"' in line]
    assert done[-1]["acked"] == 200
    out = run_tool(
        "kafka-producer-perf-test", "--topic", topic, "--num-records", "5000", "--record-size",
        "500", "--throughput", "-1", "--bootstrap-server", file_broker.bootstrap,
    )  # fmt: skip
    assert "5000 records sent" in out
    out = run_tool(
        "kafka-consumer-perf-test", "--bootstrap-server", file_broker.bootstrap, "--topic", topic,
        "--num-records", "5200", "--timeout", "30000",
    )  # fmt: skip
    assert " 5200," in out


def test_cluster_tools_answer(file_broker: BrokerProcess) -> None:
    at = ("--bootstrap-server", file_broker.bootstrap)
    assert "Cluster ID: " in run_tool("kafka-cluster", "cluster-id", *at)
    versions = run_tool("kafka-broker-api-versions", *at)
    assert "Produce(0): 0 to 13" in versions
    assert "Fetch(1): 4 to 18" in versions
    dirs = run_tool("kafka-log-dirs", *at, "--describe")
    assert '"logDirs"' in dirs
    assert "LeaderId" in run_tool("kafka-metadata-quorum", *at, "describe", "--status")
