"""URIs, settings and the environment, and what doctor makes of a bucket's rules."""

from __future__ import annotations

import asyncio
import os
import random
from pathlib import Path

import pytest

from objectstore.doctor import Severity, doctor_findings, judge_lifecycle, judge_versioning
from objectstore.errors import AccessDenied, BucketMissing
from objectstore.open import StoreSettings, display_uri, open_store, parse_uri, s3_address
from objectstore.settings import resolve_s3


def test_a_uri_has_one_canonical_form(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for uri, shown in (
        ("memory:", "memory:"),
        ("file:///var//x/", "file:///var/x"),
        ("file://./data", f"file://{tmp_path}/data"),
        ("file://../y", f"file://{tmp_path.parent}/y"),
        ("file:///a%20b", "file:///a b"),
        ("s3://bucket", "s3://bucket"),
        ("s3://bucket/", "s3://bucket"),
        ("s3://bucket/a//b/", "s3://bucket/a/b"),
    ):
        assert display_uri(uri) == shown
    assert parse_uri("s3://bucket/a//b/").prefix == "a/b/"


BAD = "x s3: s3:// s3://UPPER/x s3://b/../x s3://bu_cket file:x file://x/y http://x gs://bucket"


@pytest.mark.parametrize("uri", ["", "s3://bucket/ä", *BAD.split()])
def test_a_bad_uri_is_refused_with_a_word_on_what_to_write(uri: str) -> None:
    with pytest.raises(ValueError, match="store "):
        parse_uri(uri)


def test_the_environment_fills_in_region_and_endpoint() -> None:
    plain = StoreSettings()
    for env, endpoint, region, path_style in (
        ({}, None, "us-east-1", False),
        ({"AWS_DEFAULT_REGION": "eu-west-1"}, None, "eu-west-1", False),
        ({"AWS_REGION": "eu-west-2", "AWS_DEFAULT_REGION": "x"}, None, "eu-west-2", False),
        ({"AWS_ENDPOINT_URL": "http://a"}, "http://a", "us-east-1", True),
        (
            {"AWS_ENDPOINT_URL": "http://a", "AWS_ENDPOINT_URL_S3": "http://b"},
            "http://b",
            None,
            True,
        ),
    ):
        address = resolve_s3("bucket", plain, env)
        assert (address.endpoint, address.path_style) == (endpoint, path_style), env
        assert address.region == (region or "us-east-1"), env
    given = StoreSettings(s3_endpoint="http://c", s3_region="r", s3_path_style=False)
    address = resolve_s3("bucket", given, {"AWS_REGION": "x", "AWS_ENDPOINT_URL": "http://a"})
    assert (address.region, address.base_url) == ("r", "http://bucket.c")
    assert resolve_s3("bucket", plain, {}, profile_region="p").region == "p"
    assert resolve_s3("bucket", plain, {}).base_url == "https://bucket.s3.us-east-1.amazonaws.com"


def test_a_profile_fills_in_region_and_endpoint_for_either_driver(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tmp_path / "config"
    config.write_text(
        "[default]\nregion = eu-north-1\n"
        "[profile lab]\nregion = eu-south-1\nendpoint_url = http://general\nservices = lab\n"
        "[services lab]\ns3 =\n  endpoint_url = http://lab\n"
    )
    for name in list(os.environ):
        if name.startswith("AWS_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(config))

    def found() -> tuple[str | None, str]:
        address = asyncio.run(s3_address(parse_uri("s3://bucket"), StoreSettings()))
        return address.endpoint, address.region

    assert found() == (None, "eu-north-1")
    monkeypatch.setenv("AWS_PROFILE", "lab")
    assert found() == ("http://lab", "eu-south-1")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://environment")
    assert found() == ("http://environment", "eu-south-1")
    monkeypatch.delenv("AWS_ENDPOINT_URL")
    monkeypatch.setenv("AWS_PROFILE", "missing")
    with pytest.raises(AccessDenied, match="missing"):
        found()


def test_requests_cost_money_at_aws_and_nowhere_else() -> None:
    for endpoint, billed in (
        (None, True),
        ("https://s3.eu-central-1.amazonaws.com", True),
        ("https://s3.cn-north-1.amazonaws.com.cn:443", True),
        ("http://127.0.0.1:9000", False),
        ("http://amazonaws.com.example", False),
    ):
        settings = StoreSettings(s3_endpoint=endpoint)
        assert resolve_s3("bucket", settings, {}).is_billed is billed, endpoint


@pytest.mark.parametrize(
    "bad",
    [{"s3_driver": "x"}, {"s3_endpoint": "host"}, {"request_timeout_s": 0}, {"max_connections": 0}],
)
def test_impossible_settings_are_refused(bad: dict[str, object]) -> None:
    with pytest.raises(ValueError):
        StoreSettings(**bad)  # type: ignore[arg-type]


def test_a_directory_that_cannot_be_made_is_told_as_that() -> None:
    opening = open_store(
        "file:///proc/no/such", settings=StoreSettings(), rng=random.Random(0), now_ms=lambda: 5
    )
    with pytest.raises(BucketMissing, match="/proc/no/such: the directory cannot be made"):
        asyncio.run(opening)


def test_memory_and_files_open_by_uri(tmp_path: Path) -> None:
    async def check() -> None:
        for uri in ("memory:", f"file://{tmp_path}/a/b"):
            store = await open_store(
                uri, settings=StoreSettings(), rng=random.Random(0), now_ms=lambda: 5
            )
            await store.create("k", [b"x"])
            assert await store.get("k") == b"x"
            await store.close()

    asyncio.run(check())


def test_doctor_finds_a_good_directory_good_and_a_missing_one_missing(tmp_path: Path) -> None:
    def findings(uri: str) -> list[Severity]:
        found = asyncio.run(
            doctor_findings(
                uri, settings=StoreSettings(), rng=random.Random(0), now_ms=lambda: 1_000
            )
        )
        assert all(f.what and (f.remedy or f.severity is Severity.OK) for f in found)
        return [finding.severity for finding in found]

    assert Severity.ERROR not in findings(f"file://{tmp_path}")
    assert [*tmp_path.iterdir()] == []
    assert findings(f"file://{tmp_path}/missing") == [Severity.ERROR]
    assert not (tmp_path / "missing").exists()


@pytest.mark.parametrize(
    ("rule", "severity"),
    [
        ({"Status": "Enabled", "Expiration": {"Days": 3}}, Severity.ERROR),
        ({"Status": "Disabled", "Expiration": {"Days": 3}}, Severity.OK),
        ({"Status": "Enabled", "Expiration": {"ExpiredObjectDeleteMarker": True}}, Severity.OK),
        ({"Status": "Enabled", "Transitions": [{"Days": 3}]}, Severity.ERROR),
        (
            {"Status": "Enabled", "AbortIncompleteMultipartUpload": {"DaysAfterInitiation": 1}},
            Severity.OK,
        ),
        (
            {"Status": "Enabled", "Filter": {"Prefix": "other/"}, "Expiration": {"Days": 3}},
            Severity.OK,
        ),
        (
            {"Status": "Enabled", "Filter": {"Prefix": "hw/data/"}, "Expiration": {"Days": 3}},
            Severity.ERROR,
        ),
        (
            {
                "Status": "Enabled",
                "Filter": {"And": {"Prefix": "hw/", "Tags": []}},
                "Expiration": {"Date": "2030-01-01"},
            },
            Severity.ERROR,
        ),
        ({"Status": "Enabled", "Prefix": "other/", "Expiration": {"Days": 3}}, Severity.OK),
    ],
)
def test_a_rule_that_expires_our_objects_is_an_error(
    rule: dict[str, object], severity: Severity
) -> None:
    assert judge_lifecycle({"Rules": [rule]}, "hw/").severity is severity


def test_kept_versions_are_a_warning() -> None:
    assert judge_versioning({"Status": "Enabled"}, "").severity is Severity.WARNING
    assert judge_versioning({"Status": "Suspended"}, "").severity is Severity.OK
    assert judge_versioning({}, "").severity is Severity.OK
    assert judge_lifecycle({}, "").severity is Severity.OK
