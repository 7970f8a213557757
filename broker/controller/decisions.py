"""What any broker may ask of the controller, and what its parts see of its place in the cluster."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Protocol
from uuid import UUID

from protocol.errors import KafkaError
from s3stream.metadata.image import MetadataImage, TopicImage
from s3stream.metadata.records import BlobRef

from .subscribers import Subscriber
from .topics import NewTopic

if TYPE_CHECKING:
    from broker.cluster.messages import QuorumShown


class Decisions(Protocol):
    """Each is durable, and in this process's image, when it returns. Raises KafkaError."""

    async def create_topics(
        self, topics: Sequence[NewTopic], *, validate_only: bool = False
    ) -> list[TopicImage | KafkaError]: ...

    async def delete_topics(self, topic_ids: Sequence[UUID]) -> list[TopicImage | KafkaError]: ...

    async def create_partitions(
        self,
        name: str,
        total: int,
        assignments: Sequence[Sequence[int]] | None = None,
        *,
        validate_only: bool = False,
    ) -> None: ...

    async def alter_configs(
        self,
        resource_type: str,
        name: str,
        changes: Mapping[str, str | None],
        *,
        validate_only: bool = False,
        based_on: Mapping[str, str] | None = None,
    ) -> None: ...

    async def allocate_producer_ids(self, incarnation: int | None = None) -> tuple[int, int]: ...

    async def set_feature_level(self, name: str, level: int) -> None: ...

    async def opened(
        self, streams: Sequence[tuple[int, int]], incarnation: int | None = None
    ) -> None: ...

    async def move_leaders(self, assignment: Mapping[int, int]) -> list[int]: ...

    async def handed_over(self, move: int, contents: BlobRef) -> None: ...

    async def cancel_moves(self, moves: Sequence[int]) -> None: ...

    async def set_draining(self, incarnation: int, draining: bool) -> None: ...

    async def unregister(self, node_id: int) -> None: ...


class Membership(Decisions, Protocol):
    """A process's place in the cluster, as its other parts see it."""

    @property
    def image(self) -> MetadataImage: ...

    @property
    def node_id(self) -> int: ...

    @property
    def incarnation(self) -> int: ...

    @property
    def owns_term(self) -> bool: ...

    def subscribe(self, subscriber: Subscriber) -> None: ...

    async def still_decides(self) -> None: ...

    async def quorum(self) -> QuorumShown: ...
