"""What the workers of one machine are given."""

from __future__ import annotations

import argparse
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.cli.derive import clashes, worker_flags
from broker.config import ConfigError
from broker.config.load import load
from broker.main import build_parser


def parsed_of(*flags: str) -> argparse.Namespace:
    return build_parser().parse_args(["start", *flags])


def derived(number: int, *flags: str, environ: dict[str, str] | None = None) -> list[str]:
    """As `headwater start` does it."""
    from broker.cli.start import flags_of

    parsed = parsed_of(*flags)
    config = load(flags=flags_of(parsed), sets=parsed.set, environ=environ).config
    return worker_flags(parsed, config, number)


def values(flags: list[str], option: str) -> list[str]:
    return [value for flag, value in pairwise(flags) if flag == option]


def test_each_worker_has_the_next_ports_and_the_next_node_id() -> None:
    given_flags = ("--listener", "127.0.0.1:9092", "--http", "127.0.0.1:9180", "--node-id", "10")
    for number in range(4):
        flags = derived(number, *given_flags)
        assert values(flags, "--listener") == [f"PLAINTEXT=127.0.0.1:{9092 + number}"]
        assert values(flags, "--http") == [f"127.0.0.1:{9180 + number}"]
        assert values(flags, "--node-id") == [str(10 + number)]


def test_without_a_node_id_a_worker_asks_for_the_one_that_it_had() -> None:
    parsed = parsed_of()
    config = load().config
    assert values(worker_flags(parsed, config, 1), "--node-id") == []
    assert values(worker_flags(parsed, config, 1, node_id=7), "--node-id") == ["7"]


def test_a_port_that_is_to_be_found_stays_to_be_found() -> None:
    flags = derived(3, "--listener", "127.0.0.1:0", "--http", "127.0.0.1:0")
    assert values(flags, "--listener") == ["PLAINTEXT=127.0.0.1:0"]
    assert values(flags, "--http") == ["127.0.0.1:0"]


def test_what_is_advertised_moves_along_wherever_it_was_given() -> None:
    here = derived(2, "--listener", "A=0.0.0.0:9092@b.example", "--listener", "B=[::1]:9192")
    assert values(here, "--listener") == ["A=0.0.0.0:9094", "B=[::1]:9194"]
    assert values(here, "--advertised") == ["A://b.example:9094"]
    environ = {
        "HEADWATER_LISTENERS": "0.0.0.0:9092",
        "HEADWATER_ADVERTISED_LISTENERS": "b.example:19092",
        "HEADWATER_NODE_ID": "4",
    }
    flags = derived(1, environ=environ)
    assert values(flags, "--listener") == ["PLAINTEXT=0.0.0.0:9093"]
    assert values(flags, "--advertised") == ["PLAINTEXT://b.example:19093"]
    assert values(flags, "--node-id") == ["5"]


def test_everything_else_is_the_same_for_all() -> None:
    flags = derived(
        1, "--store", "file:///d", "--rack", "r", "--set", "num.partitions=3", "--set", "http=h:1"
    )
    assert values(flags, "--store") == ["file:///d"]
    assert values(flags, "--rack") == ["r"]
    assert values(flags, "--set") == ["num.partitions=3"], "and the keys that differ are flags"
    assert values(flags, "--http") == ["h:2"]


@given(st.integers(1, 65535), st.integers(0, 100))
def test_what_is_derived_is_understood_by_start(port: int, number: int) -> None:
    try:
        flags = derived(number, "--listener", f"127.0.0.1:{port}", "--node-id", "1")
    except ConfigError as error:
        assert port + number > 65535 and "port" in str(error)
        return
    from broker.cli.start import flags_of

    parsed = parsed_of(*flags)
    config = load(flags=flags_of(parsed), sets=parsed.set).config
    assert [str(one.bind) for one in config.listeners] == [f"127.0.0.1:{port + number}"]
    assert config.optional_int("node.id") == 1 + number


def test_workers_that_would_take_each_others_ports_are_refused() -> None:
    assert clashes([["A=h:9092", "B=h:9093"], ["A=h:9093", "B=h:9094"]]) == ["h:9093"]
    assert clashes([["A=h:9092", "B=h:9192"], ["A=h:9093", "B=h:9193"]]) == []
    assert clashes([["A=h:0", "B=h:0"], ["A=h:0", "B=h:0"]]) == []


@pytest.mark.parametrize("text", ["--worker", "--workers=3"])
def test_both_flags_are_told_apart(text: str) -> None:
    parsed = parsed_of(text)
    assert (parsed.worker, parsed.workers) == ((True, None) if text == "--worker" else (False, 3))
