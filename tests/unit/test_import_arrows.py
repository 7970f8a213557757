"""Imports point one way, and time, randomness and settings come in through parameters.

Read from the syntax trees, so that what is imported inside a function counts too.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = ("protocol", "objectstore", "wal", "s3stream", "broker")
MAY_IMPORT = {
    "protocol": {"protocol"},
    "objectstore": {"objectstore"},
    "wal": {"wal", "objectstore"},
    "s3stream": {"s3stream", "wal", "objectstore", "protocol"},
    "broker": set(PACKAGES),
}
# Of the protocol, streams know batches and nothing of clients' requests.
STREAMS_MAY_KNOW = {
    "protocol.record_batch",
    "protocol.batch_header",
    "protocol.control_batch",
}

# Who may touch the machine's clock: what runs as a process of its own, or on a person's terminal.
CLOCK = {
    "broker/cli/",
    "broker/verify/__init__.py",  # its progress bar
    "s3stream/compaction/worker.py",  # the process
    "objectstore/drivers/",
}
# The machine's randomness: whoever makes the generator that all others are given.
RANDOMNESS = {
    "broker/cli/",
    "broker/inspect.py",
    "broker/verify/__init__.py",
    "s3stream/compaction/worker.py",
}
ENVIRONMENT = {
    "broker/cli/",  # hands it to broker.config; the cache directory of the user
    "objectstore/settings.py",  # the standard AWS places
    "objectstore/drivers/",
}


def sources(package: str) -> list[Path]:
    return sorted((ROOT / package).rglob("*.py"))


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


@cache
def tree_of(path: Path) -> list[ast.AST]:
    return list(ast.walk(ast.parse(path.read_text())))


def imported(path: Path) -> Iterator[tuple[str, str]]:
    """(module, name taken from it or "") of each import, relative ones made absolute."""
    package = path.relative_to(ROOT).with_suffix("").parts[:-1]
    for node in tree_of(path):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name, ""
        elif isinstance(node, ast.ImportFrom):
            module = node.module or ""
            if node.level:
                base = package[: len(package) - node.level + 1]
                module = ".".join([*base, *([module] if module else [])])
            for alias in node.names:
                yield module, alias.name


def uses(path: Path) -> Iterator[str]:
    """Dotted names that the module mentions, such as `os.environ`, imports from included."""
    for node in tree_of(path):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            yield f"{node.value.id}.{node.attr}"
    for module, name in imported(path):
        if name:
            yield f"{module}.{name}"


def allowed(path: Path, places: set[str]) -> bool:
    name = name_of(path)
    return any(name == place or (place[-1] == "/" and name.startswith(place)) for place in places)


@pytest.mark.parametrize("package", PACKAGES)
def test_imports_point_one_way(package: str) -> None:
    wrong = []
    for path in sources(package):
        for module, _ in imported(path):
            top = module.partition(".")[0]
            if top in PACKAGES and top not in MAY_IMPORT[package]:
                wrong.append(f"{name_of(path)} imports {module}")
    assert not wrong, wrong


def test_streams_know_no_more_of_the_protocol_than_batches() -> None:
    wrong = []
    for path in sources("s3stream"):
        for module, name in imported(path):
            if module.partition(".")[0] == "protocol":
                known = {module, f"{module}.{name}"} & STREAMS_MAY_KNOW
                if not known:
                    wrong.append(f"{name_of(path)} imports {module} {name}")
    assert not wrong, wrong


def is_clock(use: str) -> bool:
    module, _, name = use.rpartition(".")
    of_time = name in ("time", "time_ns", "monotonic", "monotonic_ns", "sleep", "perf_counter")
    return (module == "time" and of_time) or use in (
        "datetime.now",
        "datetime.utcnow",
        "date.today",
    )


def is_randomness(use: str) -> bool:
    if use in ("os.urandom", "uuid.uuid4", "uuid.uuid1"):
        return True
    return use.startswith(("random.", "secrets.")) and use != "random.Random"


def is_environment(use: str) -> bool:
    return use in ("os.environ", "os.getenv", "os.environb")


RULES = pytest.mark.parametrize(
    ("is_wrong", "places"),
    [(is_clock, CLOCK), (is_randomness, RANDOMNESS), (is_environment, ENVIRONMENT)],
)


@RULES
def test_the_machine_comes_in_through_parameters(
    is_wrong: Callable[[str], bool], places: set[str]
) -> None:
    wrong = {
        f"{name_of(path)}: {use}"
        for package in PACKAGES
        for path in sources(package)
        if not allowed(path, places)
        for use in uses(path)
        if is_wrong(use)
    }
    assert not wrong, sorted(wrong)


@RULES
def test_no_place_has_an_exception_that_it_does_not_need(
    is_wrong: Callable[[str], bool], places: set[str]
) -> None:
    for place in sorted(places):
        files = [path for p in PACKAGES for path in sources(p) if allowed(path, {place})]
        assert any(is_wrong(use) for path in files for use in uses(path)), place


def test_the_tests_themselves_would_notice() -> None:
    here = ROOT / "tests" / "unit" / "test_import_arrows.py"
    assert ("ast", "") in set(imported(here))
    relative = ROOT / "s3stream" / "stream.py"
    assert any(module == "s3stream.entries" for module, _ in imported(relative))
    start = ROOT / "broker" / "cli" / "start.py"
    assert {"os.environ", "random.SystemRandom"} <= set(uses(start))
