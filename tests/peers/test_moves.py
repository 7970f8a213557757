"""Real brokers that are stopped and started in turn, under load: what they lead moves away before
they end and comes back after, and no client is told of an error.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from .load import NumberedLoad
from .test_cluster import ALL, running, under_load

pytestmark = [pytest.mark.peer, pytest.mark.timeout(1200)]


def test_a_rolling_restart_moves_every_partition_away_and_back(tmp_path: Path) -> None:
    with running(tmp_path) as cluster:
        cluster.wait_shared_out(ALL)

        def restart_all(load: NumberedLoad) -> None:
            for node_id in sorted(ALL):
                cluster.terminate(node_id)
                cluster.ended(node_id)
                cluster.wait_for(ALL - {node_id})
                load.wait_for_more(60)
                cluster.add(node_id)
                cluster.wait_shared_out(ALL)
                load.wait_for_more(60)

        under_load(cluster, restart_all)
