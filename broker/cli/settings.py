"""From parsed arguments to settings, and from settings to the store: what commands share."""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import TYPE_CHECKING

from broker.config import BrokerConfig, ConfigError, Loaded, load

if TYPE_CHECKING:
    from objectstore.settings import StoreSettings


def load_settings(parsed: argparse.Namespace, flags: dict[str, str]) -> Loaded:
    """Raises ConfigError."""
    file = Path(parsed.config) if parsed.config else None
    return load(flags=flags, sets=parsed.set, environ=os.environ, file=file)


def store_settings(config: BrokerConfig) -> StoreSettings:
    """Raises ConfigError."""
    from objectstore.settings import StoreSettings

    try:
        return StoreSettings(
            s3_driver=config.text("s3.driver"),
            s3_endpoint=config.optional_text("s3.endpoint"),
            s3_region=config.optional_text("s3.region"),
            s3_path_style=config.optional_flag("s3.path.style"),
            request_timeout_s=config.int("storage.request.timeout.ms") / 1000,
            connect_timeout_s=config.int("storage.connect.timeout.ms") / 1000,
            max_connections=config.int("storage.connections"),
        )
    except ValueError as error:
        raise ConfigError(str(error)) from None


def store_flags(parsed: argparse.Namespace) -> dict[str, str]:
    return {} if parsed.store is None else {"store": parsed.store}
