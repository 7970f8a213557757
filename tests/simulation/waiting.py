"""Where a suspended coroutine waits: the places (see `places`) of all its frames."""

from __future__ import annotations

import gc
from collections.abc import AsyncIterator
from types import AsyncGeneratorType, CodeType, CoroutineType
from typing import Any

from .places import place_of


def name_of(coro: Any) -> str:
    return str(getattr(coro, "__qualname__", type(coro).__name__))


# The code object too, so that no other one gets its id.
_KNOWN: dict[tuple[int, int], tuple[str, CodeType]] = {}


def places_of(coro: Any, everywhere: bool = False) -> tuple[str, ...]:
    """The place of every suspended frame of a coroutine, outermost first.

    everywhere: also of files that are not watched.
    """
    places: list[str] = []
    while coro is not None:
        if isinstance(coro, CoroutineType):
            frame, inner = coro.cr_frame, coro.cr_await
        elif isinstance(coro, AsyncGeneratorType):
            frame, inner = coro.ag_frame, coro.ag_await
        elif isinstance(coro, _STEPS_OF_GENERATORS):
            # It keeps its generator to itself, and only the garbage collector may know.
            coro = next(
                (one for one in gc.get_referents(coro) if isinstance(one, AsyncGeneratorType)), None
            )
            continue
        else:
            break
        if frame is not None:
            code = frame.f_code
            # By instruction: to find its line takes long.
            at = id(code), frame.f_lasti
            known = _KNOWN.get(at)
            if known is None:
                place = place_of(code.co_filename, frame.f_lineno, code.co_name)
                known = _KNOWN[at] = (place, code)
            place = known[0]
            if not place and everywhere:
                place = f"{code.co_filename}:{frame.f_lineno} {code.co_name}"
            if place:
                places.append(place)
        coro = inner
    return tuple(places)


async def _nothing() -> AsyncIterator[None]:
    return
    yield


def _steps_of_generators() -> tuple[type, ...]:
    """What is awaited where an asynchronous generator goes on or ends; they have no other name."""
    generator: Any = _nothing()
    steps = generator.asend(None), generator.athrow(ValueError())
    for one in steps:
        one.close()
    return tuple(type(one) for one in steps)


_STEPS_OF_GENERATORS = _steps_of_generators()
