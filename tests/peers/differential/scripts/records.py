"""What only the records of a batch show, which Headwater looks at when it is told to."""

from __future__ import annotations

import time

from protocol.api_versions import ApiKey
from protocol.record_batch import HEADER_SIZE, LOG_OVERHEAD
from protocol.records import Record, encode_batch
from tests.peers.differential.schema import Values
from tests.peers.differential.session import Session, validating_script, versions

from .batches import COUNT, GZIP, LAST_DELTA, LENGTH, LZ4, SNAPPY, TIME, ZSTD, batch, changed
from .batches import produce_body as body
from .produce import broken_batches

P = ApiKey.PRODUCE
CODECS = {"": 0, ", gzip": GZIP, ", snappy": SNAPPY, ", lz4": LZ4, ", zstd": ZSTD}


def recounted(data: bytes, count: int) -> bytes:
    return changed(changed(data, COUNT, "i", count), LAST_DELTA, "i", count - 1)


def with_content(data: bytes, content: bytes) -> bytes:
    whole = data[:HEADER_SIZE] + content
    return changed(whole, LENGTH, "i", len(whole) - LOG_OVERHEAD)


def bad_records() -> dict[str, bytes]:
    good = batch(b"one", b"two", b"three")
    content = good[HEADER_SIZE:]
    return {
        "fewer records than announced": recounted(good, 5),
        "more records than announced": recounted(good, 2),
        "bytes behind the records": with_content(good, content + b"more"),
        "a record cut short": with_content(good, content[:-2]),
        "a record of length 0": with_content(good, b"\0" + content),
        "a negative length": with_content(good, b"\x01" + content),
        "a varint without end": with_content(good, b"\xff" * 20),
        "gzip that is none": with_content(batch(codec=GZIP), b"nothing of the kind"),
        "snappy that is none": with_content(batch(codec=SNAPPY), b"nothing of the kind"),
        "lz4 that is none": with_content(batch(codec=LZ4), b"nothing of the kind"),
        "zstd that is none": with_content(batch(codec=ZSTD), b"nothing of the kind"),
    }


@validating_script
def records_that_cannot_be_read(s: Session) -> None:
    topic = s.topic()
    for v in versions(P, 7):
        for case, data in bad_records().items():
            s.error(P, v, case, body(v, topic, (0, data)))
        for case, data in broken_batches().items():
            s.error(P, v, f"{case}, validating", body(v, topic, (0, data)))
        s.valid(P, v, body(v, topic, (0, batch())), "after the bad records")


def bounds_left_out(answer: Values) -> Values:
    """The words name the clock; the rest stays."""
    for topic in answer["responses"]:
        for partition in topic["partitionResponses"]:
            for fault in partition.get("recordErrors", ()):
                words = fault["batchIndexErrorMessage"]
                fault["batchIndexErrorMessage"] = words and words.split("[")[0]
    return answer


@validating_script
def records_out_of_time(s: Session) -> None:
    early = s.topic("early", message_timestamp_before_max_ms="3600000")
    # The same whole hour on both sides.
    now = int(time.time() * 1000) // 3_600_000 * 3_600_000
    for v in versions(P, 7):
        for case, codec in CODECS.items():

            def data(*times: int, codec: int = codec) -> bytes:
                found = [Record(i, t, None, b"x") for i, t in enumerate(times)]
                return bytes(encode_batch(found, codec=codec))

            fresh = now + 1_800_000
            for which, times in (
                ("first", (TIME, fresh, fresh)),
                ("middle", (fresh, TIME, fresh)),
                ("every", (TIME, TIME + 1, TIME + 2, TIME + 3, TIME + 4)),
            ):
                told = f"{which} record too old{case}"
                s.error(P, v, told, body(v, early, (0, data(*times))), only=bounds_left_out)
