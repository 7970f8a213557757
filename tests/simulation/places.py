"""The places where the code can wait: each `await`, `async for` and `async with` of some files.

A place is `path:line function`, as the loop tells of a suspended task. They are taken from the
compiled code, so nobody keeps a list: new code brings its places with it.
"""

from __future__ import annotations

import ast
import dis
import inspect
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path
from types import CodeType

ROOT = Path(__file__).resolve().parents[2]
WATCHED = ("wal/", "s3stream/", "objectstore/create.py")
# Entering and leaving these never waits: what is inside does.
_NEVER_WAIT = ("asyncio.timeout", "asyncio.timeout_at")


def all_places() -> set[str]:
    """Every place of the watched files."""
    return {place for path in _files() for place in _places_of(path)}


@cache
def place_of(path: str, line: int, function: str) -> str:
    """The name of a place; "" outside the watched files."""
    try:
        short = Path(path).relative_to(ROOT).as_posix()
    except ValueError:
        return ""
    return f"{short}:{line} {function}" if short.startswith(WATCHED) else ""


def _files() -> Iterator[Path]:
    for part in WATCHED:
        path = ROOT / part
        yield from sorted(path.rglob("*.py")) if path.is_dir() else [path]


def _places_of(path: Path) -> Iterator[str]:
    source = path.read_text()
    never = set(_lines_that_never_wait(ast.walk(ast.parse(source))))
    for code in _codes(compile(source, str(path), "exec")):
        if not code.co_flags & (inspect.CO_COROUTINE | inspect.CO_ASYNC_GENERATOR):
            continue
        for step in dis.get_instructions(code):
            line = step.positions.lineno if step.positions is not None else None
            if step.opname == "SEND" and line is not None and line not in never:
                yield place_of(str(path), line, code.co_name)


def _codes(code: CodeType) -> Iterator[CodeType]:
    yield code
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _codes(constant)


def _lines_that_never_wait(nodes: Iterable[ast.AST]) -> Iterator[int]:
    for node in nodes:
        if isinstance(node, ast.AsyncWith):
            for item in node.items:
                call = item.context_expr
                if isinstance(call, ast.Call) and ast.unparse(call.func) in _NEVER_WAIT:
                    yield call.lineno
