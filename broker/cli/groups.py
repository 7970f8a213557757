"""`headwater groups list|describe`: consumer groups, and how far behind they are."""

from __future__ import annotations

import argparse
from typing import Any

from kafka import KafkaConsumer
from kafka.admin import KafkaAdminClient

from . import exit_status
from .client import guarded


def run(parsed: argparse.Namespace) -> int:
    return guarded("groups", lambda: _run(parsed))


def _run(parsed: argparse.Namespace) -> int:
    admin = KafkaAdminClient(bootstrap_servers=parsed.bootstrap, client_id="headwater-groups")
    try:
        if parsed.action == "list":
            for group in sorted(admin.list_groups(), key=lambda one: str(one["group_id"])):
                print(f"{group['group_id']}\t{group.get('group_state') or '-'}")
            return exit_status.OK
        described = admin.describe_groups(parsed.group)
        committed = admin.list_group_offsets(parsed.group)
        for name in parsed.group:
            if described[name].get("group_state") == "Dead" and not committed.get(name):
                raise ValueError(f"{name}: there is no such group")
            _describe(parsed.bootstrap, name, described[name], committed.get(name, {}))
    finally:
        admin.close()
    return exit_status.OK


def _describe(bootstrap: str, name: str, group: dict[str, Any], offsets: dict[Any, Any]) -> None:
    members = group.get("members") or []
    print(f"{name}: {group.get('group_state') or '-'} members {len(members)}")
    for member in members:
        print(f"  member {member.get('client_id')} at {member.get('client_host')}")
    if not offsets:
        return
    consumer = KafkaConsumer(bootstrap_servers=bootstrap, client_id="headwater-groups")
    try:
        ends = consumer.end_offsets(list(offsets))
    finally:
        consumer.close()
    for partition in sorted(offsets):
        offset = offsets[partition].offset
        end = ends[partition]
        print(
            f"  {partition.topic}-{partition.partition} committed {offset} end {end} "
            f"lag {max(0, end - offset)}"
        )
