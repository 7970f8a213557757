"""`headwater cluster`, line by line."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.cli.cluster_view import Progress, lines_of
from broker.cli.columns import bar, columns, counted, size
from broker.cluster.load import Load, PartitionLoad
from broker.cluster.picture import (
    BrokerPicture,
    FailoverPicture,
    HotPicture,
    MovePicture,
    Unreached,
    View,
)

LOAD = Load(2 << 20, 1 << 10, 321, 5, 1520, 200 << 20, (PartitionLoad(3, 5, 6),))
VIEW = View(
    cluster_id="c",
    is_live=True,
    controller=1,
    term=4,
    partitions=10,
    topics=2,
    without_leader=1,
    brokers=[
        BrokerPicture(1, 7, "live", "10.0.0.1:9092", "a", None, 5, True, None, LOAD),
        BrokerPicture(2, 8, "draining", "10.0.0.2:9092", None, None, 5, False, 300, None),
    ],
    moves=[MovePicture(2, 1, 3, 1)],
    failovers=[FailoverPicture(3, 6, 2, 0)],
    hottest=[HotPicture("t", 0, 1, 1 << 20, 0, 0.5)],
    unreached=[Unreached(1, 2)],
)


def test_everything_that_is_under_way_is_shown() -> None:
    text = "\n".join(lines_of(VIEW))
    assert "controller node 1, term 4" in text
    assert "1 partition has no live leader" in text
    assert "2.0 MiB/s  1.0 KiB/s     321/s      152 %  200.0 MiB" in text
    assert "moving from node 2 to node 1: 4 partitions left (3 to close, 1 to open)" in text
    assert "taking over from node 3 (incarnation 6): 2 partitions left" in text
    assert "t/0        node 1  1.0 MiB/s  0 B/s            50%" in text
    assert "node 1 does not reach node 2 at 10.0.0.2:9092" in text


def test_a_sick_broker_is_named_with_its_trouble() -> None:
    sick = msgspec.structs.replace(VIEW.brokers[1], state="sick", why="its loop is late")
    text = "\n".join(lines_of(msgspec.structs.replace(VIEW, brokers=[VIEW.brokers[0], sick])))
    assert "node 2 is sick: its loop is late" in text
    assert "is sick" not in "\n".join(lines_of(VIEW))


def test_without_a_controller_it_says_so_and_shows_no_loads() -> None:
    text = "\n".join(lines_of(msgspec.structs.replace(VIEW, is_live=False)))
    assert "no controller answers: this is what the bucket says" in text
    assert "node 1 decided last, in term 4" in text
    assert "processor" not in text


def test_progress_counts_from_the_most_that_was_seen() -> None:
    progress = Progress()
    assert "[....................] 0 of 4" in "\n".join(lines_of(VIEW, progress))
    half = msgspec.structs.replace(VIEW, moves=[MovePicture(2, 1, 1, 1)])
    assert "[##########..........] 2 of 4" in "\n".join(lines_of(half, progress))
    lines_of(msgspec.structs.replace(VIEW, moves=[]), progress)
    assert "[....................] 0 of 2" in "\n".join(lines_of(half, progress)), "begun anew"


def test_the_view_for_programs_is_json_and_comes_back() -> None:
    assert msgspec.json.decode(msgspec.json.encode(VIEW), type=View) == VIEW
    assert b'"bytes_in":2097152' in msgspec.json.encode(VIEW)


@pytest.mark.parametrize(
    ("count", "told"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (1024, "1.0 KiB"),
        (5 << 30, "5.0 GiB"),
        (3 << 50, "3072.0 TiB"),
    ],
)
def test_sizes_are_told_as_people_read_them(count: int, told: str) -> None:
    assert size(count) == told


def test_one_is_not_many() -> None:
    assert counted(1, "partition") == "1 partition"
    assert counted(2, "partition") == "2 partitions"
    assert counted(1, "one is", "many are") == "1 one is"


@given(st.integers(0, 1000), st.integers(0, 1000))
def test_a_bar_is_never_longer_than_itself(done: int, total: int) -> None:
    drawn = bar(done, total)
    assert len(drawn) == 22
    assert drawn.count("#") + drawn.count(".") == 20


words = st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=1, max_size=12)


@given(st.lists(st.tuples(words, words, words), max_size=6))
def test_columns_cut_nothing_off(rows: list[tuple[str, str, str]]) -> None:
    lines = columns(("a", "b", "c"), rows)
    assert len(lines) == len(rows) + 1
    for line, row in zip(lines[1:], rows, strict=True):
        assert line.split() == list(row)
