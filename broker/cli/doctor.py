"""`headwater doctor`: is this store fit for a cluster, and what should be done about it?"""

from __future__ import annotations

import argparse
import asyncio
import random
import sys
import time

from broker.config import BrokerConfig, ConfigError
from objectstore.doctor import Finding, Severity, doctor_findings
from objectstore.errors import StoreError
from objectstore.open import parse_uri
from objectstore.settings import StoreSettings
from protocol.errors import KafkaError
from wal.errors import LogError

from . import exit_status
from .chain_check import chain_finding
from .cluster_checks import cluster_findings
from .door import open_door
from .settings import load_settings, store_flags, store_settings
from .store_option import store_of

_MARKS = {Severity.OK: "ok     ", Severity.WARNING: "warning", Severity.ERROR: "ERROR  "}


async def _findings(
    parsed: argparse.Namespace, config: BrokerConfig, settings: StoreSettings
) -> list[Finding]:
    uri = config.text("store")
    findings = await doctor_findings(
        uri,
        settings=settings,
        rng=random.SystemRandom(),
        now_ms=lambda: time.time_ns() // 1_000_000,
    )
    sound = all(finding.severity is not Severity.ERROR for finding in findings)
    if not sound or parse_uri(uri).scheme == "memory":
        return findings
    try:
        async with open_door(parsed) as door:
            found = await cluster_findings(door)
        if not found:
            return findings
        store = await store_of(parsed, random.SystemRandom())
        try:
            return [*findings, *found, await chain_finding(store)]
        finally:
            await store.close()
    except (StoreError, LogError, KafkaError) as error:
        return [*findings, Finding(Severity.ERROR, f"the cluster in this store: {error}")]


def run(parsed: argparse.Namespace) -> int:
    """Prints every finding; FAILED where one of them forbids a start."""
    try:
        config = load_settings(parsed, store_flags(parsed)).config
        settings = store_settings(config)
        findings = asyncio.run(_findings(parsed, config, settings))
    except (ConfigError, ValueError) as error:
        print(f"headwater doctor: {error}", file=sys.stderr)
        return exit_status.USAGE
    for finding in findings:
        print(f"{_MARKS[finding.severity]}  {finding.what}")
        if finding.remedy:
            print(f"           -> {finding.remedy}")
    failed = any(finding.severity is Severity.ERROR for finding in findings)
    return exit_status.FAILED if failed else exit_status.OK
