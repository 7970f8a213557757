"""Entries and control records of every released version are still read as meant."""

from __future__ import annotations

import pytest

from s3stream.control import Control, decode_control
from s3stream.history import decode_history
from s3stream.index_pages import decode_entries
from tests.golden.make_streams import (
    CONTROLS,
    CONTROLS_OF_MOVES,
    FOLDER,
    FOLDER_MOVES,
    FOLDER_V2,
    OLDER,
    build,
    entries,
    entries_with_history,
)

ENTRIES_V1 = FOLDER / "entries.bin"


def test_todays_code_writes_the_same_bytes() -> None:
    kept = {
        *FOLDER.iterdir(),
        *FOLDER_V2.iterdir(),
        *FOLDER_MOVES.iterdir(),
    } - {ENTRIES_V1}
    assert {path: path.read_bytes() for path in kept} == build()


def test_entries_of_v1_are_read() -> None:
    assert decode_entries(ENTRIES_V1.read_bytes(), "k") == (entries(), [3, 5])


def test_entries_of_v2_are_read() -> None:
    data = (FOLDER_V2 / "entries.bin").read_bytes()
    assert decode_entries(data, "k") == (entries_with_history(), [3, 5])


def test_histories_of_v1_are_read() -> None:
    assert decode_history((FOLDER_V2 / "history.bin").read_bytes(), "k") == (42, OLDER)


@pytest.mark.parametrize("record", CONTROLS, ids=lambda one: type(one).__name__)
def test_control_records_of_v1_are_read(record: Control) -> None:
    data = (FOLDER / f"{type(record).__name__.lower()}.bin").read_bytes()
    assert decode_control(data, "k") == record


@pytest.mark.parametrize("record", CONTROLS_OF_MOVES, ids=lambda one: type(one).__name__)
def test_control_records_of_moves_are_read(record: Control) -> None:
    data = (FOLDER_MOVES / f"{type(record).__name__.lower()}.bin").read_bytes()
    assert decode_control(data, "k") == record
