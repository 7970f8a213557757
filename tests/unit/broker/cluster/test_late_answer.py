"""What a former controller answers late is not taken for the term that the bucket told of since."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

from broker.cluster.following import Following
from broker.cluster.messages import LogObject, LogObjects
from s3stream.metadata.image import MetadataImage


def test_objects_of_a_former_term_are_not_folded_into_this_one() -> None:
    folded: list[Any] = []
    loaded = SimpleNamespace(
        image=MetadataImage(),
        term=3,
        next_seq=5,
        owner=b"",
        snapshot=None,
        terms=1,
        records=0,
        size_bytes=0,
    )
    follower = cast(Any, SimpleNamespace(loaded=loaded, _advance=folded.append))
    late = LogObjects([LogObject(5, [])])
    Following._fold(follower, 2, late)
    assert folded == []
    Following._fold(follower, 3, late)
    assert [(one.term, one.next_seq) for one in folded] == [(3, 6)]
