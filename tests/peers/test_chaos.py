"""Three faults of `make chaos`, short, with librdkafka and aiokafka at work: nothing is lost,
doubled or reordered, and everything goes on. How long it took is for `make chaos` to say.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.chaos.clients import AIOKAFKA, RDKAFKA
from tests.chaos.faults import CASES
from tests.chaos.run import run_fault

from .processes import Minio

# The waits inside are by condition, and each ends by itself, saying what is missing.
pytestmark = [pytest.mark.peer, pytest.mark.timeout(1200)]


@pytest.mark.parametrize("name", ["kill-controller", "cut-store", "scale"])
def test_nothing_acknowledged_is_lost_doubled_or_reordered(
    name: str, minio: Minio, tmp_path: Path
) -> None:
    case = CASES[name]
    outcome = run_fault(
        name, case.act, minio, tmp_path, [RDKAFKA, AIOKAFKA], case.brokers, case.proxied, 0.05
    )
    print("\n".join(outcome.complaints()))
    assert not outcome.stuck, outcome.stuck
    assert outcome.verdict.is_clean, outcome.complaints()
    assert outcome.figures.acknowledged and outcome.figures.delivered
