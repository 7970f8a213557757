"""The bucket is all that matters: a broker comes back on an empty machine; a cache never lies."""

from __future__ import annotations

from pathlib import Path

import pytest

from .load import NumberedLoad, create_topic, fresh, read_all
from .processes import BrokerProcess, Minio

pytestmark = [pytest.mark.peer, pytest.mark.timeout(120)]


def test_a_restart_on_an_empty_machine_brings_everything_back(minio: Minio, tmp_path: Path) -> None:
    from confluent_kafka import Consumer, TopicPartition
    from confluent_kafka.admin import AdminClient

    store = minio.make_bucket(fresh("moved"))
    here, there = tmp_path / "here", tmp_path / "there"
    here.mkdir()
    there.mkdir()
    old = BrokerProcess(store, here, env=minio.env).start()
    new = BrokerProcess(store, there, env=minio.env)
    group = fresh("group")
    load = NumberedLoad(f"{old.bootstrap},{new.bootstrap}", fresh("numbers"))
    try:
        create_topic(old.bootstrap, load.topic)
        create_topic(old.bootstrap, fresh("empty"), 5)
        load.start()
        load.wait_for_more(200)
        before = AdminClient({"bootstrap.servers": old.bootstrap}).list_topics(timeout=20)
        commit(old.bootstrap, group, load.topic, 37)
        # The producer goes on at the new one with the sequence that it has.
        old.kill()
        new.start()
        load.wait_for_more(100)
        load.finish()
        load.assert_kept(new.bootstrap)
        after = AdminClient({"bootstrap.servers": new.bootstrap}).list_topics(timeout=20)
        assert after.cluster_id == before.cluster_id
        assert {n: len(t.partitions) for n, t in after.topics.items()} == {
            n: len(t.partitions) for n, t in before.topics.items()
        } | {"__consumer_offsets": len(after.topics["__consumer_offsets"].partitions)}
        consumer = Consumer({"bootstrap.servers": new.bootstrap, "group.id": group})
        kept = consumer.committed([TopicPartition(load.topic, 0)], timeout=30)
        consumer.close()
        assert kept[0].offset == 37
        admin = AdminClient({"bootstrap.servers": new.bootstrap})
        groups = admin.list_consumer_groups().result(20).valid
        assert group in {one.group_id for one in groups}
    finally:
        load.abandon()
        old.kill()
        new.kill()


def commit(bootstrap: str, group: str, topic: str, offset: int) -> None:
    from confluent_kafka import Consumer, TopicPartition

    consumer = Consumer({"bootstrap.servers": bootstrap, "group.id": group})
    consumer.commit(offsets=[TopicPartition(topic, 0, offset)], asynchronous=False)
    consumer.close()


def test_a_cache_never_answers_for_another_cluster_bucket_or_broker(
    minio: Minio, tmp_path: Path
) -> None:
    """The same topic at the same offsets with other values, and one cache directory for all."""
    cache = tmp_path / "cache"
    # Blocks go to disk when they are fetched a second time: there must be more than memory keeps.
    small = {"cache.memory.bytes": str(16 << 20)}
    times = 64_000

    def life(name: str, store: str, value: bytes, env: dict[str, str] | None) -> None:
        directory = tmp_path / name
        directory.mkdir(exist_ok=True)
        broker = BrokerProcess(store, directory, small, env=env, cache_dir=cache).start()
        try:
            if value:
                fill(broker, value * times)
                # What a stop leaves in the log is read from objects by the next.
                assert broker.stop() == 0
                broker.start()
            for _ in range(2):
                found = read_all(broker.bootstrap, "same", 1)[0]
                assert set(found.values()) == {(value or b"b") * times}, name
                assert len(found) == 500
        finally:
            broker.kill()
        kept = [one.stat().st_size for one in cache.glob("*/1/lmdb/data.mdb")]
        assert max(kept) > 400_000, "nothing was read through the disk cache"

    name = fresh("wiped")
    life("wiped", minio.make_bucket(name), b"a", minio.env)
    minio.delete_bucket(name)
    life("wiped", minio.make_bucket(name), b"b", minio.env)
    life("another", minio.make_bucket(fresh("another")), b"c", minio.env)
    life("wiped", f"s3://{name}/cluster", b"", minio.env)


def fill(broker: BrokerProcess, value: bytes) -> None:
    from confluent_kafka import Producer

    create_topic(broker.bootstrap, "same", 1)
    producer = Producer({"bootstrap.servers": broker.bootstrap})
    for _ in range(500):
        producer.produce("same", value)
    assert producer.flush(30) == 0


def test_two_brokers_share_a_cache_directory_without_meeting(tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    brokers: list[BrokerProcess] = []
    try:
        for value in (b"x", b"y"):
            directory = tmp_path / value.decode()
            directory.mkdir()
            broker = BrokerProcess(f"file://{directory}/data", directory, cache_dir=cache).start()
            brokers.append(broker)
            fill(broker, value * 1000)
            assert broker.stop() == 0
            broker.start()
        assert len(list(cache.glob("*/1/lock"))) == 2
        for broker, value in zip(brokers, (b"x", b"y"), strict=True):
            assert set(read_all(broker.bootstrap, "same", 1)[0].values()) == {value * 1000}
            assert "WARNING" not in broker.log_text, broker.log_text
    finally:
        for broker in brokers:
            broker.kill()
