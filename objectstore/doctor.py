"""What an operator should know about a store before trusting it with a cluster."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Mapping
from concurrent.futures import Executor
from dataclasses import dataclass
from enum import StrEnum
from random import Random
from typing import Any

from .errors import AccessDenied, BucketMissing, StoreError, UnsuitableStore
from .open import StoreUri, open_store, parse_uri, s3_address
from .probe import Latency, check_conditional_create, measure_latency
from .settings import S3Address, StoreSettings
from .store import ObjectStore

SKEW_WARNING_MS = 30_000
SKEW_ERROR_MS = 15 * 60_000
SLOW_PUT_S = 0.25


class Severity(StrEnum):
    OK = "ok"
    WARNING = "warning"
    ERROR = "error"


@dataclass(frozen=True)
class Finding:
    """One line of the report. remedy: what to do; empty where nothing needs doing."""

    severity: Severity
    what: str
    remedy: str = ""


async def doctor_findings(
    uri: str,
    *,
    settings: StoreSettings,
    rng: Random,
    now_ms: Callable[[], int],
    executor: Executor | None = None,
) -> list[Finding]:
    """Every finding about the store at `uri`, good ones too, in the order they were looked for.

    Writes under `probe/` and deletes it again; makes neither buckets nor directories.
    Stops after the first that makes the rest pointless. Raises ValueError for a bad URI.
    """
    parsed = parse_uri(uri)
    try:
        store = await open_store(
            uri, settings=settings, rng=rng, now_ms=now_ms, executor=executor, make_directory=False
        )
    except StoreError as error:
        return [_from_error(error, parsed)]
    try:
        findings = await _reach(store, parsed, settings)
        if any(finding.severity is Severity.ERROR for finding in findings):
            return findings
        findings.append(await _clock(store, now_ms))
        findings.append(await _conditional_create(store, rng, parsed))
        if parsed.scheme == "s3":
            findings += await _bucket_rules(parsed, settings)
        if parsed.scheme == "file":
            # Opening the store has tried both already, and refuses a directory without.
            findings.append(Finding(Severity.OK, f"fsync and link work in {parsed.directory}"))
            findings.append(_free_space(parsed.directory))
        findings.append(await _speed(store, rng, parsed))
        return findings
    finally:
        await store.close()


async def _reach(store: ObjectStore, parsed: StoreUri, settings: StoreSettings) -> list[Finding]:
    where = str(parsed)
    if parsed.scheme == "s3":
        address = await s3_address(parsed, settings)
        where += f" at {address.endpoint or 'AWS'} in region {address.region}"
    try:
        async for _ in store.list("meta/"):
            break
    except StoreError as error:
        return [_from_error(error, parsed)]
    return [Finding(Severity.OK, f"reached {where}; credentials and bucket are good")]


async def _clock(store: ObjectStore, now_ms: Callable[[], int]) -> Finding:
    before_ms = now_ms()
    try:
        store_ms = await store.date_ms()
    except StoreError as error:
        return Finding(Severity.WARNING, f"the store does not tell its time: {error}")
    # `Date` counts whole seconds.
    skew_ms = max(0, store_ms - now_ms(), before_ms - store_ms - 1000)
    text = f"this machine's clock and the store's differ by {skew_ms / 1000:.1f} s"
    if skew_ms >= SKEW_ERROR_MS:
        return Finding(Severity.ERROR, text, "set the clock by NTP: S3 refuses such requests")
    if skew_ms >= SKEW_WARNING_MS:
        return Finding(Severity.WARNING, text, "set the clock by NTP: retention goes by it")
    return Finding(Severity.OK, text)


async def _conditional_create(store: ObjectStore, rng: Random, parsed: StoreUri) -> Finding:
    try:
        await check_conditional_create(store, rng)
    except StoreError as error:
        return _from_error(error, parsed)
    return Finding(Severity.OK, "conditional creates are honoured: of 64 at once, one won")


async def _speed(store: ObjectStore, rng: Random, parsed: StoreUri) -> Finding:
    try:
        put, get = await measure_latency(store, rng)
    except StoreError as error:
        return _from_error(error, parsed)
    text = f"1 KiB PUT {_milliseconds(put)}, GET {_milliseconds(get)}"
    if put.p50_s > SLOW_PUT_S:
        return Finding(
            Severity.WARNING,
            text,
            "every acknowledgement waits for a PUT: run the broker in the bucket's region",
        )
    return Finding(Severity.OK, text)


def _milliseconds(latency: Latency) -> str:
    return f"p50 {latency.p50_s * 1000:.2f} ms p99 {latency.p99_s * 1000:.2f} ms"


def _free_space(directory: str) -> Finding:
    system = os.statvfs(directory)
    free_bytes = system.f_bavail * system.f_frsize
    text = f"{free_bytes / 2**30:.1f} GiB are free in {directory}"
    if free_bytes < 2**30:
        return Finding(Severity.WARNING, text, "free some space: a full disk stops all producers")
    return Finding(Severity.OK, text)


async def _bucket_rules(parsed: StoreUri, settings: StoreSettings) -> list[Finding]:
    from .drivers.s3_setup import BucketSetup

    address: S3Address = await s3_address(parsed, settings)
    setup = await asyncio.to_thread(BucketSetup, address)
    findings = []
    try:
        for name, get, judge in (
            ("versioning", setup.versioning, judge_versioning),
            ("lifecycle", setup.lifecycle, judge_lifecycle),
        ):
            try:
                found = await asyncio.to_thread(get)
            except AccessDenied:
                findings.append(
                    Finding(
                        Severity.WARNING,
                        f"the bucket's {name} rules may not be read with these credentials",
                        f"look at them yourself, or allow s3:Get*Configuration for {parsed.bucket}",
                    )
                )
            except StoreError as error:
                findings.append(Finding(Severity.WARNING, f"bucket {name}: {error}"))
            else:
                findings.append(judge(found, parsed.prefix))
    finally:
        setup.close()
    return findings


def judge_versioning(found: Mapping[str, Any], prefix: str) -> Finding:
    """found: the answer to GetBucketVersioning, as boto3 gives it."""
    if found.get("Status") == "Enabled":
        return Finding(
            Severity.WARNING,
            "the bucket keeps versions: what the broker deletes goes on costing money",
            "suspend versioning, or add a rule that expires noncurrent versions after a day",
        )
    return Finding(Severity.OK, "the bucket keeps no old versions")


def judge_lifecycle(found: Mapping[str, Any], prefix: str) -> Finding:
    """Rules that expire or archive live objects lose data; one for stale uploads is welcome.

    found: the answer to GetBucketLifecycleConfiguration, as boto3 gives it.
    """
    harmful = []
    for rule in found.get("Rules", ()):
        chosen = rule.get("Filter", {})
        reach = chosen.get("Prefix") or chosen.get("And", {}).get("Prefix")
        reach = reach or rule.get("Prefix") or ""
        touches = reach.startswith(prefix) or prefix.startswith(reach)
        if rule.get("Status") != "Enabled" or not touches:
            continue
        # A rule for delete markers alone takes nothing away.
        takes = not {"Days", "Date"}.isdisjoint(rule.get("Expiration", {}))
        if takes or rule.get("Transitions"):
            harmful.append(rule.get("ID") or reach or "without a name")
    if harmful:
        return Finding(
            Severity.ERROR,
            f"life-cycle rules expire or archive objects that are in use: {', '.join(harmful)}",
            "remove them for this prefix: the broker deletes what is no longer needed by itself",
        )
    return Finding(Severity.OK, "no life-cycle rule touches the broker's objects")


def _from_error(error: StoreError, parsed: StoreUri) -> Finding:
    remedy = "see that the endpoint is right, and that the network lets this machine reach it"
    if isinstance(error, BucketMissing):
        remedy = (
            "create the bucket, or start with --create-bucket"
            if parsed.scheme == "s3"
            else "`headwater start` makes it"
        )
    elif isinstance(error, AccessDenied):
        remedy = "put the credentials or the policy right"
    elif isinstance(error, UnsuitableStore):
        remedy = "use another store: this one would lose acknowledged records"
    return Finding(Severity.ERROR, str(error), remedy)
