"""`headwater topics create|list|describe|delete`."""

from __future__ import annotations

import argparse
from typing import Any

from kafka.admin import ConfigResource, ConfigResourceType, KafkaAdminClient

from . import exit_status
from .client import guarded, pairs


def run(parsed: argparse.Namespace) -> int:
    return guarded("topics", lambda: _run(parsed))


def _run(parsed: argparse.Namespace) -> int:
    admin = KafkaAdminClient(bootstrap_servers=parsed.bootstrap, client_id="headwater-topics")
    try:
        match parsed.action:
            case "create":
                _create(admin, parsed)
            case "list":
                for topic in sorted(_topics(admin), key=_name):
                    if parsed.internal or not topic["is_internal"]:
                        print(_name(topic))
            case "describe":
                _describe(admin, parsed.topic)
            case "delete":
                admin.delete_topics(parsed.topic)
                for name in parsed.topic:
                    print(f"deleted {name}")
    finally:
        admin.close()
    return exit_status.OK


def _create(admin: Any, parsed: argparse.Namespace) -> None:
    options = {
        "num_partitions": parsed.partitions,
        "replication_factor": parsed.replication_factor,
        "configs": dict(pairs("--set", parsed.set)),
    }
    admin.create_topics(dict.fromkeys(parsed.topic, options))
    for name in parsed.topic:
        print(f"created {name}")


def _topics(admin: Any, names: list[str] | None = None) -> list[dict[str, Any]]:
    return list(admin.describe_topics(names))


def _name(topic: dict[str, Any]) -> str:
    return str(topic["name"])


def _describe(admin: Any, names: list[str]) -> None:
    found = sorted(_topics(admin, names or None), key=_name)
    for topic in found:
        if topic.get("error_code"):
            raise ValueError(f"{_name(topic)}: there is no such topic")
    resources = [ConfigResource(ConfigResourceType.TOPIC, _name(topic)) for topic in found]
    configs = admin.describe_configs(resources) if resources else {}
    by_name: dict[str, Any] = next(iter(configs.values()), {})
    for topic in found:
        partitions = sorted(topic["partitions"], key=lambda p: p["partition_index"])
        internal = " internal" if topic["is_internal"] else ""
        print(f"{_name(topic)}: id {topic.get('topic_id')} partitions {len(partitions)}{internal}")
        for key, config in sorted(by_name.get(_name(topic), {}).items()):
            value = config.get("value") if isinstance(config, dict) else config
            print(f"  {key}={value}")
        for partition in partitions:
            print(
                f"  partition {partition['partition_index']} leader {partition['leader_id']} "
                f"epoch {partition.get('leader_epoch', -1)}"
            )
