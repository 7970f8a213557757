"""`python -m bench [NAME ...]`: ask the questions, print one table, keep the figures."""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from types import ModuleType

from . import (
    acknowledgement,
    catch_up,
    clients,
    cluster,
    cluster_scale,
    end_to_end,
    kill,
    memory,
    raw_store,
    requests,
    s3_drivers,
    small_requests,
    start,
    throughput,
)
from .figures import Run, load, markdown_table, newest, rows_of, text_table
from .places import STORES, Places
from .targets import verdicts

# Question, then answer. What is compared comes close together.
QUESTIONS: dict[str, ModuleType] = {
    module.__name__.rpartition(".")[2]: module
    for module in (
        raw_store,
        acknowledgement,
        small_requests,
        throughput,
        catch_up,
        clients,
        end_to_end,
        start,
        kill,
        memory,
        requests,
        s3_drivers,
        cluster,
        cluster_scale,
    )
}
README = Path(__file__).parent / "README.md"
BEGIN, END = "<!-- figures begin -->", "<!-- figures end -->"


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help="questions; default: all")
    parser.add_argument("--list", action="store_true", help="the questions, and end")
    parser.add_argument("--stores", default=",".join(STORES), help=f"of {','.join(STORES)}")
    parser.add_argument("--no-kafka", action="store_true", help="without Apache Kafka beside it")
    parser.add_argument(
        "--markdown", action="store_true", help="write the newest results into README.md, and end"
    )
    parser.add_argument(
        "--again",
        action="store_true",
        help="put the answers in the place of those in the newest results (what is compared is "
        "measured within one question)",
    )
    given = parser.parse_args()
    if given.list:
        for name, module in QUESTIONS.items():
            print(f"{name:16} {(module.__doc__ or '').splitlines()[0]}")
        return 0
    if given.markdown:
        write_readme(load(newest()))
        return 0
    unknown = [name for name in given.names if name not in QUESTIONS]
    stores = given.stores.split(",")
    if unknown or not set(stores) <= set(STORES):
        parser.error(f"no such question or store: {', '.join(unknown or stores)}")
    run, failed = ask(given.names or list(QUESTIONS), stores, not given.no_kafka)
    if given.again:
        run = replaced(load(newest()), run)
    path = run.save()
    print(report(run))
    print(f"\nkept in {path}")
    return 1 if failed else 0


def ask(names: list[str], stores: list[str], kafka: bool) -> tuple[Run, bool]:
    """Progress goes to stderr. A question that fails is noted, the others go on."""
    run, failed = Run(), False
    run.begin()
    with Places(stores, kafka) as places:
        for number, name in enumerate(names, 1):
            module = QUESTIONS[name]
            began = time.monotonic()
            print(f"[{number}/{len(names)}] {(module.__doc__ or '').splitlines()[0]}",
                  file=sys.stderr, flush=True)  # fmt: skip
            try:
                for figure in module.measure(places):
                    run.figures.append(figure)
                    print(f"      {figure.place:7} {figure.setting}: {figure.value:.4g} "
                          f"{figure.unit}", file=sys.stderr, flush=True)  # fmt: skip
            except Exception as error:
                failed = True
                run.notes.append(f"FAILED {name}: {type(error).__name__}: {error}")
                print(f"      FAILED: {error}", file=sys.stderr, flush=True)
            print(f"      {time.monotonic() - began:.0f} s", file=sys.stderr, flush=True)
    run.end()
    return run, failed


def replaced(old: Run, new: Run) -> Run:
    """The old run with the new one's questions; a note says which."""
    asked = dict.fromkeys(one.question for one in new.figures)
    figures = [one for one in old.figures if one.question not in asked]
    order = dict.fromkeys(one.question for one in [*old.figures, *new.figures])
    figures = sorted([*figures, *new.figures], key=lambda one: list(order).index(one.question))
    again = f"asked again at {new.started}: {', '.join(asked)}"
    notes = [*old.notes, again, *new.notes]
    return Run(figures, notes, old.load_before, new.load_after, old.started)


def report(run: Run) -> str:
    places = _places(run)
    parts = [
        run.machine,
        text_table(["question", "setting", "unit", *places], rows_of(run, places)),
    ]
    held = [one.row() for one in verdicts(run)]
    if held:
        parts.append(text_table(["target", "on", "wanted", "measured", ""], held))
    parts += [f"Note: {note}" for note in run.notes]
    return "\n\n".join(parts)


def write_readme(run: Run) -> None:
    """Put the figures between the markers of README.md."""
    text = README.read_text()
    places = _places(run)
    parts = [
        f"Measured on {run.machine}.",
        markdown_table(["target", "on", "wanted", "measured", ""],
                       (one.row() for one in verdicts(run)), 2),
        markdown_table(["question", "setting", "unit", *places], rows_of(run, places)),
        *(f"Note: {note}" for note in run.notes),
    ]  # fmt: skip
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    README.write_text(f"{before}{BEGIN}\n" + "\n\n".join(parts) + f"\n{END}{after}")


def _places(run: Run) -> list[str]:
    return [p for p in (*STORES, "kafka") if any(one.place == p for one in run.figures)]


if __name__ == "__main__":
    sys.exit(main())
