"""The protocol takes no client of kafka-python along, and hides none."""

from __future__ import annotations

import subprocess
import sys


def run(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return done.stdout.strip()


def test_the_codec_loads_no_client() -> None:
    loaded = run("import sys, protocol.codec; print(*sorted(m for m in sys.modules))").split()
    assert "kafka.protocol.api_message" in loaded
    assert not {"kafka.producer", "kafka.consumer", "kafka.admin", "kafka.net"} & set(loaded)


def test_clients_are_there_for_who_asks_after_the_codec() -> None:
    code = (
        "import protocol.codec, kafka; from kafka import KafkaProducer; from kafka.admin import "
        "KafkaAdminClient; print(KafkaProducer.__name__, KafkaAdminClient.__name__, "
        "kafka.__version__, kafka.protocol.__name__, type(kafka).__name__)"
    )
    found = run(code).split()
    assert found[:2] == ["KafkaProducer", "KafkaAdminClient"]
    assert found[2][0].isdigit()
    assert found[3:] == ["kafka.protocol", "module"]


def test_clients_that_came_first_stay() -> None:
    code = (
        "import kafka, protocol.codec, sys; "
        "print(sys.modules['kafka'] is kafka, kafka.KafkaConsumer.__name__)"
    )
    assert run(code) == "True KafkaConsumer"
