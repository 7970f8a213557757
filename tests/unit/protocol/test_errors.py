from __future__ import annotations

import pytest

from protocol.errors import RETRIABLE, ErrorCode, KafkaError, RecordErrors


def test_the_codes_run_without_a_gap_from_unknown_to_kafkas_newest() -> None:
    assert [int(code) for code in ErrorCode] == list(range(-1, 134))
    assert ErrorCode(133) is ErrorCode.SHARE_SESSION_LIMIT_REACHED


@pytest.mark.parametrize(
    ("code", "retriable"),
    [
        (ErrorCode.NOT_LEADER_OR_FOLLOWER, True),
        (ErrorCode.REQUEST_TIMED_OUT, True),
        (ErrorCode.CORRUPT_MESSAGE, True),
        (ErrorCode.UNKNOWN_SERVER_ERROR, False),
        (ErrorCode.INVALID_PRODUCER_EPOCH, False),
        (ErrorCode.REBALANCE_IN_PROGRESS, False),
    ],
)
def test_clients_retry_what_kafka_calls_retriable(code: ErrorCode, retriable: bool) -> None:
    assert KafkaError(code).retriable is retriable
    assert (code in RETRIABLE) is retriable


def test_what_is_for_our_log_is_not_told_to_the_client() -> None:
    error = KafkaError(ErrorCode.INVALID_RECORD, detail="two batches")
    assert error.message is None
    assert str(error) == "INVALID_RECORD: two batches"
    assert isinstance(RecordErrors(ErrorCode.INVALID_RECORD, "m", [(0, None)]), KafkaError)
