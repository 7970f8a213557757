from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from s3stream.metadata.persistent_map import BUCKET_ENTRIES, FIRST_BUCKETS, PersistentMap

steps = st.lists(
    st.tuples(
        st.lists(st.tuples(st.integers(0, 40), st.integers()), max_size=5),
        st.lists(st.integers(0, 40), max_size=5),
    ),
    max_size=20,
)


@given(steps)
def test_every_version_stays_what_a_dictionary_would_have_been(
    changes: list[tuple[list[tuple[int, int]], list[int]]],
) -> None:
    versions: list[tuple[PersistentMap[int, int], dict[int, int]]] = [(PersistentMap(), {})]
    for updates, removed in changes:
        now, model = versions[-1]
        after = {k: v for k, v in model.items() if k not in removed}
        after.update(updates)
        versions.append((now.change(updates, removed), after))
    for now, model in versions:
        assert dict(now) == model
        assert len(now) == len(model)


@given(steps)
def test_differences_are_those_of_the_dictionaries_between_any_two_versions(
    changes: list[tuple[list[tuple[int, int]], list[int]]],
) -> None:
    versions: list[PersistentMap[int, tuple[int]]] = [PersistentMap()]
    for updates, removed in changes:
        versions.append(versions[-1].change([(k, (v,)) for k, v in updates], removed))
    for older in versions:
        for newer in versions:
            found = list(newer.differences(older))
            wanted = {k for k in {**older, **newer} if older.get(k) is not newer.get(k)}
            assert sorted(found) == sorted(wanted)


def test_differences_are_found_between_maps_of_other_numbers_of_buckets() -> None:
    small = PersistentMap((number, (number,)) for number in range(BUCKET_ENTRIES))
    new = {
        number: (number,) for number in range(BUCKET_ENTRIES, FIRST_BUCKETS * BUCKET_ENTRIES * 3)
    }
    large = small.change(new.items(), [5])
    assert sorted(large.differences(small)) == sorted({5, *new})
    assert sorted(small.differences(large)) == sorted({5, *new})


def test_growing_beyond_the_buckets_keeps_every_entry() -> None:
    count = FIRST_BUCKETS * BUCKET_ENTRIES * 3
    grown: PersistentMap[str, int] = PersistentMap()
    for number in range(count):
        grown = grown.set(f"topic-{number}", number)
    assert dict(grown) == {f"topic-{n}": n for n in range(count)}
    assert len(grown) == count


def test_one_change_shares_all_buckets_but_one() -> None:
    before = PersistentMap((n, n) for n in range(10_000))
    after = before.set(5, -5)
    shared = sum(a is b for a, b in zip(before._buckets, after._buckets, strict=True))
    assert shared == len(before._buckets) - 1
    assert before[5] == 5


def test_the_order_of_iteration_does_not_hang_on_the_process() -> None:
    program = (
        "from s3stream.metadata.persistent_map import PersistentMap\n"
        "from uuid import UUID\n"
        "print(list(PersistentMap((f'topic-{n}', 0) for n in range(50))))\n"
        "print(list(PersistentMap((UUID(int=n), 0) for n in range(50))))\n"
    )
    root = Path(__file__).parents[4]
    orders = {
        subprocess.run(
            [sys.executable, "-c", program],
            env={"PYTHONHASHSEED": seed, "PYTHONPATH": str(root)},
            check=True,
            capture_output=True,
            text=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert len(orders) == 1 and "topic-49" in orders.pop()


def test_what_has_no_stable_order_cannot_be_a_key() -> None:
    with pytest.raises(TypeError):
        PersistentMap([(1.5, 0)])
