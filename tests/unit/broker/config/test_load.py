"""Where a setting may come from, which place counts, and what a mistake is told."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.config import ConfigError, load
from broker.config.definitions import BY_KEY, SETTINGS
from broker.config.load import BY_VARIABLE, FLAGS
from broker.config.types import Source


def toml(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "broker.toml"
    path.write_text(text)
    return path


def refusal(**places: object) -> str:
    with pytest.raises(ConfigError) as caught:
        load(**places)  # type: ignore[arg-type]
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_each_place_counts_before_the_ones_after_it(tmp_path: Path) -> None:
    file = toml(tmp_path, 'node.id = 1\n[broker]\nrack = "file"\n')
    environ = {"HEADWATER_NODE_ID": "2", "PATH": "/bin"}
    sets, flags = ["node.id=3"], {"node.id": "4"}
    assert load(file=file).config.int("node.id") == 1
    assert load(file=file, environ=environ).config.int("node.id") == 2
    assert load(file=file, environ=environ, sets=sets).config.int("node.id") == 3
    all_places = load(file=file, environ=environ, sets=sets, flags=flags)
    assert all_places.config.int("node.id") == 4
    assert all_places.config.text("broker.rack") == "file"
    assert all_places.warnings == ()


def test_a_file_may_use_tables_dotted_keys_quoted_keys_and_lists(tmp_path: Path) -> None:
    file = toml(
        tmp_path,
        'listeners = ["A=127.0.0.1:1", "B=127.0.0.1:2"]\n'
        'log.retention.hours = 5\n"max.connections" = 7\n"max.connections.per.ip" = 6\n'
        "[auto.create]\ntopics.enable = false\n[wal]\nput.budget.per.second = 2.5\n",
    )
    config = load(file=file).config
    assert [listener.name for listener in config.listeners] == ["A", "B"]
    assert config.int("log.retention.hours") == 5
    assert (config.int("max.connections"), config.int("max.connections.per.ip")) == (7, 6)
    assert not config.flag("auto.create.topics.enable")
    assert config.optional_number("wal.put.budget.per.second") == 2.5


def test_what_kubernetes_injects_is_ignored_and_other_unknown_names_are_warnings() -> None:
    loaded = load(
        environ={
            "HEADWATER_PORT": "tcp://10.0.0.1:9092",
            "HEADWATER_PORT_9092_TCP_ADDR": "10.0.0.1",
            "HEADWATER_SERVICE_HOST": "10.0.0.1",
            "HEADWATER_NUM_PARTITION": "3",
        }
    )
    [warning] = loaded.warnings
    assert "HEADWATER_NUM_PARTITION" in warning and "num.partitions" in warning


def test_an_unknown_key_names_the_place_and_the_nearest_key(tmp_path: Path) -> None:
    message = refusal(sets=["num.partitons=3"])
    assert message.startswith("--set") and "did you mean num.partitions?" in message
    file = toml(tmp_path, "log.retention.hour = 3\n")
    message = refusal(file=file)
    assert str(file) in message and "log.retention.hours" in message


@pytest.mark.parametrize(
    ("places", "words"),
    [
        ({"sets": ["num.partitions=0"]}, ("--set", "num.partitions", "'0'", "at least 1")),
        ({"sets": ["num.partitions=x"]}, ("num.partitions", "Not a number", "at least 1")),
        ({"sets": ["num.partitions"]}, ("KEY=VALUE",)),
        ({"sets": ["s3.driver=boto"]}, ("obstore, aiobotocore",)),
        ({"environ": {"HEADWATER_NODE_ID": "-1"}}, ("HEADWATER_NODE_ID", "node.id")),
        ({"flags": {"node.id": "x"}}, ("--node-id", "node.id")),
        ({"flags": {"http": "nowhere"}}, ("--http", "HOST:PORT")),
        ({"sets": ["log.cleanup.policy=compact"]}, ("delete",)),
        (
            {"sets": ["group.min.session.timeout.ms=9", "group.max.session.timeout.ms=8"]},
            ("group.min.session.timeout.ms=9", "group.max.session.timeout.ms=8"),
        ),
    ],
)
def test_an_impossible_value_is_one_line_with_place_key_and_what_is_allowed(
    places: dict[str, object], words: tuple[str, ...]
) -> None:
    message = refusal(**places)
    assert all(word in message for word in words), message


@pytest.mark.parametrize("text", ["node.id = ", "node.id = 2020-01-01", "listeners = [[1]]"])
def test_a_file_that_is_no_table_of_settings_is_refused(tmp_path: Path, text: str) -> None:
    assert "broker.toml" in refusal(file=toml(tmp_path, text))


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    assert "nowhere.toml" in refusal(file=tmp_path / "nowhere.toml")


def test_a_wildcard_listener_without_an_advertised_address_shows_the_line_to_type() -> None:
    message = refusal(flags={"listeners": "0.0.0.0:9092"})
    assert "--listener 0.0.0.0:9092@THIS-HOST:9092" in message
    load(flags={"listeners": "0.0.0.0:9092", "advertised.listeners": "kafka.example:9092"})


def test_no_variable_stands_for_two_keys_and_no_name_is_one_that_kubernetes_injects() -> None:
    assert len(BY_VARIABLE) == len(SETTINGS)
    assert not any(v.startswith(("HEADWATER_PORT", "HEADWATER_SERVICE_")) for v in BY_VARIABLE)


def test_our_own_keys_fit_into_tables_of_one_toml_file() -> None:
    ours = [row.key for row in SETTINGS if not row.is_kafkas]
    clashes = [(a, b) for a in BY_KEY for b in ours if b.startswith(f"{a}.")]
    clashes += [(a, b) for a in ours for b in BY_KEY if b.startswith(f"{a}.")]
    assert clashes == []


def test_every_flag_stands_for_a_key() -> None:
    assert set(FLAGS) <= set(BY_KEY)


def test_every_default_is_a_value_that_its_own_row_allows() -> None:
    for row in SETTINGS:
        if row.default_text is not None:
            assert row.parse(row.default_text) == row.default, row.key


def test_a_dynamic_change_makes_a_new_view_and_leaves_the_old_one() -> None:
    old = load(sets=["message.max.bytes=10"]).config
    new = old.with_overrides({"message.max.bytes": "20"}, {})
    newest = new.with_overrides({"message.max.bytes": "20"}, {"message.max.bytes": "30"})
    read = [view.int("message.max.bytes") for view in (old, new, newest)]
    assert read == [10, 20, 30]
    assert [place.source for place in newest.chain("message.max.bytes")] == [
        Source.DYNAMIC_BROKER,
        Source.DYNAMIC_DEFAULT_BROKER,
        Source.STATIC_BROKER,
        Source.DEFAULT,
    ]


def test_keys_in_the_metadata_log_that_this_version_does_not_know_do_no_harm() -> None:
    view = load().config.with_overrides({"later.key": "1"}, {"num.partitions": "9"})
    assert view.int("num.partitions") == 1


@given(st.sampled_from(sorted(BY_KEY)), st.text(max_size=40))
def test_any_text_is_a_value_or_a_clear_refusal(key: str, text: str) -> None:
    try:
        load(sets=[f"{key}={text}"])
    except ConfigError as error:
        assert "\n" not in str(error) or "\n" in text
