"""Which stores get a cache on disk."""

from __future__ import annotations

from pathlib import Path

import pytest

from broker.cli.start import cache_directory
from broker.config.load import load

S3 = "s3://bucket/prefix"


@pytest.mark.parametrize("uri", ["memory:", "file:///var/lib/headwater"])
def test_what_is_in_this_machine_already_is_not_kept_on_its_disk_again(uri: str) -> None:
    assert cache_directory(load(sets=[]).config, uri) is None


def test_a_bucket_is_cached_where_the_user_keeps_caches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", "/caches")
    assert cache_directory(load(sets=[]).config, S3) == Path("/caches/headwater")


@pytest.mark.parametrize("uri", [S3, "file:///mnt/slow"])
def test_a_directory_that_is_named_is_used_for_files_too(uri: str) -> None:
    assert cache_directory(load(sets=["cache.dir=/fast"]).config, uri) == Path("/fast")


def test_no_bytes_mean_no_cache() -> None:
    config = load(sets=["cache.dir=/fast", "cache.disk.bytes=0"]).config
    assert cache_directory(config, S3) is None
