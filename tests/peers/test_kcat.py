"""kcat against a broker, unchanged."""

from __future__ import annotations

import json
import subprocess
import time
from typing import Any

import pytest

from .load import create_topic, fresh
from .processes import BrokerProcess

pytestmark = [pytest.mark.peer, pytest.mark.timeout(60)]


def kcat(broker: BrokerProcess, *args: str, stdin: str | None = None) -> str:
    done = subprocess.run(
        ["kcat", "-b", broker.bootstrap, *args],
        input=stdin, capture_output=True, text=True, timeout=30, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def consumed(broker: BrokerProcess, topic: str, *args: str) -> list[dict[str, Any]]:
    out = kcat(broker, "-C", "-t", topic, "-e", "-q", "-J", *args)
    return [json.loads(line) for line in out.splitlines()]


@pytest.mark.parametrize("codec", ["none", "gzip", "snappy", "lz4", "zstd"])
def test_keys_headers_and_values_come_back_in_every_codec(
    file_broker: BrokerProcess, codec: str
) -> None:
    topic = fresh("kcat")
    create_topic(file_broker.bootstrap, topic, 1)
    lines = "".join(f"key-{i}|value-{i}\n" for i in range(100)) + "gone|\n"
    kcat(
        file_broker, "-P", "-t", topic, "-K", "|", "-Z", "-z", codec,
        "-H", "name=value", "-H", "other=thing", stdin=lines,
    )  # fmt: skip
    found = consumed(file_broker, topic, "-o", "beginning")
    assert [(r["key"], r["payload"]) for r in found[:100]] == [
        (f"key-{i}", f"value-{i}") for i in range(100)
    ]
    assert (found[100]["key"], found[100]["payload"]) == ("gone", None)
    assert found[7]["headers"] == ["name", "value", "other", "thing"]
    assert [r["offset"] for r in found] == list(range(101))


def test_offsets_are_found_from_both_ends_and_by_time(file_broker: BrokerProcess) -> None:
    topic = fresh("kcat")
    create_topic(file_broker.bootstrap, topic, 1)
    kcat(file_broker, "-P", "-t", topic, "-p", "0", stdin="a\nb\nc\n")
    time.sleep(0.05)
    between = int(time.time() * 1000)
    time.sleep(0.05)
    kcat(file_broker, "-P", "-t", topic, "-p", "0", stdin="d\ne\n")

    def payloads(offset: str) -> list[str]:
        return [r["payload"] for r in consumed(file_broker, topic, "-p", "0", "-o", offset)]

    assert payloads("2") == ["c", "d", "e"]
    assert payloads("-2") == ["d", "e"]
    assert payloads(f"s@{between}") == ["d", "e"]
    query = kcat(file_broker, "-Q", "-t", f"{topic}:0:{between}")
    assert "offset 3" in query
    assert "offset 5" in kcat(file_broker, "-Q", "-t", f"{topic}:0:-1")
    assert "offset 0" in kcat(file_broker, "-Q", "-t", f"{topic}:0:-2")


def test_metadata_and_a_balanced_group_are_served(file_broker: BrokerProcess) -> None:
    topic = fresh("kcat")
    create_topic(file_broker.bootstrap, topic, 3)
    listed = json.loads(kcat(file_broker, "-L", "-J", "-t", topic))
    assert [len(t["partitions"]) for t in listed["topics"]] == [3]
    assert listed["brokers"] == [{"id": 1, "name": file_broker.bootstrap}]
    kcat(file_broker, "-P", "-t", topic, stdin="".join(f"{i}\n" for i in range(30)))
    group = fresh("group")
    out = kcat(
        file_broker, "-G", group, "-X", "auto.offset.reset=earliest", "-c", "30", "-q", topic
    )
    assert sorted(out.split(), key=int) == [str(i) for i in range(30)]
