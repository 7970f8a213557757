"""Headwater answers as Apache Kafka 4.3.1 answers, request by request.

The scripts are in tests/peers/differential; docs/compatibility.md is made from their run.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from protocol.api_versions import SERVED, ApiKey
from protocol.errors import ErrorCode

from .conftest import StartBroker
from .differential import document
from .differential.differences import DIFFERENCES
from .differential.peer import Connection
from .differential.run import Run, both_headwaters, kafka_node, run_all
from .differential.session import CLOSED, SCRIPTS, Exchange

PRODUCE, FETCH, METADATA = ApiKey.PRODUCE, ApiKey.FETCH, ApiKey.METADATA
Select = Callable[[Exchange], bool]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Iterator[Run]:
    directory = tmp_path_factory.mktemp("headwater")
    with kafka_node() as kafka, both_headwaters(directory) as (plain, validating):
        made = run_all(kafka, plain, validating)
    capture = request.config.pluginmanager.getplugin("capturemanager")
    assert capture is not None
    with capture.global_and_fixture_disabled():
        print("\nrequests put to Apache Kafka and to Headwater, by API:")
        for name, versions, valid, refused, _ in document.counts(made.kafka):
            print(f"  {name:32} {versions:6} {valid:5} valid {refused:5} refused")
    yield made


@pytest.mark.parametrize("name", SCRIPTS)
def test_answers_are_kafkas(run: Run, name: str) -> None:
    outcome = run.outcomes[name]
    assert not outcome.failure
    assert outcome.kafka
    assert not outcome.findings, "\n" + "\n".join(map(str, outcome.findings[:20]))


@pytest.mark.parametrize("name", SCRIPTS)
def test_kafka_refuses_what_is_meant_to_be_refused(run: Run, name: str) -> None:
    exchanges = run.outcomes[name].kafka
    wrong = [each for each in exchanges if each.is_error != each.was_refused]
    assert not wrong, wrong[:5]


def test_every_version_served_has_a_valid_and_every_api_a_refused_request(run: Run) -> None:
    for exchanges in (run.kafka, run.headwater):
        valid = {(e.api, e.version) for e in exchanges if not e.is_error and not e.was_refused}
        refused = {e.api for e in exchanges if e.is_error and e.was_refused}
        for api, (oldest, newest) in SERVED.items():
            if api == PRODUCE:
                oldest = 3
            if api == ApiKey.UNREGISTER_BROKER:
                oldest = newest + 1  # needs a second broker: test_cluster_tools
            missing = [v for v in range(oldest, newest + 1) if (api, v) not in valid]
            assert not missing, f"{api.name}: nothing valid in versions {missing}"
            assert api in refused, api.name


def test_every_documented_difference_is_there(run: Run) -> None:
    gone = [each for each in DIFFERENCES if each not in run.used]
    assert not gone


def test_the_page_on_compatibility_is_of_this_run(run: Run) -> None:
    assert document.PATH.read_text() == document.render(run.kafka), (
        "stale: python -m tests.peers.differential --write"
    )


# By name, what clients have been hurt by.


def chosen(run: Run, select: Select, at_least: int = 1) -> list[Exchange]:
    """The exchanges that a claim is about, at both peers."""
    found = [e for side in (run.kafka, run.headwater) for e in side if select(e)]
    assert len(found) >= 2 * at_least
    return found


def partitions(told: Exchange) -> list[dict[str, object]]:
    key = "partitionResponses" if told.api == PRODUCE else "partitions"
    return [p for topic in told.answer["responses"] for p in topic[key]]


def test_an_empty_fetch_is_empty_bytes_never_null(run: Run) -> None:
    for told in chosen(run, lambda e: e.api == FETCH and e.case == "an empty log", 15):
        assert [p["records"] for p in partitions(told)] == [[]]
    for told in chosen(run, lambda e: e.api == FETCH and "responses" in e.answer, 15):
        assert all(p["records"] is not None for p in partitions(told))


def test_zstd_is_refused_below_produce_7_and_served_to_every_fetch(run: Run) -> None:
    refused = int(ErrorCode.UNSUPPORTED_COMPRESSION_TYPE)
    cases = ("zstd", "zstd before version 7")
    for told in chosen(run, lambda e: e.api == PRODUCE and e.case in cases, 11):
        assert told.codes == ((refused,) if told.version < 7 else ())
    # Apache Kafka 4 gives zstd to fetches of versions 4-9 too, as it is in the log.
    for told in chosen(run, lambda e: e.api == FETCH and "zstd" in e.case, 15):
        assert told.codes == () and partitions(told)[0]["records"]


def test_one_bad_partition_fails_no_other(run: Run) -> None:
    for told in chosen(run, lambda e: e.case == "a corrupt batch between two good", 11):
        codes = {p["index"]: p["errorCode"] for p in partitions(told)}
        assert codes == {0: 0, 1: int(ErrorCode.CORRUPT_MESSAGE), 2: 0}
    for told in chosen(run, lambda e: e.api == FETCH and e.case == "one bad partition of two", 15):
        codes = {p["partitionIndex"]: p["errorCode"] for p in partitions(told)}
        assert codes == {0: int(ErrorCode.OFFSET_OUT_OF_RANGE), 1: 0}


def test_acks_0_has_no_answer_and_an_error_closes(run: Run) -> None:
    for told in chosen(run, lambda e: e.case == "acks=0 has no answer", 11):
        assert told.answer == {"the next request is answered": True}
    for told in chosen(run, lambda e: e.case == "acks=0 with an error closes", 11):
        assert told.answer == CLOSED


def test_only_the_admin_client_may_write_to_internal_topics(run: Run) -> None:
    for told in chosen(run, lambda e: e.case == "internal topic by an ordinary client", 11):
        assert told.codes == (int(ErrorCode.INVALID_TOPIC_EXCEPTION),)
    for told in chosen(run, lambda e: e.case == "internal topic by __admin_client", 11):
        assert told.codes == ()


def test_internal_topics_are_listed_and_flagged(run: Run) -> None:
    select: Select = lambda e: e.api == METADATA and e.case == "internal topic"  # noqa: E731
    for told in chosen(run, lambda e: select(e) and e.version >= 1, 13):
        assert [t["isInternal"] for t in told.answer["topics"]] == [True]


def test_the_cluster_id_has_22_characters(run: Run) -> None:
    for told in chosen(run, lambda e: e.case == "the cluster id everywhere"):
        assert told.answer == {"ids": 1, "lengths": [22]}


def test_concurrent_creation_makes_one_topic(run: Run) -> None:
    for told in chosen(run, lambda e: e.case == "eight clients create one topic"):
        assert told.answer == {"ids": 1}


def test_no_topic_is_created_when_the_request_forbids_it(run: Run) -> None:
    for told in chosen(run, lambda e: e.case == "creation not wanted", 10):
        assert told.codes == (int(ErrorCode.UNKNOWN_TOPIC_OR_PARTITION),)


def test_cluster_id_and_topic_ids_stay_and_leader_epochs_never_go_back(
    start_broker: StartBroker,
) -> None:
    broker = start_broker()
    seen = []
    for life in range(3):
        connection = Connection(broker.port)
        body = {"topics": [{"name": "kept"}], "allowAutoTopicCreation": life == 0}
        for _ in range(1000):
            connection.send(METADATA, 12, body)
            answer = connection.receive()
            (topic,) = answer["topics"]
            if not topic["errorCode"] and topic["partitions"][0]["leaderId"] >= 0:
                break
        connection.close()
        epoch = topic["partitions"][0]["leaderEpoch"]
        seen.append((answer["clusterId"], topic["topicId"], epoch))
        broker.kill()
        broker.start()
    assert len({cluster_id for cluster_id, _, _ in seen}) == 1
    assert len({topic_id for _, topic_id, _ in seen}) == 1
    epochs = [epoch for _, _, epoch in seen]
    assert epochs == sorted(epochs)
    assert epochs[0] < epochs[-1]
