"""What the pages name is there: links, files of ours, targets of make, flags and settings."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from broker.config.definitions import BY_KEY

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md"), ROOT / "bench" / "README.md"])
FOLDERS = ("protocol", "objectstore", "wal", "s3stream", "broker", "tests", "bench", "docs")


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)", page.read_text()):
        if "://" not in target:
            assert (page.parent / target).exists(), target


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_files_that_are_named_exist(page: Path) -> None:
    pattern = rf"`((?:{'|'.join(FOLDERS)})/[\w/.-]*)`"
    for named in re.findall(pattern, page.read_text()):
        assert (ROOT / named).exists(), named


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_targets_of_make_exist(page: Path) -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for named in re.findall(r"(?:^    |`)make ([a-z][a-z-]*)", page.read_text(), re.MULTILINE):
        assert named in targets, named


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_settings_that_are_set_exist(page: Path) -> None:
    for key in re.findall(r"--set ([a-z][a-z0-9.]+)=", page.read_text()):
        assert key in BY_KEY, key
