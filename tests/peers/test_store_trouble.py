"""A store that is away, slow, refusing, full or gone, under a broker and its clients.

Producers wait and then hear of a time-out, nothing acknowledged is lost or doubled, what is in the
cache is still read, groups stay together, `/readyz` and one line of the log say what is wrong; and
when the store is well again, so is everything else, by itself.
"""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from .load import NumberedLoad, create_topic, fresh
from .processes import BrokerProcess, Minio
from .store_proxy import Fault, StoreProxy

pytestmark = [pytest.mark.peer, pytest.mark.timeout(180)]

AWAY_S = 10.0
TOLD = re.compile(r"^.*WARNING.*cannot be (?:written|read).*$", re.MULTILINE)


class Member(threading.Thread):
    """One member of a group, which polls all the time and counts what befalls its assignment."""

    def __init__(self, bootstrap: str, topic: str, group: str) -> None:
        super().__init__(daemon=True)
        from confluent_kafka import Consumer

        self.assignments = 0
        self.losses = 0
        self.values: list[bytes] = []
        self._stopping = threading.Event()
        self._consumer = Consumer(
            {
                "bootstrap.servers": bootstrap,
                "log_level": 0,
                "group.id": group,
                "session.timeout.ms": 6000,
                "heartbeat.interval.ms": 1000,
                "auto.offset.reset": "earliest",
                "enable.auto.commit": False,
            }
        )
        self._consumer.subscribe([topic], on_assign=self._assigned, on_revoke=self._revoked)

    def _assigned(self, *_: Any) -> None:
        self.assignments += 1

    def _revoked(self, *_: Any) -> None:
        if not self._stopping.is_set():
            self.losses += 1

    def run(self) -> None:
        while not self._stopping.is_set():
            self.values += [m.value() for m in self._consumer.consume(500, 0.2) if not m.error()]
        self._consumer.close()

    def wait_for(self, count: int, timeout_s: float = 30.0) -> None:
        deadline = time.monotonic() + timeout_s
        while len(self.values) < count and time.monotonic() < deadline:
            time.sleep(0.05)
        assert len(self.values) >= count, len(self.values)

    def finish(self) -> None:
        self._stopping.set()
        self.join(60)
        assert not self.is_alive()


def told_of_trouble(log: str) -> list[str]:
    """The lines that tell of trouble with the store."""
    return TOLD.findall(log)


@dataclass
class Outage:
    """What clients and operators saw while MinIO stood still."""

    broker: BrokerProcess
    load: NumberedLoad
    member: Member
    refusal: Any = None
    cached: list[bytes] = field(default_factory=list)
    reasons: str = ""
    lines: list[str] = field(default_factory=list)
    seen_before: int = 0
    assignments_before: int = 0


@pytest.fixture(scope="module")
def own_minio() -> Iterator[Minio]:
    """A server to pause and kill; the session's own stays well."""
    server = Minio().start()
    try:
        yield server
    finally:
        server.stop()


@pytest.fixture(scope="module")
def outage(own_minio: Minio, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Outage]:
    directory: Path = tmp_path_factory.mktemp("outage")
    store = own_minio.make_bucket(fresh("outage"))
    broker = BrokerProcess(store, directory, env=own_minio.env).start()
    topic = fresh("numbers")
    create_topic(broker.bootstrap, topic)
    create_topic(broker.bootstrap, f"{topic}-refused", 1)
    load = NumberedLoad(broker.bootstrap, topic)
    member = Member(broker.bootstrap, topic, fresh("group"))
    seen = Outage(broker, load, member)
    try:
        load.start()
        member.start()
        load.wait_for_more(400)  # so that each partition has 50 to be read from memory
        member.wait_for(50)
        seen.assignments_before = member.assignments
        before = broker.log_text
        own_minio.pause()
        try:
            began = time.monotonic()
            seen.refusal = refusal_of_one_produce(broker.bootstrap, f"{topic}-refused")
            seen.reasons = broker.wait_ready(False)
            time.sleep(max(0.0, AWAY_S - (time.monotonic() - began)))
            seen.cached = first_values(broker.bootstrap, topic, 50)
            # A store that was slow just before has been told of already, and is not again.
            told = told_of_trouble(broker.log_text[len(before) :])
            seen.lines = told or told_of_trouble(before)[-1:]
        finally:
            own_minio.resume()
        broker.wait_ready(True)
        load.wait_for_more(100)
        load.finish()
        member.wait_for(len(load.all_acknowledged))
        yield seen
    finally:
        load.abandon()
        member.finish()
        broker.kill()


