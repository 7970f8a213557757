"""The child process of `headwater.EmbeddedBroker`."""

from __future__ import annotations

import logging
import sys
from collections.abc import Sequence

from broker.cli import exit_status
from broker.cli.settings import store_settings
from broker.cli.start import Start, run_broker
from broker.config import ConfigError, load

_STORE = "memory:"
_FLAGS = {"store": _STORE, "listeners": "127.0.0.1:0", "http": "127.0.0.1:0"}
_FOR_TESTS = ("group.initial.rebalance.delay.ms=0",)


def main(settings: Sequence[str]) -> int:
    """settings: KEY=VALUE each. Runs until stdin ends.

    The environment is not asked: a test's broker is the same on every machine.
    """
    logging.basicConfig(level=logging.WARNING, stream=sys.stderr)
    try:
        config = load(flags=_FLAGS, sets=[*_FOR_TESTS, *settings]).config
        return run_broker(Start(config, store_settings(config), _STORE, stop_at_eof=True))
    except ConfigError as error:
        print(f"headwater: {error}", file=sys.stderr)
        return exit_status.USAGE
