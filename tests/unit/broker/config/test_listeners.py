"""Listener addresses as people type them."""

from __future__ import annotations

import pytest

from broker.config.listeners import Address, BadListener, Listener, parse_listener
from broker.config.listeners import resolve_listeners as resolve


@pytest.mark.parametrize(
    ("text", "listener"),
    [
        ("localhost:9092", Listener("PLAINTEXT", Address("localhost", 9092), None)),
        ("[::1]:9092", Listener("PLAINTEXT", Address("::1", 9092), None)),
        ("in=10.0.0.1:1", Listener("IN", Address("10.0.0.1", 1), None)),
        ("PLAINTEXT://:9092", Listener("PLAINTEXT", Address("", 9092), None)),
        ("OUT://0.0.0.0:1@a.b:2", Listener("OUT", Address("0.0.0.0", 1), Address("a.b", 2))),
        ("A=[::]:1@[fe80::1]:2", Listener("A", Address("::", 1), Address("fe80::1", 2))),
        ("0.0.0.0:1@host", Listener("PLAINTEXT", Address("0.0.0.0", 1), Address("host", 1))),
        ("*:1@host", Listener("PLAINTEXT", Address("", 1), Address("host", 1))),
    ],
)
def test_every_form_is_understood(text: str, listener: Listener) -> None:
    assert parse_listener(text) == listener


@pytest.mark.parametrize(
    "text",
    ["", "host", "host:", "host:x", "host:70000", "::1:9092", "a b:1", "=h:1", "a/b:1", "h:1@",
     "h:1@0.0.0.0:2", "h:-1", "h:١"],
)  # fmt: skip
def test_what_is_no_listener_is_refused(text: str) -> None:
    with pytest.raises(BadListener):
        parse_listener(text)


def test_an_ipv6_host_without_brackets_is_shown_with_them() -> None:
    with pytest.raises(BadListener, match=r"\[::1\]:9092"):
        parse_listener("::1:9092")


def test_advertised_addresses_find_their_listener() -> None:
    found = resolve(["A=0.0.0.0:1", "B=h:2"], ["A://pub:5"])
    assert [(x.name, x.advertised) for x in found] == [("A", Address("pub", 5)), ("B", None)]
    [only] = resolve(["0.0.0.0:1"], ["pub:5"])
    assert only.advertised == Address("pub", 5)


def test_listeners_without_a_name_get_one_each_and_never_one_that_was_given() -> None:
    def names(*texts: str) -> list[str]:
        return [one.name for one in resolve(list(texts))]

    assert names("h:1") == ["PLAINTEXT"]
    assert names("h:1", "h:2", "h:3") == ["PLAINTEXT", "PLAINTEXT_2", "PLAINTEXT_3"]
    assert names("h:1", "INSIDE=h:2", "h:3") == ["PLAINTEXT", "INSIDE", "PLAINTEXT_2"]
    assert names("h:1", "PLAINTEXT=h:2") == ["PLAINTEXT_2", "PLAINTEXT"]
    assert names("h:1", "h:2", "PLAINTEXT_2=h:3") == ["PLAINTEXT", "PLAINTEXT_3", "PLAINTEXT_2"]


@pytest.mark.parametrize(
    ("listeners", "advertised", "word"),
    [
        (["A=h:1", "A=h:2"], [], "two listeners are named A"),
        (["PLAINTEXT://h:1", "PLAINTEXT://h:2"], [], "two listeners are named PLAINTEXT"),
        (["A=h:1", "B=h:2"], ["pub:5"], "which of the listeners A, B"),
        (["A=h:1"], ["B://pub:5"], "no listener B"),
        (["A=h:1"], ["A://0.0.0.0:5"], "real host"),
        (["A=:1"], [], "--listener A=0.0.0.0:1@THIS-HOST:1"),
        (["[::]:1"], [], r"--listener [::]:1@THIS-HOST:1"),
    ],
)
def test_listeners_that_do_not_fit_together_are_refused_with_the_way_out(
    listeners: list[str], advertised: list[str], word: str
) -> None:
    with pytest.raises(BadListener) as caught:
        resolve(listeners, advertised)
    assert word in str(caught.value)
