"""`headwater topics|produce|consume|groups|doctor`, as the README shows them."""

from __future__ import annotations

import io
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from broker.cli import exit_status
from broker.main import main
from headwater import EmbeddedBroker

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(
    headwater_broker: EmbeddedBroker,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> Run:
    def act(*words: str, lines: str = "") -> tuple[int, str, str]:
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(lines.encode())))
        status = main([*words, "--bootstrap", headwater_broker.bootstrap_servers])
        printed = capsys.readouterr()
        return status, printed.out, printed.err

    return act


def test_topics_are_made_shown_and_deleted(run: Run) -> None:
    assert run("topics", "create", "shelf", "--partitions", "2", "--set", "retention.ms=5") == (
        exit_status.OK,
        "created shelf\n",
        "",
    )
    assert "shelf" in run("topics", "list")[1].splitlines()
    described = run("topics", "describe", "shelf")[1]
    assert re.match(r"shelf: id [0-9a-f-]{36} partitions 2\n", described)
    assert "  retention.ms=5\n" in described
    assert "  partition 1 leader 1 epoch 0\n" in described
    assert run("topics", "delete", "shelf")[1] == "deleted shelf\n"
    assert "shelf" not in run("topics", "list")[1].splitlines()


def test_a_refusal_is_one_line_and_a_status(run: Run) -> None:
    status, out, err = run("topics", "create", "bad name")
    assert (status, out) == (exit_status.FAILED, "")
    assert "bad name" in err and len(err.splitlines()) == 1
    run("topics", "create", "twice")
    assert run("topics", "create", "twice") == (
        exit_status.FAILED,
        "",
        "headwater topics: topic already exists: Topic 'twice' already exists.\n",
    )
    status, _, err = run("groups", "describe", "nobody")
    assert (status, err) == (
        exit_status.FAILED,
        "headwater groups: nobody: there is no such group\n",
    )


def test_lines_come_back_with_all_that_they_carried(run: Run) -> None:
    run("topics", "create", "lines", "--partitions", "1")
    status, _, err = run(
        "produce", "lines", "--key-separator", ":", "--header", "h=1", lines="a:1\nb:2\n"
    )
    assert (status, err) == (exit_status.OK, "2 records are acknowledged\n")
    options = ("--exit-at-end", "--keys", "--headers", "--timestamps", "--offsets")
    status, out, _ = run("consume", "lines", "--from-beginning", *options)
    assert status == exit_status.OK
    assert re.sub(r"\d{13}", "T", out) == "0:0\tT\th=1\ta\t1\n0:1\tT\th=1\tb\t2\n"
    out = run("consume", "lines", "--partition", "0", "--offset", "1", "--exit-at-end")[1]
    assert out == "2\n"


def test_a_group_is_shown_with_its_lag(run: Run) -> None:
    run("topics", "create", "lagging", "--partitions", "1")
    run("produce", "lagging", lines="1\n2\n3\n")
    assert run("consume", "lagging", "--from-beginning", "--group", "readers", "--max", "3")[0] == 0
    run("produce", "lagging", lines="4\n")
    assert "readers\t" in run("groups", "list")[1]
    described = run("groups", "describe", "readers")[1]
    assert "  lagging-0 committed 3 end 4 lag 1\n" in described


def test_a_missing_topic_is_not_waited_for(run: Run) -> None:
    status, _, err = run("consume", "nosuch-topic", "--partition", "3", "--exit-at-end")
    assert status == exit_status.FAILED
    assert "nosuch-topic" in err


def test_doctor_finds_a_good_directory_good_and_a_missing_one_missing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["doctor", "--store", f"file://{tmp_path}"]) == exit_status.OK
    assert "conditional creates are honoured" in capsys.readouterr().out
    assert main(["doctor", "--store", f"file://{tmp_path}/missing"]) == exit_status.FAILED
    assert "missing" in capsys.readouterr().out
    assert main(["doctor", "--store", "ftp://x"]) == exit_status.USAGE
