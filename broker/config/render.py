"""The table of settings as text: for the terminal, and as the page of the documentation."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable

from .definitions import SECTIONS, SETTINGS
from .setting import Effect, Setting
from .topic_definitions import TOPIC_SETTINGS
from .types import Value, render

NOT_SET = "not set"
LONGEST_DEFAULT = 40


def shown(value: Value, unit: str = "") -> str:
    """A value for people: not set, empty, or the text with its unit."""
    text = render(value)
    if text is None:
        return NOT_SET
    return f"{text} {unit}".strip() if text else "empty"


def render_config_table(width: int = 100) -> str:
    """Every key with its default, unit and meaning, in aligned columns for a terminal."""
    heads = ("KEY", "DEFAULT", "UNIT")
    rows = [(row.key, _short(shown(row.default)), row.unit or "-") for row in SETTINGS]
    sizes = [max(len(r[i]) for r in (heads, *rows)) for i in range(3)]
    room = max(30, width - sum(sizes) - 6)

    def line(cells: tuple[str, ...], meaning: str) -> Iterable[str]:
        start = "  ".join(cell.ljust(size) for cell, size in zip(cells, sizes, strict=True))
        for part in textwrap.wrap(meaning, room) or [""]:
            yield f"{start}  {part}".rstrip()
            start = " " * len(start)

    lines = list(line(heads, "MEANING"))
    for row, cells in zip(SETTINGS, rows, strict=True):
        lines += line(cells, _full_meaning(row))
    return "\n".join(lines) + "\n"


def _short(text: str) -> str:
    """The name of a Java class without its package, which would push meanings off the screen."""
    return text if len(text) <= LONGEST_DEFAULT else "..." + text.rpartition(".")[2]


def _full_meaning(row: Setting) -> str:
    if row.effect is Effect.STORE_TAKES_ITS_PLACE:
        return f"{row.meaning} Kept and shown only."
    if row.effect is Effect.TIERED_STORAGE_ONLY:
        return f"{row.meaning} Kept and shown only: there is no tiered storage."
    if row.effect is Effect.COMPACTED_TOPICS_ONLY:
        return f"{row.meaning} Kept and shown only: topics cannot be compacted yet."
    return row.meaning


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def _table(heads: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> list[str]:
    lines = ["| " + " | ".join(heads) + " |", "|" + "---|" * len(heads)]
    return [*lines, *("| " + " | ".join(_cell(c) for c in row) + " |" for row in rows), ""]


_INTRODUCTION = """\
# Configuration

This page is made from the broker's own table by `python -m broker.config.docs`; a test fails
when it is stale. `headwater config` prints the same table.

Every setting is one key. Where a key is set more than once, the first of these counts:

1. a flag of `headwater start` that stands for the key (`--store`, `--listener`, ...);
2. `--set KEY=VALUE`;
3. the environment: `HEADWATER_` and the key in capitals with dots as underscores, for example
   `HEADWATER_NUM_PARTITIONS=3`. `HEADWATER_PORT*` and `HEADWATER_SERVICE_*` are ignored, since
   Kubernetes injects such names for a service; another unknown name is a warning;
4. the TOML file of `--config`, with dotted keys or tables. Where one key is the beginning of
   another (`max.connections` and `max.connections.per.ip`), put it in quotes:
   `"max.connections" = 1000`;
5. the default.

An unknown key or an impossible value stops the start with one line that names the place, the
key and what is allowed. Keys that Kafka has keep Kafka's name and meaning.

Dynamic keys can be changed while brokers run, for one broker or for all, with
`kafka-configs --entity-type brokers`, and last: they are kept in the metadata log.
"""


def render_docs() -> str:
    """The whole of docs/configuration.md."""
    lines = [_INTRODUCTION]
    for title, rows in SECTIONS:
        lines += [f"## {title}", ""]
        lines += _table(
            ("Key", "Default", "Allowed", "Dynamic", "Meaning"),
            (
                (
                    f"`{row.key}`",
                    shown(row.default, row.unit),
                    row.allowed(),
                    "yes" if row.dynamic else "",
                    _full_meaning(row),
                )
                for row in rows
            ),
        )
    lines += ["## Topics", ""]
    lines += [
        "Set with CreateTopics, AlterConfigs or `kafka-configs --entity-type topics`. A topic that",
        "does not set a key takes the broker's.",
        "",
    ]
    lines += _table(
        ("Key", "Default", "Broker's key", "Meaning"),
        (
            (
                f"`{row.key}`",
                shown(row.default),
                f"`{row.broker_key}`" if row.broker_key else "",
                row.meaning,
            )
            for row in TOPIC_SETTINGS
        ),
    )
    lines += ["## Defaults that differ from Apache Kafka 4.3.1", ""]
    lines += _table(
        ("Key", "Here", "Kafka", "Reason"),
        (
            (
                f"`{row.key}`",
                shown(row.default, row.unit),
                shown(_kafka_default(row), row.unit),
                row.reason,
            )
            for row in SETTINGS
            if row.differs
        ),
    )
    lines += ["## Dynamic in Kafka, read at the start here", ""]
    lines += [f"- `{row.key}`" for row in SETTINGS if row.dynamic_in_kafka]
    lines += ["", "## Accepted, kept and shown, without an effect", ""]
    lines += [
        "What these govern in Kafka, the files and replicas of a broker, is the object store's",
        "business here. Tools may set them and read them back.",
        "",
    ]
    replaced = Effect.STORE_TAKES_ITS_PLACE
    lines += [f"- `{row.key}` (topic)" for row in TOPIC_SETTINGS if row.effect is replaced]
    lines += [f"- `{row.key}` (broker)" for row in SETTINGS if row.effect is replaced]
    lines += ["", "As in a Kafka without tiered storage these are kept and mean nothing:", ""]
    tiered = Effect.TIERED_STORAGE_ONLY
    lines += [f"- `{row.key}` (topic)" for row in TOPIC_SETTINGS if row.effect is tiered]
    lines += [f"- `{row.key}` (broker)" for row in SETTINGS if row.effect is tiered]
    lines += ["", "Kept until topics can be compacted, which they cannot be yet:", ""]
    compacted = Effect.COMPACTED_TOPICS_ONLY
    lines += [f"- `{row.key}` (topic)" for row in TOPIC_SETTINGS if row.effect is compacted]
    lines += [f"- `{row.key}` (broker)" for row in SETTINGS if row.effect is compacted]
    return "\n".join(lines) + "\n"


def _kafka_default(row: Setting) -> Value:
    assert row.differs, row.key
    return row.kafka_default  # type: ignore[return-value]
