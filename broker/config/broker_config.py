"""The settings that a broker runs with: an immutable view, swapped at a dynamic change."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType

from .definitions import BY_KEY, synonyms_of
from .listeners import Address, Listener, parse_address, resolve_listeners
from .setting import Setting
from .types import ConfigType, Source, Value, render

# What a new cluster begins with, as Kafka's does since it tracks eligible leader replicas
# (KIP-966): the key stands at the cluster level from birth and cannot be removed there.
CLUSTER_BIRTH_CONFIG: Mapping[str, str] = MappingProxyType({"min.insync.replicas": "1"})


@dataclass(frozen=True)
class Given:
    """A value that an operator gave. origin: what to call the place in a message."""

    value: Value
    origin: str


@dataclass(frozen=True)
class Synonym:
    """One place at which a value stands; the first of a chain is the one that counts."""

    name: str
    value: str | None
    source: Source


_Int = int  # the accessor of that name hides the type inside the class


@dataclass(frozen=True)
class BrokerConfig:
    """static: what files, environment and flags gave, checked.

    cluster_overrides, broker_overrides: dynamic changes from the metadata log, text as stored,
    for all brokers and for this one. Keys that this version does not know are left alone there:
    a later version may have written them.
    """

    static: Mapping[str, Given] = field(default_factory=dict)
    cluster_overrides: Mapping[str, str] = field(default_factory=dict)
    broker_overrides: Mapping[str, str] = field(default_factory=dict)

    def with_overrides(self, cluster: Mapping[str, str], broker: Mapping[str, str]) -> BrokerConfig:
        """The view after a dynamic change."""
        return replace(self, cluster_overrides=dict(cluster), broker_overrides=dict(broker))

    @property
    def cluster_level(self) -> Mapping[str, str]:
        """What stands at the cluster level, with what every cluster is born with."""
        return {**CLUSTER_BIRTH_CONFIG, **self.cluster_overrides}

    def get(self, key: str) -> Value:
        """The value in force; None where nobody set it and there is no default."""
        row = BY_KEY[key]
        if row.dynamic:
            for level in (self.broker_overrides, self.cluster_level):
                if key in level:
                    return row.parse(level[key])
        given = self.static.get(key)
        return row.default if given is None else given.value

    def chain(self, key: str) -> list[Synonym]:
        """Every place at which `key` or a synonym stands, as DescribeConfigs shows them.

        Places before the first that carries the key's own name are left out, as in Kafka.
        """
        names = synonyms_of(key)
        found: list[Synonym] = []
        for level, source in (
            (self.broker_overrides, Source.DYNAMIC_BROKER),
            (self.cluster_level, Source.DYNAMIC_DEFAULT_BROKER),
        ):
            found += [_place(BY_KEY[n], level[n], source) for n in names if n in level]
        for name in names:
            if name in self.static:
                text = render(self.static[name].value)
                found.append(_place(BY_KEY[name], text, Source.STATIC_BROKER))
        for name in names:
            if BY_KEY[name].default is not None:
                found.append(_place(BY_KEY[name], BY_KEY[name].default_text, Source.DEFAULT))
        while found and found[0].name != key:
            del found[0]
        return found

    # Typed access. A wrong type is our own fault, hence the assertions.

    def int(self, key: str) -> _Int:
        value = self.optional_int(key)
        assert value is not None, key
        return value

    def optional_int(self, key: str) -> _Int | None:
        value = self.get(key)
        assert value is None or type(value) is int, (key, value)
        return value

    def number(self, key: str) -> float:
        value = self.optional_number(key)
        assert value is not None, key
        return value

    def optional_number(self, key: str) -> float | None:
        value = self.get(key)
        assert value is None or (isinstance(value, float) and BY_KEY[key].type is _DOUBLE), key
        return value

    def text(self, key: str) -> str:
        value = self.optional_text(key)
        assert value is not None, key
        return value

    def optional_text(self, key: str) -> str | None:
        value = self.get(key)
        assert value is None or isinstance(value, str), (key, value)
        return value

    def flag(self, key: str) -> bool:
        value = self.optional_flag(key)
        assert value is not None, key
        return value

    def optional_flag(self, key: str) -> bool | None:
        value = self.get(key)
        assert value is None or isinstance(value, bool), (key, value)
        return value

    def words(self, key: str) -> tuple[str, ...]:
        """The elements of a list; empty where it is not set."""
        value = self.get(key)
        assert value is None or isinstance(value, tuple), (key, value)
        return value or ()

    # Settings that are read as more than one value.

    @property
    def listeners(self) -> list[Listener]:
        return resolve_listeners(self.words("listeners"), self.words("advertised.listeners"))

    @property
    def http_address(self) -> Address:
        return parse_address(self.text("http"), what="an address")


_DOUBLE = ConfigType.DOUBLE


def _place(row: Setting, text: str | None, source: Source) -> Synonym:
    return Synonym(row.key, None if row.sensitive else text, source)