def refusal_of_one_produce(bootstrap: str, topic: str) -> Any:
    """The error of a record that is sent once, with a timeout of a second."""
    from confluent_kafka import Producer

    told: list[Any] = []
    producer = Producer(
        {
            "bootstrap.servers": bootstrap,
            "log_level": 0,
            "message.send.max.retries": 0,
            "request.timeout.ms": 1000,
            "message.timeout.ms": 20_000,
        }
    )
    producer.produce(topic, b"x", partition=0, callback=lambda e, _: told.append(e))
    producer.flush(30)
    return told[0] if told else None


def first_values(bootstrap: str, topic: str, count: int) -> list[bytes]:
    """Of partition 0, without asking for any offset that claims to be the newest."""
    from confluent_kafka import Consumer, TopicPartition

    consumer = Consumer(
        {
            "bootstrap.servers": bootstrap,
            "log_level": 0,
            "group.id": "nobody",
            "enable.auto.commit": False,
        }
    )
    consumer.assign([TopicPartition(topic, 0, 0)])
    values: list[bytes] = []
    deadline = time.monotonic() + 15
    while len(values) < count and time.monotonic() < deadline:
        values += [m.value() for m in consumer.consume(count, 0.2) if not m.error()]
    consumer.close()
    return values[:count]


def test_a_producer_hears_of_a_time_out_while_the_store_stands_still(outage: Outage) -> None:
    from confluent_kafka import KafkaError

    assert outage.refusal is not None
    assert outage.refusal.code() == KafkaError.REQUEST_TIMED_OUT, outage.refusal


def test_retries_through_an_outage_lose_and_double_nothing(outage: Outage) -> None:
    outage.load.assert_kept(outage.broker.bootstrap)


def test_cached_records_are_read_while_the_store_stands_still(outage: Outage) -> None:
    assert outage.cached == [f"0:{i}".encode() for i in range(50)]


def test_a_group_outlives_the_outage(outage: Outage) -> None:
    assert outage.member.assignments == outage.assignments_before == 1
    assert outage.member.losses == 0
    assert sorted(outage.member.values) == sorted(outage.load.all_acknowledged)


def test_one_line_and_readyz_say_what_is_wrong_and_what_to_do(outage: Outage) -> None:
    assert "check that the store is up" in outage.reasons
    assert len(outage.lines) == 1, outage.lines
    assert "check that the store is up" in outage.lines[0]
    assert "Traceback" not in outage.broker.log_text


def test_a_store_killed_under_load_and_restarted_loses_nothing(
    own_minio: Minio, tmp_path: Path
) -> None:
    store = own_minio.make_bucket(fresh("killed"))
    broker = BrokerProcess(store, tmp_path, env=own_minio.env).start()
    try:
        topic = fresh("numbers")
        create_topic(broker.bootstrap, topic)
        load = NumberedLoad(broker.bootstrap, topic)
        load.start()
        load.wait_for_more(50)
        for away_s in (0.5, 4.0):
            own_minio.kill()
            time.sleep(away_s)
            own_minio.restart()
            load.wait_for_more(50)
        broker.wait_ready(True)
        load.finish()
        load.assert_kept(broker.bootstrap)
        assert len(told_of_trouble(broker.log_text)) <= 4, broker.log_tail()
        assert broker.stop() == 0
        broker.start()
        load.assert_kept(broker.bootstrap)
    finally:
        broker.kill()


FAULTS = {
    "an access key that is not known any more": (
        Fault("status", 403, "InvalidAccessKeyId"), "check AWS_ACCESS_KEY_ID"
    ),
    "a session token that has expired": (
        Fault("status", 400, "ExpiredToken"), "renew the credentials"
    ),
    "a policy that forbids": (Fault("status", 403, "AccessDenied"), "check credentials and policy"),
    "a bucket that is not there": (Fault("status", 404, "NoSuchBucket"), "create it"),
    "a store that asks to slow down": (Fault("status", 503, "SlowDown"), "fewer requests"),
    "a store that fails": (Fault("status", 500, "InternalError"), "check that the store is up"),
    "connections that are reset": (Fault("reset"), "check that the store is up"),
    "requests that get no answer": (Fault("hang"), None),
    "answers that are lost after the write": (Fault("lose"), None),
    "every other answer lost": (Fault("lose", every=2), None),
    "answers that come late": (Fault("delay", delay_s=0.7), None),
}  # fmt: skip


