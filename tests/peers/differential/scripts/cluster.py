"""What is asked of the cluster: brokers, quorum, features, elections, log directories, versions."""

from __future__ import annotations

from protocol.api_versions import SERVED, ApiKey
from tests.peers.differential.schema import Values
from tests.peers.differential.session import Session, script, versions

from .batches import batch
from .fetch import fill

C = ApiKey.DESCRIBE_CLUSTER
Q = ApiKey.DESCRIBE_QUORUM
U = ApiKey.UPDATE_FEATURES
E = ApiKey.ELECT_LEADERS
G = ApiKey.DESCRIBE_LOG_DIRS
V = ApiKey.API_VERSIONS
R = ApiKey.UNREGISTER_BROKER


@script
def describe_cluster(s: Session) -> None:
    def keep(answer: Values) -> Values:
        s.names.learn_word(answer.get("clusterId") or "", "cluster id")
        return answer

    for v in versions(C):
        s.valid(C, v, {}, only=keep)
        body: Values = {"includeClusterAuthorizedOperations": True}
        s.valid(C, v, body, "operations", only=keep)
        if v >= 1:
            s.error(C, v, "controllers", {"endpointType": 2})
            s.error(C, v, "unknown endpoint type", {"endpointType": 9})
        if v >= 2:
            s.valid(C, v, {"includeFencedBrokers": True}, "fenced brokers too", only=keep)


@script
def cluster_id_is_22_characters_and_stays(s: Session) -> None:
    ids = set()
    for _ in range(3):
        s.connection.send(C, 0, {})
        ids.add(s.connection.receive()["clusterId"])
        s.connection.send(ApiKey.METADATA, 4, {"topics": []})
        ids.add(s.connection.receive()["clusterId"])
    answer = {"ids": len(ids), "lengths": sorted(len(each) for each in ids)}
    s.note(C, 0, "the cluster id everywhere", answer)


@script
def describe_quorum(s: Session) -> None:
    def body(topic: str, index: int) -> Values:
        return {"topics": [{"topicName": topic, "partitions": [{"partitionIndex": index}]}]}

    def numbers(answer: Values) -> Values:
        """Offsets and epochs are a matter of each cluster's own history."""
        for topic in answer["topics"]:
            for partition in topic["partitions"]:
                for key in ("leaderEpoch", "highWatermark"):
                    partition[key] = partition[key] >= 0
                for replica in partition["currentVoters"]:
                    replica["logEndOffset"] = replica["logEndOffset"] > 0
        return answer

    for v in versions(Q):
        s.valid(Q, v, body("__cluster_metadata", 0), only=numbers)
        s.error(Q, v, "another topic", body("other", 0))
        s.error(Q, v, "another partition", body("__cluster_metadata", 1))
        s.valid(Q, v, {"topics": []}, "no topics")
        two = body("__cluster_metadata", 0)
        two["topics"] += body("other", 0)["topics"]
        s.error(Q, v, "two topics", two)


@script
def update_features(s: Session) -> None:
    def body(*updates: tuple[str, int, int], validate: bool = True) -> Values:
        """updates: feature, level, how (1 upgrade, 2 safe downgrade, 3 unsafe)."""
        return {
            "timeoutMs": 5000,
            "featureUpdates": [
                {
                    "feature": name,
                    "maxVersionLevel": level,
                    "upgradeType": how,
                    "allowDowngrade": how > 1,
                }
                for name, level, how in updates
            ],
            "validateOnly": validate,
        }

    for v in versions(U):
        s.valid(U, v, body(validate=False), "no features")
        s.error(U, v, "unknown feature", body(("no.such.feature", 1, 1)))
        s.error(U, v, "unknown feature, level 0 and downgrade", body(("no.such.feature", 0, 2)))
        s.error(U, v, "level 0 without downgrade", body(("no.such.feature", 0, 1)))
        s.error(U, v, "negative level", body(("no.such.feature", -1, 1)))
        s.error(U, v, "no name", body(("", 1, 1)))
        if v >= 1:
            s.error(U, v, "unknown way", body(("no.such.feature", 1, 9)))
        two = body(("no.such.feature", 1, 1), ("nor.this", 1, 1))
        s.error(U, v, "two unknown features", two)


