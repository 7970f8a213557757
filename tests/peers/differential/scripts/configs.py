"""Configurations: described, set, changed and listed; every refusal."""

from __future__ import annotations

from typing import Any

from protocol.api_versions import ApiKey
from tests.peers.differential.schema import Values
from tests.peers.differential.session import Session, script, versions

D = ApiKey.DESCRIBE_CONFIGS
A = ApiKey.ALTER_CONFIGS
I = ApiKey.INCREMENTAL_ALTER_CONFIGS  # noqa: E741
L = ApiKey.LIST_CONFIG_RESOURCES
TOPIC, BROKER, LOGGER, METRICS, GROUP = 2, 4, 8, 16, 32
SET, DELETE, APPEND, SUBTRACT = range(4)
BROKER_KEYS = ["log.retention.ms", "message.max.bytes", "num.partitions", "node.id"]


def describe(
    *asked: tuple[int, str, list[str] | None], synonyms: bool = False, documents: bool = False
) -> Values:
    return {
        "resources": [
            {"resourceType": kind, "resourceName": name, "configurationKeys": keys}
            for kind, name, keys in asked
        ],
        "includeSynonyms": synonyms,
        "includeDocumentation": documents,
    }


def alter(kind: int, name: str, entries: list[Values], validate: bool = False) -> Values:
    resource = {"resourceType": kind, "resourceName": name, "configs": entries}
    return {"resources": [resource], "validateOnly": validate}


def entry(name: str, value: str | None = None, operation: int = SET) -> Values:
    return {"name": name, "value": value, "configOperation": operation}


def plain(name: str, value: str | None) -> Values:
    return {"name": name, "value": value}


def without_level(answer: Values) -> Values:
    """The root logger, whatever its level."""
    (logger,) = answer["results"][0]["configs"]
    logger["value"] = bool(logger["value"])
    return answer


@script
def describe_configs(s: Session) -> None:
    topic, _ = s.topic(max_message_bytes="2000", retention_bytes="77")
    for v in versions(D):
        s.valid(D, v, describe((TOPIC, topic, None)))
        s.valid(D, v, describe((TOPIC, topic, None), synonyms=True), "synonyms")
        body = describe((TOPIC, topic, ["retention.ms", "cleanup.policy", "max.message.bytes"]))
        s.valid(D, v, body, "three keys")
        s.valid(D, v, describe((TOPIC, topic, ["no.such.key"])), "unknown key")
        s.valid(D, v, describe((TOPIC, topic, [])), "no keys")
        s.valid(D, v, describe((BROKER, "1", BROKER_KEYS)), "broker")
        s.valid(D, v, describe((BROKER, "1", BROKER_KEYS), synonyms=True), "broker, synonyms")
        s.valid(D, v, describe((BROKER, "", None)), "defaults of all brokers")
        s.valid(D, v, describe((LOGGER, "1", ["root"])), "root logger", only=without_level)
        s.valid(D, v, describe(), "no resources")
        s.error(D, v, "unknown topic", describe((TOPIC, s.name("missing"), None)))
        s.error(D, v, "bad topic name", describe((TOPIC, "a/b", None)))
        s.error(D, v, "empty topic name", describe((TOPIC, "", None)))
        s.error(D, v, "another broker", describe((BROKER, "7", None)))
        s.error(D, v, "broker that is no number", describe((BROKER, "one", None)))
        s.error(D, v, "another broker's loggers", describe((LOGGER, "7", None)))
        s.error(D, v, "loggers of nobody", describe((LOGGER, "", None)))
        s.error(D, v, "unknown resource type", describe((3, "x", None)))
        both = describe((TOPIC, s.name("missing"), None), (TOPIC, topic, ["retention.ms"]))
        s.error(D, v, "one bad resource of two", both)
        s.valid(D, v, describe((TOPIC, topic, ["retention.ms"]), (TOPIC, topic, [])), "twice")
    body = describe((TOPIC, topic, ["retention.ms"]), documents=True)
    s.valid(D, 4, body, "documentation")


