"""Metadata records and snapshots of every released version are still read as meant."""

from __future__ import annotations

from s3stream.metadata.records import decode_record
from s3stream.metadata.snapshot import decode_image, encode_image
from tests.golden.make_metadata import CANCELLED, FIRST, FOLDER, MOVES, build, image


def test_todays_code_writes_the_same_bytes() -> None:
    written = {path.name: path.read_bytes() for path in FOLDER.iterdir()}
    del written["snapshot_1.bin"]
    assert written == build()


def test_a_snapshot_of_format_1_is_read() -> None:
    data = (FOLDER / "snapshot_1.bin").read_bytes()
    assert decode_image(data, "k") == image(FIRST)


def test_a_cluster_whose_level_was_not_raised_goes_on_with_format_1() -> None:
    assert encode_image(image(FIRST))[:3] == (FOLDER / "snapshot_1.bin").read_bytes()[:3]


def test_a_snapshot_of_format_2_is_read() -> None:
    data = (FOLDER / "snapshot_2.bin").read_bytes()
    assert decode_image(data, "k") == image([*FIRST, *MOVES])


def test_records_of_moves_are_read() -> None:
    for record in (MOVES[2], *MOVES[4:], CANCELLED):
        data = (FOLDER / f"{type(record).__name__.lower()}.bin").read_bytes()
        assert decode_record(data, "k") == record