@script
def unregister_broker(s: Session) -> None:
    """Of nodes that are not there. A broker alone has no other, and Kafka's that is unregistered
    itself while it lives never serves again.
    """
    for v in versions(R):
        s.error(R, v, "unknown broker", {"brokerId": 77})
        s.error(R, v, "negative broker", {"brokerId": -1})


@script
def elect_leaders(s: Session) -> None:
    topic, _ = s.topic(partitions=2)

    def known(answer: Values) -> Values:
        found = answer["replicaElectionResults"]
        mine = [t for t in found if t["topic"].startswith(s.prefix)]
        answer["replicaElectionResults"] = mine
        return answer

    def body(how: int, *asked: tuple[str, list[int]]) -> Values:
        found = [{"topic": name, "partitions": indexes} for name, indexes in asked]
        return {"electionType": how, "topicPartitions": found, "timeoutMs": 5000}

    for v in versions(E):
        for how, kind in ((0, "preferred"), (1, "unclean")):
            if how and not v:
                continue
            s.error(E, v, f"{kind}, not needed", body(how, (topic, [0, 1])))
            s.error(E, v, f"{kind}, unknown topic", body(how, (s.name("missing"), [0])))
            s.error(E, v, f"{kind}, unknown partition", body(how, (topic, [9])))
            both = body(how, (topic, [0, 9]))
            s.error(E, v, f"{kind}, one unknown of two", both)
            s.valid(E, v, body(how), f"{kind}, none")
            everything = {**body(how), "topicPartitions": None}
            s.valid(E, v, everything, "" if not how else "unclean, all", only=known)
        if v:
            s.error(E, v, "unknown kind of election", body(9, (topic, [0])))


@script
def describe_log_dirs(s: Session) -> None:
    topic = s.topic(partitions=2)
    fill(s, topic, batch(b"a"), batch(b"b"))

    def body(*asked: tuple[str, list[int]]) -> Values:
        return {"topics": [{"topic": name, "partitions": indexes} for name, indexes in asked]}

    def known(answer: Values) -> Values:
        for each in answer["results"]:
            each["logDir"] = "a directory" if each["logDir"] else ""
            mine = [t for t in each["topics"] if t["name"].startswith(s.prefix)]
            each["topics"] = mine
            for key in ("totalBytes", "usableBytes"):
                if key in each:
                    each[key] = each[key] if each[key] < 0 else "bytes"
        return answer

    for v in versions(G):
        s.valid(G, v, body((topic[0], [0, 1])), only=known)
        s.valid(G, v, {"topics": None}, "all topics", only=known)
        s.valid(G, v, body((s.name("missing"), [0])), "unknown topic", only=known)
        s.valid(G, v, body((topic[0], [9])), "unknown partition", only=known)
        s.valid(G, v, body(), "no topics", only=known)


@script
def api_versions(s: Session) -> None:
    def served(answer: Values) -> Values:
        """Which APIs there are is a table of its own in the documentation."""
        answer["apiKeys"] = [k for k in answer["apiKeys"] if k["apiKey"] in set(map(int, SERVED))]
        return answer

    for v in versions(V):
        good = {"clientSoftwareName": "probe", "clientSoftwareVersion": "1.0"}
        s.valid(V, v, good, only=served)
        if v >= 3:
            for case, name in (("empty name", ""), ("bad name", "-x"), ("blank in it", "a b")):
                s.error(V, v, case, {**good, "clientSoftwareName": name})
            s.error(V, v, "bad version", {**good, "clientSoftwareVersion": "é"})
    with s.another() as c:
        s.error(V, 5, "a version to come", b"\x00\x01\x02", by=c, only=served, as_version=0)
        s.valid(V, 0, {}, "after a version to come", by=c, only=served)
