"""One setting of the broker, as a row of a table."""

from __future__ import annotations

import enum
from collections.abc import Sequence
from dataclasses import dataclass

from .types import ConfigType, Validator, Value, parse, render


class Effect(enum.Enum):
    """What becomes of a value."""

    ACTIVE = "active"
    # Accepted, kept and shown, because tools set it; what it would govern in Kafka, a broker's
    # local files and replicas, is the object store's business here.
    STORE_TAKES_ITS_PLACE = "the store takes its place"
    # As in a Kafka broker without tiered storage: kept and shown, and governs nothing.
    TIERED_STORAGE_ONLY = "only with tiered storage"
    # Kept and shown; ordinary topics cannot be compacted yet, and the internal one has rules of
    # its own (broker.maintenance).
    COMPACTED_TOPICS_ONLY = "only with compacted topics"


class Kafkas(enum.Enum):
    """How a row stands to Kafka's row of the same key, where no other default is named."""

    SAME_DEFAULT = enum.auto()
    NO_SUCH_KEY = enum.auto()


NOT_KAFKAS = Kafkas.NO_SUCH_KEY


@dataclass(frozen=True)
class Setting:
    """`default` None: not set. `unit`: of the value, empty where it has none.

    dynamic: may be changed while the broker runs (AlterConfigs on the BROKER resource).
    kafka_default: Kafka 4.3.1's, where ours differs, with `reason`.
    falls_back_to: keys that count where this one is not set, the first that is set.
    dynamic_in_kafka: Kafka can change it while it runs and this broker reads it at its start.
    """

    key: str
    type: ConfigType
    default: Value
    meaning: str
    validator: Validator | None = None
    unit: str = ""
    effect: Effect = Effect.ACTIVE
    dynamic: bool = False
    kafka_default: Value | Kafkas = Kafkas.SAME_DEFAULT
    reason: str = ""
    falls_back_to: Sequence[str] = ()
    dynamic_in_kafka: bool = False

    @property
    def is_kafkas(self) -> bool:
        return self.kafka_default is not NOT_KAFKAS

    @property
    def differs(self) -> bool:
        """Kafka has the key and another default."""
        return not isinstance(self.kafka_default, Kafkas)

    @property
    def sensitive(self) -> bool:
        return self.type is ConfigType.PASSWORD

    @property
    def default_text(self) -> str | None:
        return render(self.default)

    def parse(self, text: str) -> Value:
        """Raises InvalidValue."""
        return parse(self.key, self.type, text, self.validator)

    def allowed(self) -> str:
        """What may be given, as a person would be told."""
        if self.validator is not None:
            return self.validator.allowed()
        return {
            ConfigType.BOOLEAN: "true or false",
            ConfigType.INT: "a whole number",
            ConfigType.SHORT: "a whole number",
            ConfigType.LONG: "a whole number",
            ConfigType.DOUBLE: "a number",
            ConfigType.LIST: "words separated by commas",
        }.get(self.type, "a text")
