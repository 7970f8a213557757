"""What is explored: the sizes at which all states hold, and the rules without which they do not."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from .create import Create
from .explore import Found, Model, explore
from .failover import Failover
from .handoff import Handoff
from .log import Log
from .reads import Reads
from .reports import Reports
from .rounds import Rounds
from .silence import Silence
from .terms import Terms

AnyModel = Model[Any]
SUBJECTS: Mapping[str, type[AnyModel]] = {
    "create": Create,
    "log": Log,
    "handoff": Handoff,
    "failover": Failover,
    "rounds": Rounds,
    "reports": Reports,
    "terms": Terms,
    "silence": Silence,
    "reads": Reads,
}


@dataclass(frozen=True)
class Size:
    """A model at one size. goal: the goal is demanded to stay within reach, too."""

    subject: str
    args: Sequence[int]
    options: Mapping[str, Any] = field(default_factory=dict)
    goal: bool = False
    off: Sequence[str] = ()

    def model(self) -> AnyModel:
        make: Callable[..., AnyModel] = SUBJECTS[self.subject]
        return make(*self.args, **self.options, off=self.off)

    def run(self, *, exact: bool = True) -> Found:
        return explore(self.model(), exact=exact, reach_goal=self.goal)

    def __str__(self) -> str:
        options = [f"{key}={value}" for key, value in self.options.items()]
        without = [f"without {', '.join(self.off)}"] if self.off else []
        goal = ["goal"] if self.goal else []
        numbers = ", ".join(map(str, self.args))
        return f"{self.subject}({'; '.join([numbers, *options, *without, *goal])})"


@dataclass(frozen=True)
class Broken:
    """Rules switched off at a size, the fault that then appears, and how many steps lead to it."""

    size: Size
    steps: int
    says: str

    @property
    def name(self) -> str:
        return f"{self.size.subject}.{'+'.join(self.size.off)}"


def _broken(
    subject: str,
    off: str,
    args: Sequence[int],
    steps: int,
    says: str,
    *,
    goal: bool = False,
    **options: Any,
) -> Broken:
    return Broken(Size(subject, args, options, goal, tuple(off.split())), steps, says)


HOLDS = (
    Size("create", (3,)),
    Size("log", (2, 2, 2, 1), goal=True),
    Size("log", (3, 2, 2, 1)),
    Size("log", (3, 2, 1, 2), {"reader": True}),
    Size("log", (4, 1, 2, 1), {"checkpoint_every": 2}, goal=True),
    Size("log", (5, 2, 1, 1), {"checkpoint_every": 2}),
    Size("log", (3, 1, 2, 1), {"page": 2}, goal=True),
    Size("log", (4, 2, 1, 1), {"page": 2}),
    Size("handoff", (2, 2, 1, 1), goal=True),
    Size("handoff", (3, 1, 1, 1)),
    Size("failover", (3, 1, 1), goal=True),
    Size("failover", (3, 2, 0)),
    Size("failover", (3, 2, 1), {"uploads": False}),
    Size("rounds", (2, 1, 1, 1, 1), {"pages": True}),
    Size("rounds", (2, 1, 1, 0, 1), {"fresh": True}),
    Size("rounds", (2, 0, 1, 1, 2), {"fresh": True}),
    Size("rounds", (3, 0, 1, 1, 1), {"late": True}),
    Size("rounds", (3, 0, 2, 1, 2)),
    Size("reports", (2, 2, 2)),
    Size("reports", (3, 1, 2)),
    Size("terms", (2, 3, 4, 2, 0), goal=True),
    Size("terms", (3, 2, 3, 1, 0), goal=True),
    Size("terms", (3, 3, 2, 0, 1), goal=True),
    Size("silence", (3, 4), {"stores": True}),
    Size("silence", (3, 4), {"ordinary": True}),
    Size("silence", (3, 4), {"one_way": True}),
    Size("reads", (3,), {"gets": True, "at_once": True}),
)

LARGER = (
    Size("create", (6,)),
    Size("log", (4, 2, 2, 1), goal=True),
    Size("log", (3, 2, 2, 2)),
    Size("log", (4, 2, 1, 2), {"reader": True}),
    Size("log", (4, 1, 3, 1)),
    Size("log", (5, 2, 2, 1), {"checkpoint_every": 2}),
    Size("handoff", (3, 1, 2, 1)),
    Size("handoff", (3, 2, 1, 1)),
    Size("failover", (3, 2, 1)),
    Size("failover", (4, 2, 0), {"uploads": False}),
    Size("rounds", (3, 1, 1, 1, 1)),
    Size("rounds", (2, 1, 1, 1, 1), {"fresh": True}),
    Size("rounds", (2, 1, 1, 1, 2), {"pages": True}),
    Size("rounds", (2, 2, 1, 0, 2), {"pages": True}),
    Size("reports", (3, 2, 2)),
    Size("terms", (2, 3, 5, 3, 0)),
    Size("terms", (3, 3, 3, 1, 1)),
    Size("silence", (4, 4)),
    Size("reads", (5,), {"gets": True, "at_once": True}),
)

# What is not missed alone: another rule makes up for it.
SPARE = (
    Size("log", (2, 2, 2, 1), off=("validate",)),
    Size("log", (2, 2, 2, 1), off=("list_again",)),
    Size("log", (3, 1, 2, 1), {"page": 2}, off=("validate",)),
    Size("log", (3, 1, 2, 1), {"page": 2}, off=("list_again",)),
    Size("reads", (3,), {"gets": True, "at_once": True}, off=("sent_counts",)),
    Size("reads", (3,), {"gets": True, "at_once": True}, off=("controller_confirmed",)),
    Size("reads", (3,), off=("age_carried",)),
)

BROKEN = (
    _broken("create", "header_decides", (3,), 5, "fenced by its own object"),
    _broken("create", "write_id_checked", (3,), 4, "acknowledged bytes that are not in the store"),
    _broken("create", "absent_is_sent_again", (3,), 4, "told to have failed is in the log"),
    _broken("create", "bytes_fixed", (3,), 4, "acknowledged bytes that are not in the store"),
    _broken("log", "contiguous_ack", (2, 2, 1, 1), 8, "2 objects are acknowledged"),
    _broken("log", "trim_below_checkpoint", (2, 1, 1, 1), 9, "no checkpoint", checkpoint_every=2),
    _broken("log", "trim_in_header", (2, 1, 1, 1), 9, "1 objects are acknowledged"),
    _broken("log", "trim_durable", (3, 2, 1, 1), 12, "before the end, 0, is not there"),
    _broken("log", "count_contiguous", (2, 2, 1, 1), 9, "a reader has counted 2", reader=True),
    _broken("log", "below_trim_absent", (3, 1, 2, 1), 13, "a hole at 1"),
    _broken("log", "start_from_header", (2, 2, 1, 1), 9, "a hole at 0"),
    _broken("log", "whole_window", (2, 1, 1, 1), 6, "answers old reads"),
    _broken("log", "validate list_again", (3, 2, 1, 1), 12, "2 objects are acknowledged"),
    _broken("log", "window_at_end", (2, 1, 1, 1), 9, "answers old reads"),
    _broken("log", "lowest_counts", (2, 1, 1, 1), 3, "before the end, 0, is not there"),
    _broken("log", "end_object", (2, 2, 2, 1), 13, "two processes own"),
    _broken("log", "collect_after_end", (2, 1, 1, 1), 9, "before the end, 0, is not there"),
    _broken("log", "seals_kept", (2, 1, 1, 1), 8, "answers old reads"),
    _broken("log", "stop_at_seal", (2, 1, 1, 1), 7, "1 objects are acknowledged"),
    _broken("log", "confirm_next_unused", (2, 1, 1, 1), 10, "answers old reads"),
    _broken("handoff", "source_kept", (2, 1, 1, 1), 7, "not where the chain leads"),
    _broken("handoff", "opening_names_record", (3, 1, 2, 0), 17, "not where the chain leads"),
    _broken("handoff", "source_before_own", (2, 1, 1, 1), 17, "not where the chain leads"),
    _broken("handoff", "opened_recorded", (2, 1, 0, 1), 6, "not where the chain leads"),
    _broken("handoff", "flush_first", (2, 1, 0, 1), 5, "not where the chain leads"),
    _broken("handoff", "stops_accepting", (2, 1, 0, 1), 5, "not where the chain leads"),
    _broken("handoff", "answer_names_move", (2, 2, 0, 1), 17, "not where the chain leads"),
    _broken("handoff", "reopen_by_record", (2, 1, 0, 1), 7, "not where the chain leads"),
    _broken("handoff", "cancel_keeps_source", (2, 1, 0, 1), 2, "not where the chain leads"),
    _broken("handoff", "end_before_takeover", (2, 1, 1, 1), 7, "not where the chain leads"),
    _broken("handoff", "records_only", (2, 1, 0, 1), 7, "not where the chain leads"),
    _broken("failover", "source_kept", (2, 1, 0), 4, "not where the chain leads"),
    _broken("failover", "opened_by_stream", (2, 1, 0), 6, "the chain leads nowhere"),
    _broken("failover", "needed_until_checkpoint", (2, 1, 0), 9, "which was deleted"),
    _broken("failover", "end_first", (2, 1, 0), 5, "not where the chain leads"),
    _broken("failover", "recover_all", (2, 1, 0), 4, "not where the chain leads"),
    _broken("failover", "record_first", (2, 1, 1), 5, "not where the chain leads"),
    _broken("failover", "void_if_fenced", (3, 2, 0), 7, "which was deleted"),
    _broken("failover", "image_names", (2, 1, 0), 6, "which was deleted"),
    _broken("failover", "unended_named", (2, 1, 0), 3, "which was deleted"),
    _broken("rounds", "listed_before", (2, 0, 0, 0, 1), 11, "which was deleted", fresh=True),
    _broken("rounds", "own_on_its_way", (2, 0, 0, 0, 1), 11, "which was deleted", fresh=True),
    _broken("rounds", "replay_named", (2, 2, 0, 0, 2), 21, "which was deleted", pages=True),
    _broken("rounds", "closed_untouched", (2, 1, 1, 0, 2), 21, "which was deleted"),
    _broken("rounds", "pages_named", (2, 2, 0, 0, 2), 11, "which was deleted", pages=True),
    _broken("rounds", "own_log_objects", (2, 1, 0, 0, 2), 15, "which was deleted"),
    _broken("rounds", "adopted_log_objects", (2, 1, 1, 0, 2), 20, "which was deleted"),
    _broken("rounds", "union", (2, 1, 1, 0, 1), 13, "which was deleted"),
    _broken("rounds", "unsettled", (2, 1, 1, 0, 1), 11, "which was deleted"),
    _broken("rounds", "one_look", (2, 1, 1, 0, 1), 11, "which was deleted"),
    _broken("rounds", "ended_named", (2, 1, 1, 1, 1), 10, "which was deleted"),
    _broken("rounds", "ended_at_record", (2, 1, 1, 1, 1), 12, "which was deleted"),
    _broken("rounds", "waits", (2, 1, 1, 0, 2), 15, "which was deleted"),
    _broken("rounds", "abandon", (3, 0, 2, 1, 2), 24, "which was deleted"),
    _broken("reports", "let_go_by_record", (2, 1, 2), 14, "X was deleted"),
    _broken("reports", "newest_round", (2, 1, 2), 16, "X was deleted"),
    _broken("reports", "folded_round", (2, 1, 2), 12, "X was deleted"),
    _broken("terms", "read_to_end", (2, 2, 3, 0, 0), 3, "the numbers given out are [1, 1]"),
    _broken("terms", "empty_sealed", (2, 2, 3, 0, 1), 2, "the goal is out of reach", goal=True),
    _broken("terms", "gap_checked", (2, 2, 3, 1, 0), 6, "the goal is out of reach", goal=True),
    _broken("terms", "snapshot_first", (2, 2, 3, 0, 0), 3, "in no snapshot"),
    _broken("terms", "snapshot_kept", (2, 2, 4, 2, 0), 10, "in no snapshot"),
    _broken("terms", "snapshot_durable", (2, 2, 3, 1, 0), 3, "what never happened"),
    _broken("terms", "confirmed", (2, 2, 3, 0, 0), 6, "answers as controller"),
    _broken("silence", "growth_spares", (3, 4), 9, "hears at least half"),
    _broken("silence", "misses_early", (3, 4), 6, "hears at least half"),
    _broken("silence", "few_are_silent", (2, 4), 13, "fenced P1, which is well"),
    _broken("silence", "few_fence_late", (2, 4), 6, "fenced P1, which is well"),
    _broken("silence", "few_add_nothing", (2, 4), 9, "fenced P1, which is well", ordinary=True),
    _broken("silence", "confirmed_only", (2, 4), 34, "there is no controller", stores=True),
    _broken("silence", "heard_both_ways", (2, 4), 6, "hears at least half", one_way=True),
    _broken("silence", "loser_waits", (2, 4), 21, "and it goes on"),
    _broken("reads", "age_carried", (3,), 12, "an old end for the newest", gets=True),
    _broken("reads", "age_carried sent_counts", (3,), 7, "an old end for the newest"),
    _broken("reads", "age_carried controller_confirmed", (3,), 11, "an old end for the newest"),
    _broken("reads", "full_timeout", (3,), 9, "an old end for the newest", gets=True),
)


def rules_without_a_fault() -> list[str]:
    """Rules that no broken variant switches off: a defect of this catalogue."""
    tried = {(one.size.subject, rule) for one in BROKEN for rule in one.size.off}
    return [
        f"{subject}.{rule}"
        for subject, model in SUBJECTS.items()
        for rule in model.RULES
        if (subject, rule) not in tried
    ]
