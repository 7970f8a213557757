"""The store of a command that reads a bucket beside the brokers, or without them."""

from __future__ import annotations

import argparse
import time
from random import Random

from objectstore.errors import NotFound
from objectstore.open import open_store
from objectstore.store import ObjectStore

from .settings import load_settings, store_flags, store_settings


def add_store_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--store", metavar="URI", help="file:///path or s3://bucket/prefix")
    parser.add_argument("--config", metavar="FILE.toml", help="settings")
    parser.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="any setting"
    )


async def store_of(parsed: argparse.Namespace, rng: Random) -> ObjectStore:
    """The caller closes it. Raises ValueError (ConfigError too) and StoreError."""
    config = load_settings(parsed, store_flags(parsed)).config
    try:
        return await open_store(
            config.text("store"),
            settings=store_settings(config),
            rng=rng,
            now_ms=lambda: time.time_ns() // 1_000_000,
            make_directory=False,
        )
    except FileNotFoundError as error:
        raise NotFound(f"{config.text('store')}: there is no such directory") from error
