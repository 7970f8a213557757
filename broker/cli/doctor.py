"""`headwater doctor`: is this store fit for a cluster, and what should be done about it?"""

from __future__ import annotations

import argparse
import asyncio
import random
import sys
import time

from broker.config import ConfigError
from objectstore.doctor import Severity, doctor_findings

from . import exit_status
from .settings import load_settings, store_flags, store_settings

_MARKS = {Severity.OK: "ok     ", Severity.WARNING: "warning", Severity.ERROR: "ERROR  "}


def run(parsed: argparse.Namespace) -> int:
    """Prints every finding; FAILED where one of them forbids a start."""
    try:
        config = load_settings(parsed, store_flags(parsed)).config
        settings = store_settings(config)
        findings = asyncio.run(
            doctor_findings(
                config.text("store"),
                settings=settings,
                rng=random.SystemRandom(),
                now_ms=lambda: time.time_ns() // 1_000_000,
            )
        )
    except (ConfigError, ValueError) as error:
        print(f"headwater doctor: {error}", file=sys.stderr)
        return exit_status.USAGE
    for finding in findings:
        print(f"{_MARKS[finding.severity]}  {finding.what}")
        if finding.remedy:
            print(f"           -> {finding.remedy}")
    failed = any(finding.severity is Severity.ERROR for finding in findings)
    return exit_status.FAILED if failed else exit_status.OK
