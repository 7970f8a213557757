"""The bugs of tests/planted fit the tree as it is; that they are found takes a run of its own."""

from __future__ import annotations

from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PATCHES = sorted((ROOT / "tests" / "planted").glob("*.patch"))


def hunks(patch: str) -> list[tuple[str, str, str]]:
    """(file, text before, text after) of each hunk."""
    found: list[tuple[str, list[str], list[str]]] = []
    name = ""
    for line in patch.splitlines(keepends=True):
        if line.startswith("+++ b/"):
            name = line[6:].strip()
        elif line.startswith("@@"):
            found.append((name, [], []))
        elif found and not line.startswith("---"):
            if line[0] in " -\n":
                found[-1][1].append(line[1:] or line)
            if line[0] in " +\n":
                found[-1][2].append(line[1:] or line)
    return [(name, "".join(before), "".join(after)) for name, before, after in found]


def test_there_are_at_least_ten() -> None:
    assert len(PATCHES) >= 10


@pytest.mark.parametrize("patch", PATCHES, ids=lambda path: path.stem)
def test_a_planted_bug_fits_the_tree_and_changes_it(patch: Path) -> None:
    text = patch.read_text()
    assert text.partition("\n")[0], "the first line says what the bug does"
    found = hunks(text)
    assert found
    for name, before, after in found:
        assert before != after
        assert before in (ROOT / name).read_text(), f"{patch.name} does not fit {name} any more"
