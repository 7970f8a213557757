"""Real brokers that are stopped and started in turn, under load: what they lead moves away before
they end and comes back after, and no client is told of an error.
"""

from __future__ import annotations

import time
from collections import Counter
from pathlib import Path
from typing import Any

from .test_cluster import Trio, running, under_load

SHARED_OUT_S = 20.0


def leaders_by_node(trio: Trio, asked: int) -> Counter[int]:
    topics = trio.told_by(asked).topics.values()
    return Counter(partition.leader for one in topics for partition in one.partitions.values())


def wait_for_shares(trio: Trio, asked: int) -> None:
    """Until each of the three leads as many as another: those of groups count too."""
    deadline = time.monotonic() + SHARED_OUT_S
    while set(leaders_by_node(trio, asked).values()) != {3}:
        assert time.monotonic() < deadline, leaders_by_node(trio, asked)
        time.sleep(0.2)


def test_a_rolling_restart_moves_every_partition_away_and_back(tmp_path: Path) -> None:
    with running(tmp_path) as trio:

        def trouble(load: Any) -> None:
            for node_id, asked in ((2, 1), (3, 1), (1, 2)):
                broker = trio.brokers[node_id]
                assert broker.stop() == 0
                # Nothing waits to be missed: it led nothing any more when it ended.
                assert leaders_by_node(trio, asked)[node_id] == 0
                load.wait_for_more(60)
                broker.start()
                wait_for_shares(trio, asked)
                load.wait_for_more(60)

        under_load(trio, trouble)
