"""A bucket that was made anew under its broker, and a disk that is full."""

from __future__ import annotations

import contextlib
import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from .load import NumberedLoad, create_topic, fresh
from .processes import BrokerProcess, Minio
from .test_store_trouble import told_of_trouble

pytestmark = [pytest.mark.peer, pytest.mark.timeout(120)]


def test_a_bucket_made_anew_under_a_broker_stops_it_loudly(minio: Minio, tmp_path: Path) -> None:
    """It holds nothing of the cluster: whatever was acknowledged into it could not be read."""
    name = fresh("wiped")
    broker = BrokerProcess(minio.make_bucket(name), tmp_path, env=minio.env).start()
    before = NumberedLoad(broker.bootstrap, fresh("numbers"))
    load = NumberedLoad(broker.bootstrap, before.topic, **{"message.timeout.ms": 5000})
    try:
        create_topic(broker.bootstrap, before.topic)
        before.start()
        before.wait_for_more(50)
        # MinIO makes a bucket again for a write that comes while it is deleted.
        before.finish()
        minio.delete_bucket(name)
        load.start()
        assert "create the bucket again" in broker.wait_ready(False)
        minio.make_bucket(name)
        assert broker.wait_end(30) == 1
        assert not load.all_acknowledged
        last = broker.log_text.rstrip().splitlines()[-1]
        assert "the bucket was made anew" in last, last
        # And no start makes a new cluster over what there is.
        minio.client().put_object(Bucket=name, Key=f"cluster/wal/{0:020d}/{99:020d}", Body=b"x")
        refused = subprocess.run(
            broker.command(), env=broker.env, cwd=tmp_path, capture_output=True, text=True,
            timeout=20,
        )  # fmt: skip
        assert refused.returncode == 1
        assert "no metadata that tells of it" in refused.stderr
        assert refused.stderr.count("\n") == 1, refused.stderr
    finally:
        load.abandon()
        broker.kill()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 8 MiB. Needs the right to mount one; where there is none the test fails."""
    directory = tmp_path / "small"
    directory.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(directory)],
        capture_output=True, text=True,
    )  # fmt: skip
    if mounted.returncode:
        mounted = subprocess.run(
            ["sudo", "-n", "mount", "-t", "tmpfs", "-o", "size=8m,mode=1777", "tmpfs",
             str(directory)],
            capture_output=True, text=True,
        )  # fmt: skip
    assert mounted.returncode == 0, f"run as root, for a full disk: {mounted.stderr}"
    try:
        yield directory
    finally:
        umount = ["umount", str(directory)]
        subprocess.run(umount if os.geteuid() == 0 else ["sudo", "-n", *umount], check=True)


def test_a_full_disk_is_waited_out(small_disk: Path, tmp_path: Path) -> None:
    broker = BrokerProcess(f"file://{small_disk}/data", tmp_path).start()
    load = NumberedLoad(broker.bootstrap, fresh("numbers"))
    try:
        create_topic(broker.bootstrap, load.topic)
        load.start()
        load.wait_for_more(50)
        ballast = small_disk / "ballast"
        with ballast.open("wb", buffering=0) as file, contextlib.suppress(OSError):
            while file.write(bytes(4096)):
                pass
        reasons = broker.wait_ready(False)
        assert "room" in reasons
        time.sleep(2.0)
        ballast.unlink()
        broker.wait_ready(True)
        load.wait_for_more(50)
        load.finish()
        load.assert_kept(broker.bootstrap)
        assert len(told_of_trouble(broker.log_text)) == 1, broker.log_tail()
        assert broker.stop() == 0
        broker.start()
        load.assert_kept(broker.bootstrap)
    finally:
        broker.kill()
