"""kafkajs against a broker, unchanged: every codec that it has, groups, commits, administration."""

from __future__ import annotations

import json
import subprocess
from typing import Any

import pytest

from .load import fresh
from .processes import HERE, PEERS_HOME, BrokerProcess

pytestmark = [pytest.mark.peer, pytest.mark.timeout(120)]

COUNT = 200


@pytest.mark.parametrize("codec", ["None", "GZIP", "Snappy", "LZ4"])
def test_kafkajs_gets_back_what_it_sent_and_resumes_from_its_commits(
    file_broker: BrokerProcess, codec: str
) -> None:
    topic = fresh("kafkajs")
    done = subprocess.run(
        [
            "node", str(HERE / "js" / "roundtrip.js"), str(PEERS_HOME / "kafkajs"),
            file_broker.bootstrap, topic, fresh("group"), codec, str(COUNT),
        ],
        capture_output=True, text=True, timeout=90, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    told: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    for partition in (0, 1):
        sent = told["sent"][partition::2]
        got = [one for one in told["first"] if one["partition"] == partition]
        assert [int(one["offset"]) for one in got] == list(range(len(sent)))
        for name in ("key", "value", "timestamp", "headers"):
            assert [one[name] for one in got] == [one[name] for one in sent], name
    committed = {p["partition"]: p["offset"] for p in told["committed"][0]["partitions"]}
    assert committed == {0: str(COUNT // 2), 1: str(COUNT // 2)}
    assert [one["value"] for one in told["second"]] == ["late"]
    ends = {p["partition"]: (p["low"], p["high"]) for p in told["offsets"]}
    assert ends == {0: ("0", str(COUNT // 2 + 1)), 1: ("0", str(COUNT // 2))}
    by_time = {p["partition"]: p["offset"] for p in told["byTime"]}
    assert by_time == {0: str(COUNT // 2 - 1), 1: str(COUNT // 2 - 1)}
    assert told["state"] == "Empty"
