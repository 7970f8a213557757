"""What a cluster writes follows its level, which only rises, and not above what all of it reads."""

from __future__ import annotations

import msgspec
import pytest

from broker.api.features import _level_error
from objectstore.errors import Corrupt
from s3stream.metadata import records as r
from s3stream.metadata.features import (
    FIRST_LEVEL,
    HEADWATER_VERSION,
    SUPPORTED_LEVEL,
    level_of,
    may_move,
    readable_by_all,
)
from s3stream.metadata.snapshot import decode_image, encode_image

from .test_image import History, begun


def joined(history: History, node_id: int, incarnation: int, level: int) -> None:
    history.add(r.BrokerRegistered(node_id, incarnation, b"p%d" % incarnation, 4, (), level=level))


def test_a_cluster_that_nobody_raised_is_at_the_first_level() -> None:
    history = begun()
    assert level_of(history.image) == FIRST_LEVEL and not may_move(history.image)


def test_the_level_waits_for_the_last_broker_that_does_not_read_it() -> None:
    history = begun()  # its broker registered as the first release does
    joined(history, 2, 1, SUPPORTED_LEVEL)
    assert readable_by_all(history.image) == FIRST_LEVEL
    told = _level_error(history.image, SUPPORTED_LEVEL)
    assert told is not None and "[1]" in told
    joined(history, 1, 2, SUPPORTED_LEVEL)
    assert _level_error(history.image, SUPPORTED_LEVEL) is None
    history.add(r.FeatureLevelSet(HEADWATER_VERSION, SUPPORTED_LEVEL))
    assert may_move(history.image)


def test_the_level_never_goes_back() -> None:
    history = begun()
    history.add(r.FeatureLevelSet(HEADWATER_VERSION, SUPPORTED_LEVEL))
    for level in range(SUPPORTED_LEVEL):
        assert _level_error(history.image, level) is not None


def test_a_process_stops_at_a_level_that_it_does_not_read() -> None:
    history = begun()
    with pytest.raises(Corrupt, match="start a newer version"):
        history.add(r.FeatureLevelSet(HEADWATER_VERSION, SUPPORTED_LEVEL + 1))
    raised = msgspec.structs.replace(
        history.image, features=history.image.features.set(HEADWATER_VERSION, SUPPORTED_LEVEL + 1)
    )
    with pytest.raises(Corrupt, match="start a newer version"):
        decode_image(encode_image(raised), "meta/snapshot/1-1")


def test_the_snapshot_of_a_raised_cluster_is_one_that_the_first_release_refuses() -> None:
    history = begun()
    first = encode_image(history.image)
    history.add(r.FeatureLevelSet(HEADWATER_VERSION, 2))
    second = encode_image(history.image)
    versions = [msgspec.msgpack.decode(data)[0] for data in (first, second)]
    assert versions == [1, 2]