def bad_values() -> dict[str, tuple[str, str | None]]:
    return {
        "unknown key": ("no.such.key", "1"),
        "not a number": ("retention.ms", "soon"),
        "below its range": ("max.message.bytes", "-1"),
        "above its range": ("max.message.bytes", "99999999999"),
        "not a choice": ("compression.type", "brotli"),
        "empty value": ("retention.ms", ""),
        "null value": ("retention.ms", None),
        "remote storage": ("remote.storage.enable", "true"),
    }


@script
def alter_configs(s: Session) -> None:
    for v in versions(A):
        topic, _ = s.topic(f"v{v}")

        def show(case: str, v: int = v, topic: str = topic) -> None:
            s.settle()
            keys = ["retention.ms", "retention.bytes", "segment.bytes"]
            s.valid(D, 4, describe((TOPIC, topic, keys), synonyms=True), f"{case}, v{v}")

        s.valid(A, v, alter(TOPIC, topic, [plain("retention.ms", "5000")]))
        show("after a set")
        both = [plain("retention.bytes", "77"), plain("segment.bytes", "2000000")]
        s.valid(A, v, alter(TOPIC, topic, both), "others instead")
        show("after others instead")
        s.valid(A, v, alter(TOPIC, topic, [plain("retention.ms", "9")], True), "validate only")
        show("after validation only")
        s.valid(A, v, alter(TOPIC, topic, []), "none, all go back")
        show("after none")
        for case, (key, value) in bad_values().items():
            s.error(A, v, case, alter(TOPIC, topic, [plain(key, value)]))
            s.error(A, v, f"{case}, validate only", alter(TOPIC, topic, [plain(key, value)], True))
        one = [plain("retention.ms", "5000")]
        s.error(A, v, "one bad of two", alter(TOPIC, topic, [*one, plain("no.such.key", "1")]))
        show("after one bad of two")
        s.error(A, v, "unknown topic", alter(TOPIC, s.name("missing"), one))
        s.error(A, v, "bad topic name", alter(TOPIC, "a/b", one))
        s.error(A, v, "empty topic name", alter(TOPIC, "", one))
        s.error(A, v, "another broker", alter(BROKER, "7", one))
        s.error(A, v, "broker that is no number", alter(BROKER, "one", one))
        s.error(A, v, "read-only key", alter(BROKER, "1", [plain("node.id", "4")]))
        s.error(A, v, "unknown resource type", alter(3, "x", one))
        s.error(A, v, "loggers", alter(LOGGER, "1", [plain("root", "INFO")]))
        twice = alter(TOPIC, topic, one)
        twice["resources"] *= 2
        s.error_or_silence(A, v, "a resource twice", twice)
        s.error(A, v, "a key twice", alter(TOPIC, topic, one * 2))
        s.valid(A, v, {"resources": []}, "no resources")


