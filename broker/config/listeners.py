"""Addresses at which clients are accepted, and those that they are told."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

WILDCARDS = frozenset({"", "0.0.0.0", "::", "*"})
DEFAULT_NAME = "PLAINTEXT"


class BadListener(ValueError):
    """A listener that cannot be served; the message says what to type instead."""


@dataclass(frozen=True)
class Address:
    """host: a name or an IP address, without brackets; empty for all interfaces."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def is_wildcard(self) -> bool:
        return self.host in WILDCARDS


@dataclass(frozen=True)
class Listener:
    """advertised: what clients are told; None: the address bound (port 0 is then the real one)."""

    name: str
    bind: Address
    advertised: Address | None

    def __str__(self) -> str:
        told = f"@{self.advertised}" if self.advertised is not None else ""
        return f"{self.name}={self.bind}{told}"


def parse_address(text: str, *, what: str = "an address") -> Address:
    """HOST:PORT, with brackets around an IPv6 host. Raises BadListener."""
    host, colon, port = text.strip().rpartition(":")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    elif ":" in host:
        raise BadListener(f"{text!r} is not {what}: write an IPv6 host as [{host}]:{port}")
    if not colon or not port.isascii() or not port.isdigit() or int(port) > 65535:
        raise BadListener(f"{text!r} is not {what}: write HOST:PORT, with a port from 0 to 65535")
    if any(c.isspace() or c in "/@=[]" for c in host):
        raise BadListener(f"{text!r} is not {what}: {host!r} is no host name")
    return Address("" if host == "*" else host, int(port))


def parse_listener(text: str) -> Listener:
    """[NAME=]HOST:PORT[@ADVERTISED], or NAME://HOST:PORT[@ADVERTISED]. Raises BadListener.

    ADVERTISED is HOST or HOST:PORT; without a port it is the listener's own.
    """
    rest, at, told = text.strip().partition("@")
    name = DEFAULT_NAME
    for separator in ("://", "="):
        if separator in rest:
            name, _, rest = rest.partition(separator)
            break
    if not name or not all(c.isalnum() or c in "_-." for c in name):
        raise BadListener(f"{text!r}: {name!r} is no listener name")
    bind = parse_address(rest, what="a listener")
    advertised = None
    if at:
        bare = ":" not in told or (told.startswith("[") and told.endswith("]"))
        advertised = parse_address(
            f"{told}:{bind.port}" if bare else told, what="an advertised address"
        )
        if advertised.is_wildcard:
            raise BadListener(f"{text!r}: clients cannot connect to {told}; advertise a real host")
    return Listener(name.upper(), bind, advertised)


def _has_name(text: str) -> bool:
    return "://" in text or "=" in text


def _named_apart(parsed: Sequence[tuple[Listener, bool]]) -> list[Listener]:
    """Of several without a name the first keeps the usual one, the others get a number too."""
    taken = {listener.name for listener, has_name in parsed if has_name}
    found = []
    for listener, has_name in parsed:
        if not has_name:
            name, number = DEFAULT_NAME, 1
            while name in taken:
                number += 1
                name = f"{DEFAULT_NAME}_{number}"
            taken.add(name)
            listener = replace(listener, name=name)
        found.append(listener)
    return found


def resolve_listeners(listeners: Sequence[str], advertised: Sequence[str] = ()) -> list[Listener]:
    """Every listener with what it advertises. Raises BadListener.

    listeners: those without a name are PLAINTEXT, PLAINTEXT_2, PLAINTEXT_3 and so on.
    advertised: entries of advertised.listeners; one without a name is for the only listener.
    """
    found = _named_apart([(parse_listener(text), _has_name(text)) for text in listeners])
    names = [listener.name for listener in found]
    for name in names:
        if names.count(name) > 1:
            raise BadListener(
                f"two listeners are named {name}: give each a name, e.g."
                f" --listener A={found[0].bind} --listener B={found[-1].bind}"
            )
    for text in advertised:
        named = _has_name(text)
        if not named and len(found) != 1:
            raise BadListener(
                f"{text!r} does not say which of the listeners {', '.join(names)} it is for:"
                " write NAME://HOST:PORT"
            )
        told = parse_listener(text)
        name = told.name if named else found[0].name
        if name not in names:
            raise BadListener(f"{text!r}: there is no listener {name}, only {', '.join(names)}")
        if told.bind.is_wildcard or told.advertised is not None:
            raise BadListener(f"{text!r}: clients need one real host name or address")
        at = names.index(name)
        found[at] = Listener(name, found[at].bind, told.bind)
    for listener in found:
        if listener.bind.is_wildcard and listener.advertised is None:
            prefix = "" if listener.name == DEFAULT_NAME else f"{listener.name}="
            host = listener.bind.host or "0.0.0.0"
            typed = Address(host, listener.bind.port)
            raise BadListener(
                f"listener {typed} accepts on every interface, so clients must be told a host:"
                f" --listener {prefix}{typed}@THIS-HOST:{listener.bind.port}"
            )
    return found
