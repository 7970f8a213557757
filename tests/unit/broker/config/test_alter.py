"""What the decider of changes lets through."""

from __future__ import annotations

import pytest

from broker.config.alter import check_broker_overrides
from protocol.errors import ErrorCode, KafkaError


def test_dynamic_keys_with_good_values_pass() -> None:
    check_broker_overrides({"message.max.bytes": "5", "log.retention.ms": "-1"})


@pytest.mark.parametrize(
    ("key", "text"), [("num.partitions", "3"), ("nokey", "1"), ("message.max.bytes", "-1")]
)
def test_what_cannot_change_while_brokers_run_is_refused(key: str, text: str) -> None:
    with pytest.raises(KafkaError) as caught:
        check_broker_overrides({key: text})
    assert caught.value.code is ErrorCode.INVALID_CONFIG
