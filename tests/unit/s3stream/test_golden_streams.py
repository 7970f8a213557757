"""Entries and control records of every released version are still read as meant."""

from __future__ import annotations

import pytest

from s3stream.control import Control, decode_control
from s3stream.index_pages import decode_entries
from tests.golden.make_streams import (
    CONTROLS,
    CONTROLS_OF_MOVES,
    FOLDER,
    FOLDER_MOVES,
    build,
    build_moves,
    entries,
)


def test_todays_code_writes_the_same_bytes() -> None:
    assert {path.name: path.read_bytes() for path in FOLDER.iterdir()} == build()
    assert {path.name: path.read_bytes() for path in FOLDER_MOVES.iterdir()} == build_moves()


def test_entries_of_v1_are_read() -> None:
    assert decode_entries((FOLDER / "entries.bin").read_bytes(), "k") == (entries(), [3, 5])


@pytest.mark.parametrize("record", CONTROLS, ids=lambda one: type(one).__name__)
def test_control_records_of_v1_are_read(record: Control) -> None:
    data = (FOLDER / f"{type(record).__name__.lower()}.bin").read_bytes()
    assert decode_control(data, "k") == record


@pytest.mark.parametrize("record", CONTROLS_OF_MOVES, ids=lambda one: type(one).__name__)
def test_control_records_of_moves_are_read(record: Control) -> None:
    data = (FOLDER_MOVES / f"{type(record).__name__.lower()}.bin").read_bytes()
    assert decode_control(data, "k") == record
