"""A pytest fixture for an embedded broker. Opt in: a test asks for `headwater_broker` by name.

One broker serves the whole test session, so tests choose topic and group names of their own.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from headwater import EmbeddedBroker


@pytest.fixture(scope="session")
def headwater_broker() -> Iterator[EmbeddedBroker]:
    """A running `headwater.EmbeddedBroker`; started when the first test asks for it."""
    from headwater import EmbeddedBroker

    with EmbeddedBroker() as broker:
        yield broker
