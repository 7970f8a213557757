"""Everything gone but a bucket, a copy of it, or a replica with holes: real brokers on MinIO."""

from __future__ import annotations

import os
import random
import subprocess
from pathlib import Path

import pytest

from .load import NumberedLoad, create_topic, fresh, read_all
from .processes import HEADWATER, BrokerProcess, Minio

pytestmark = [pytest.mark.peer, pytest.mark.timeout(300)]

GROUP_OFFSET = 37


def headwater(minio: Minio, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(HEADWATER), *arguments],
        env={**os.environ, **minio.env},
        capture_output=True,
        text=True,
        timeout=120,
    )


def keys_of(minio: Minio, bucket: str) -> list[str]:
    pages = minio.client().get_paginator("list_objects_v2").paginate(Bucket=bucket)
    return [one["Key"] for page in pages for one in page.get("Contents", [])]


def commit(bootstrap: str, group: str, topic: str) -> None:
    from confluent_kafka import Consumer, TopicPartition

    consumer = Consumer({"bootstrap.servers": bootstrap, "group.id": group})
    consumer.commit(offsets=[TopicPartition(topic, 0, GROUP_OFFSET)], asynchronous=False)
    consumer.close()


def committed(bootstrap: str, group: str, topic: str) -> int:
    from confluent_kafka import Consumer, TopicPartition

    consumer = Consumer({"bootstrap.servers": bootstrap, "group.id": group})
    try:
        return int(consumer.committed([TopicPartition(topic, 0)], timeout=60)[0].offset)
    finally:
        consumer.close()


def is_a_beginning(found: dict[int, dict[int, bytes]]) -> None:
    """No hole, nothing twice, nothing else: what was produced, up to some point."""
    for partition, records in found.items():
        assert sorted(records) == list(range(len(records))), f"holes in {partition}"
        expected = [f"{partition}:{n}".encode() for n in range(len(records))]
        assert [records[offset] for offset in sorted(records)] == expected


def test_a_bucket_its_clone_and_a_replica_with_holes_each_bring_a_cluster_back(
    minio: Minio, tmp_path: Path
) -> None:
    names = {kind: fresh(kind) for kind in ("source", "clone", "replica")}
    uris = {kind: minio.make_bucket(name) for kind, name in names.items()}
    brokers = []
    for node_id in (1, 2, 3):
        directory = tmp_path / f"{node_id}"
        directory.mkdir()
        brokers.append(BrokerProcess(uris["source"], directory, env=minio.env, node_id=node_id))
    group = fresh("group")
    load = NumberedLoad(",".join(one.bootstrap for one in brokers), fresh("numbers"))
    started = list(brokers)
    try:
        for broker in brokers:
            broker.start()
        create_topic(brokers[0].bootstrap, load.topic)
        load.start()
        load.wait_for_more(200)
        commit(brokers[0].bootstrap, group, load.topic)
        before = dict(load.acknowledged)

        made = headwater(minio, "clone", "--from", uris["source"], "--to", uris["clone"])
        assert made.returncode == 0, made.stdout + made.stderr
        # As replication between buckets does it: while brokers write, in any order, not all.
        keys = keys_of(minio, names["source"])
        random.Random(5).shuffle(keys)
        client = minio.client()
        for key in keys:
            place = {"Bucket": names["source"], "Key": key}
            try:
                client.copy_object(Bucket=names["replica"], Key=key, CopySource=place)
            except client.exceptions.NoSuchKey:
                continue  # nothing refers to it any more
        load.wait_for_more(100)
        load.finish()
        for broker in brokers:
            broker.kill()

        alone = BrokerProcess(uris["source"], tmp_path / "1", env=minio.env, node_id=7)
        started.append(alone.start())
        load.assert_kept(alone.bootstrap)
        assert committed(alone.bootstrap, group, load.topic) == GROUP_OFFSET
        assert alone.stop() == 0

        found = _life_on(uris["clone"], minio, tmp_path / "2", load.topic, started)
        for (partition, offset), value in before.items():
            assert found[partition][offset] == value
        assert committed(started[-1].bootstrap, group, load.topic) == GROUP_OFFSET
        assert started[-1].stop() == 0

        logs = [key for key in keys_of(minio, names["replica"]) if "/wal/" in key]
        for key in random.Random(6).sample([key for key in logs if not key.endswith("end")], 4):
            minio.client().delete_object(Bucket=names["replica"], Key=key)
        told = headwater(minio, "verify", "--store", uris["replica"], "--cut")
        assert "nothing was written" in told.stdout, told.stdout + told.stderr
        cut = headwater(minio, "verify", "--store", uris["replica"], "--cut", "--yes")
        assert cut.returncode == 0, cut.stdout + cut.stderr
        _life_on(uris["replica"], minio, tmp_path / "3", load.topic, started)
        assert started[-1].stop() == 0
    finally:
        load.abandon()
        for broker in started:
            broker.kill()


def _life_on(
    uri: str, minio: Minio, directory: Path, topic: str, started: list[BrokerProcess]
) -> dict[int, dict[int, bytes]]:
    proven = headwater(minio, "verify", "--store", uri)
    assert proven.returncode == 0, proven.stdout + proven.stderr
    assert "not seen" not in proven.stdout
    broker = BrokerProcess(uri, directory, env=minio.env, node_id=8)
    started.append(broker.start())
    found = read_all(broker.bootstrap, topic)
    is_a_beginning(found)
    return found
