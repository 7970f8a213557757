from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from kafka import KafkaConsumer, KafkaProducer, TopicPartition

from headwater import EmbeddedBroker, EmbeddedBrokerFailed

ROOT = Path(__file__).resolve().parents[2]
pytest_plugins = ["pytester"]


def gone(pid: int) -> bool:
    """True once the process has ended; waits a while for it."""
    for _ in range(200):
        try:
            os.kill(pid, 0)
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except (ProcessLookupError, FileNotFoundError):
            return True
        if state == "Z":
            return True
        time.sleep(0.05)
    return False


def test_records_come_back_and_the_broker_ends_with_the_block() -> None:
    with EmbeddedBroker() as broker:
        pid = broker.pid
        producer = KafkaProducer(bootstrap_servers=broker.bootstrap_servers)
        sent = producer.send("orders", b"one", key=b"k", partition=0).get(timeout=20)
        producer.close()
        assert sent.offset == 0
        consumer = KafkaConsumer(bootstrap_servers=broker.bootstrap_servers)
        consumer.assign([TopicPartition("orders", 0)])
        consumer.seek_to_beginning()
        record = next(consumer)
        assert (record.key, record.value) == (b"k", b"one")
        consumer.close()
    assert gone(pid)
    with pytest.raises(EmbeddedBrokerFailed):
        _ = broker.bootstrap_servers


def test_two_brokers_at_once_keep_out_of_each_others_way() -> None:
    with EmbeddedBroker() as one, EmbeddedBroker() as other:
        assert one.bootstrap_servers != other.bootstrap_servers
        assert one.http_address != other.http_address


def test_a_wrong_setting_is_told_in_the_error() -> None:
    with pytest.raises(EmbeddedBrokerFailed, match="nosuch"):
        EmbeddedBroker({"nosuch.key": "1"}).start()


def test_it_ends_when_the_program_that_began_it_is_killed() -> None:
    program = (
        "from headwater import EmbeddedBroker\n"
        "import time\n"
        "broker = EmbeddedBroker()\n"
        "broker.start()\n"
        "print(broker.pid, flush=True)\n"
        "time.sleep(600)\n"
    )
    parent = subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, cwd=ROOT, text=True
    )
    assert parent.stdout is not None
    pid = int(parent.stdout.readline())
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    parent.stdout.close()
    assert gone(pid)


def test_a_project_with_packages_of_the_same_names_keeps_its_own(tmp_path: Path) -> None:
    for name in ("broker", "protocol", "wal", "objectstore", "s3stream"):
        package = tmp_path / name
        package.mkdir()
        (package / "__init__.py").write_text(f"MINE = 'the project has its own {name}'\n")
    program = (
        "import broker, protocol\n"
        "from headwater import EmbeddedBroker\n"
        "with EmbeddedBroker() as started:\n"
        "    assert started.bootstrap_servers\n"
        "assert broker.MINE and protocol.MINE\n"
        "import wal, objectstore, s3stream\n"
        "assert wal.MINE and objectstore.MINE and s3stream.MINE\n"
    )
    (tmp_path / "program.py").write_text(program)
    done = subprocess.run(
        [sys.executable, "program.py"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr


def test_embedding_imports_nothing_but_the_standard_library() -> None:
    program = (
        "import sys\n"
        "import headwater\n"
        "taken = {name.partition('.')[0] for name in sys.modules}\n"
        "ours = {'broker', 'protocol', 'wal', 's3stream', 'objectstore', 'uvloop', 'msgspec'}\n"
        "assert not taken & ours, taken & ours\n"
    )
    subprocess.run([sys.executable, "-c", program], cwd=ROOT, check=True)


def test_the_pytest_fixture_is_there_for_who_asks(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        """
        def test_it(headwater_broker):
            assert headwater_broker.bootstrap_servers.startswith("127.0.0.1:")
        """
    )
    pytester.runpytest_subprocess("-q").assert_outcomes(passed=1)
