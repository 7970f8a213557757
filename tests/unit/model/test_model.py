"""The models of the storage protocol: small sizes hold, and a missing rule is found.

All sizes and all rules: `make model`.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

import docs.model.catalog as catalog
from docs.model.catalog import BROKEN, HOLDS, LARGER, SPARE, Broken, Size, rules_without_a_fault
from docs.model.explore import Model, explore, follow
from docs.model.scenarios import SCENARIOS, Scenario

TINIEST = (
    Size("create", (2,)),
    Size("log", (2, 1, 2, 1), goal=True),
    Size("handoff", (2, 1, 1, 1), goal=True),
    Size("failover", (2, 1, 1), goal=True),
    Size("rounds", (2, 1, 1, 0, 1)),
    Size("reports", (2, 1, 1)),
    Size("terms", (2, 2, 3, 1, 0), goal=True),
    Size("silence", (2, 4)),
    Size("reads", (2,), {"gets": True, "at_once": True}),
)
FOUND = tuple(one for one in BROKEN if one.name in ("log.window_at_end", "rounds.union"))


@pytest.mark.parametrize("size", TINIEST, ids=str)
def test_every_state_holds(size: Size) -> None:
    found = size.run()
    assert found.holds, (found.fault, found.trace)


@pytest.mark.parametrize("one", FOUND, ids=lambda one: one.name)
def test_without_its_rule_the_shortest_loss_is_found(one: Broken) -> None:
    found = one.size.run()
    assert found.fault is not None and one.says in found.fault
    assert len(found.trace) == one.steps


def test_every_rule_has_a_variant_without_it() -> None:
    assert rules_without_a_fault() == []
    assert len({one.name for one in BROKEN}) == len(BROKEN)


def test_the_page_names_every_variant_and_every_size() -> None:
    page = Path(catalog.__file__).with_name("README.md").read_text()
    assert [one.name for one in BROKEN if f"| `{one.name}` | {one.steps} |" not in page] == []
    assert [str(size) for size in (*HOLDS, *SPARE, *LARGER) if f"| `{size}` |" not in page] == []


def test_every_subject_has_a_size_that_holds() -> None:
    assert {one.size.subject for one in BROKEN} == {size.subject for size in HOLDS}


@pytest.mark.parametrize("scenario", SCENARIOS[:2], ids=lambda scenario: scenario.name)
def test_a_named_scenario_is_lost_only_without_its_rule(scenario: Scenario) -> None:
    assert scenario.run(broken=False).holds
    assert scenario.run(broken=True).fault is not None


def test_a_rule_that_does_not_exist_is_refused() -> None:
    with pytest.raises(ValueError, match="has no rule"):
        Size("log", (2, 1), off=("walidate",)).run()


class Counter(Model[tuple[int, int]]):
    """Two counters up to 3; the second can be stopped for ever at 1."""

    def start(self) -> tuple[int, int]:
        return (0, 0)

    def steps(self, state: tuple[int, int]) -> Iterator[tuple[str, tuple[int, int]]]:
        a, b = state
        if a < 3:
            yield f"first counts {a + 1}", (a + 1, b)
        if 0 <= b < 3:
            yield f"second counts {b + 1}", (a, b + 1)
        if b == 1:
            yield "second stops", (a, -1)

    def fault(self, state: tuple[int, int]) -> str | None:
        return "too far" if state == (2, 3) else None

    def goal(self, state: tuple[int, int]) -> bool:
        return state[1] == 3


class Harmless(Counter):
    def fault(self, state: tuple[int, int]) -> str | None:
        return None


def test_the_trace_to_a_fault_is_the_shortest() -> None:
    for exact in (True, False):
        found = explore(Counter(), exact=exact)
        assert found.fault == "too far"
        assert len(found.trace) == 5


def test_all_states_are_visited_once() -> None:
    found = explore(Harmless())
    assert found.holds
    assert found.states == 4 * 5


def test_a_limit_is_no_proof() -> None:
    found = explore(Harmless(), at_most=5)
    assert found.fault is None
    assert not found.holds


def test_a_state_that_lost_its_goal_is_found_on_the_shortest_way() -> None:
    found = explore(Harmless(), reach_goal=True)
    assert found.trace == ("second counts 1", "second stops")
    assert not found.holds


def test_a_script_goes_on_where_it_is_told_to() -> None:
    start = follow(Harmless(), ["second counts 1", "second stops"])
    assert start == (0, -1)
    assert explore(Harmless(), start=start).states == 4
    with pytest.raises(AssertionError, match="is one of"):
        follow(Harmless(), ["second stops"])