@script
def incremental_alter_configs(s: Session) -> None:
    for v in versions(I):
        topic, _ = s.topic(f"v{v}")

        def change(
            case: str, *entries: Values, is_error: bool = False, v: int = v, topic: str = topic,
            validate: bool = False,
        ) -> None:  # fmt: skip
            body = alter(TOPIC, topic, list(entries), validate)
            if is_error:
                s.error(I, v, case, body)
            else:
                s.valid(I, v, body, case)
            s.settle()
            keys = ["retention.ms", "cleanup.policy", "leader.replication.throttled.replicas"]
            shown = f"after {case or 'valid'}, v{v}"
            s.valid(D, 4, describe((TOPIC, topic, keys), synonyms=True), shown)

        throttled = "leader.replication.throttled.replicas"
        change("", entry("retention.ms", "5000"))
        change("delete", entry("retention.ms", None, DELETE))
        change("delete what is not set", entry("retention.ms", None, DELETE))
        change("append to a list", entry(throttled, "0:1", APPEND))
        change("append more", entry(throttled, "1:1", APPEND))
        change("append what is there", entry(throttled, "1:1", APPEND))
        change("subtract", entry(throttled, "0:1", SUBTRACT))
        change("subtract what is not there", entry(throttled, "5:1", SUBTRACT))
        change("validate only", entry("retention.ms", "77"), validate=True)
        change("append to no list", entry("retention.ms", "1", APPEND), is_error=True)
        change("subtract from no list", entry("retention.ms", "1", SUBTRACT), is_error=True)
        change("unknown operation", entry("retention.ms", "1", 9), is_error=True)
        change("a key twice", entry("retention.ms", "1"), entry("retention.ms", "2"), is_error=True)
        change("unknown key deleted", entry("no.such.key", None, DELETE))
        for case, (key, value) in bad_values().items():
            s.error(I, v, case, alter(TOPIC, topic, [entry(key, value)]))
            s.error(I, v, f"{case}, validate only", alter(TOPIC, topic, [entry(key, value)], True))
        one = [entry("retention.ms", "5000")]
        s.error(I, v, "unknown topic", alter(TOPIC, s.name("missing"), one))
        s.error(I, v, "bad topic name", alter(TOPIC, "a/b", one))
        s.error(I, v, "empty topic name", alter(TOPIC, "", one))
        s.error(I, v, "another broker", alter(BROKER, "7", one))
        s.error(I, v, "broker that is no number", alter(BROKER, "one", one))
        s.error(I, v, "read-only key", alter(BROKER, "1", [entry("node.id", "4")]))
        s.error(I, v, "unknown resource type", alter(3, "x", one))
        s.error(I, v, "unknown logger", alter(LOGGER, "1", [entry("no.such.logger", "INFO")]))
        s.error(I, v, "unknown level", alter(LOGGER, "1", [entry("root", "LOUD")]))
        s.error(I, v, "loggers of another broker", alter(LOGGER, "7", [entry("root", "INFO")]))
        s.error(I, v, "append to a logger", alter(LOGGER, "1", [entry("root", "INFO", APPEND)]))
        s.error(I, v, "delete the root logger", alter(LOGGER, "1", [entry("root", None, DELETE)]))
        twice = alter(TOPIC, topic, one)
        twice["resources"] *= 2
        s.error(I, v, "a resource twice", twice)
        s.valid(I, v, {"resources": []}, "no resources")


@script
def broker_configs(s: Session) -> None:
    key = "log.retention.bytes"

    def shown(case: str) -> None:
        s.settle()
        s.valid(D, 4, describe((BROKER, "1", [key]), synonyms=True), case)

    for name, place in (("1", "one broker"), ("", "all brokers")):
        for v in versions(I):
            case = f"{place}, v{v}"
            s.valid(I, v, alter(BROKER, name, [entry(key, "123456789")]), f"set at {place}")
            shown(f"set at {case}")
            s.valid(I, v, alter(BROKER, name, [entry(key, None, DELETE)]), f"unset at {place}")
            shown(f"unset at {case}")
            s.error(I, v, f"bad value at {place}", alter(BROKER, name, [entry(key, "many")]))
            s.error(I, v, f"unknown key at {place}", alter(BROKER, name, [entry("no.such", None)]))
    for v in versions(A):
        s.valid(A, v, alter(BROKER, "1", [plain(key, "987654321")]), "set at one broker")
        shown(f"set whole at one broker, v{v}")
        s.valid(A, v, alter(BROKER, "1", []), "nothing left at one broker")
        shown(f"unset whole at one broker, v{v}")
        body = alter(BROKER, "", [plain(key, "987654321")])
        s.error(A, v, "set whole at all brokers", body)
        s.quietly(I, 1, alter(BROKER, "", [entry(key, None, DELETE)]))


@script
def list_config_resources(s: Session) -> None:
    s.topic()

    def known(answer: Values) -> Values:
        found: list[Any] = []
        for each in answer["configResources"]:
            if each.get("resourceType") != TOPIC or each["resourceName"].startswith(s.prefix):
                found.append(each)
        answer["configResources"] = found
        return answer

    for v in versions(L):
        s.valid(L, v, {}, only=known)
        if v >= 1:
            for kinds in ([TOPIC], [BROKER], [LOGGER], [METRICS], [TOPIC, BROKER]):
                body = {"resourceTypes": kinds}
                s.valid(L, v, body, f"types {kinds}", only=known)
            s.error(L, v, "unknown type", {"resourceTypes": [77]})
            s.error(L, v, "type 0", {"resourceTypes": [0]})