@dataclass
class Story:
    """One broker's behind a door that met one fault. failure: what did not come to pass.

    lines: told of the trouble, from the fault on until the broker was ready again; or the last one
    before, when a slow store had been told of already.
    """

    log: str = ""
    lines: list[str] = field(default_factory=list)
    reasons: str = ""
    met: int = 0
    failure: Exception | None = None


def live_through(fault: Fault, advised: bool, minio: Minio, directory: Path) -> Story:
    story = Story()
    proxy = StoreProxy(minio.port)
    env = {**minio.env, "AWS_ENDPOINT_URL": proxy.endpoint}
    broker = BrokerProcess(minio.make_bucket(fresh("doored")), directory, env=env)
    load = NumberedLoad(broker.bootstrap, fresh("numbers"))
    try:
        broker.start()
        create_topic(broker.bootstrap, load.topic)
        load.start()
        load.wait_for_more(20)
        before = broker.log_text
        proxy.fault = fault
        if advised:
            story.reasons = broker.wait_ready(False)
        time.sleep(2.0)
        proxy.fault = None
        load.wait_for_more(50)
        broker.wait_ready(True)
        told = told_of_trouble(broker.log_text[len(before) :])
        story.lines = told or told_of_trouble(before)[-1:]
        load.finish()
        load.assert_kept(broker.bootstrap)
    except Exception as error:
        story.failure = error
    finally:
        load.abandon()
        broker.kill()
        proxy.close()
    story.met = proxy.met[fault.kind]
    story.log = broker.log_text
    return story


@pytest.fixture(scope="module")
def stories(minio: Minio, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Story]:
    """All faults at the same time, each at a broker of its own: mostly this is waiting."""
    with ThreadPoolExecutor(len(FAULTS)) as threads:
        lived = {
            name: threads.submit(
                live_through, fault, advice is not None, minio, tmp_path_factory.mktemp("doored")
            )
            for name, (fault, advice) in FAULTS.items()
        }
        return {name: one.result() for name, one in lived.items()}


@pytest.mark.parametrize("name", FAULTS)
def test_trouble_is_told_once_waited_out_and_heals(stories: dict[str, Story], name: str) -> None:
    story, (_, advice) = stories[name], FAULTS[name]
    if story.failure is not None:
        raise story.failure
    assert story.met > 0
    lines = story.lines
    assert len(lines) <= 1, lines
    if advice is not None:
        assert advice in story.reasons
        assert len(lines) == 1, story.log
        assert advice in lines[0]
    assert "Traceback" not in story.log


def stop_without_a_store(minio: Minio, directory: Path, kind: str) -> None:
    proxy = StoreProxy(minio.port)
    env = {**minio.env, "AWS_ENDPOINT_URL": proxy.endpoint}
    broker = BrokerProcess(minio.make_bucket(fresh("stopped")), directory, env=env).start()
    load = NumberedLoad(broker.bootstrap, fresh("numbers"))
    try:
        create_topic(broker.bootstrap, load.topic)
        load.start()
        load.wait_for_more(50)
        proxy.fault = Fault(kind)
        time.sleep(1.0)
        # Docker kills after ten seconds.
        assert broker.stop(timeout_s=9.5) == 0, broker.log_tail()
        proxy.fault = None
        broker.start()
        load.wait_for_more(50)
        load.finish()
        load.assert_kept(broker.bootstrap)
        assert "Traceback" not in broker.log_text
    finally:
        load.abandon()
        broker.kill()
        proxy.close()


def test_a_stop_with_the_store_away_ends_in_time_and_recovers(
    minio: Minio, tmp_path_factory: pytest.TempPathFactory
) -> None:
    with ThreadPoolExecutor(2) as threads:
        stopped = [
            threads.submit(stop_without_a_store, minio, tmp_path_factory.mktemp("stopped"), kind)
            for kind in ("hang", "reset")
        ]
        for one in stopped:
            one.result()
