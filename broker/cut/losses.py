"""What a cut leaves out, as a person reads it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Loss:
    """Offsets of one partition that are not there any more, or cannot be proven.

    end_offset: exclusive; None: nobody knows how far it went. why: the first fault.
    """

    topic: str
    partition: int
    from_offset: int
    end_offset: int | None
    why: str

    def __str__(self) -> str:
        if self.end_offset is None:
            what = f"from offset {self.from_offset} on"
        else:
            what = f"offsets {self.from_offset} to {self.end_offset - 1}"
        return f"{self.topic}-{self.partition}: {what}: {self.why}"
