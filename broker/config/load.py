"""From flags, `--set`, the environment and a file to a checked BrokerConfig.

Precedence: flags, then `--set`, then the environment, then the file, then the default.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from .broker_config import BrokerConfig, Given
from .definitions import BY_KEY, nearest_key
from .listeners import BadListener
from .types import InvalidValue

ENVIRONMENT_PREFIX = "HEADWATER_"
# Kubernetes injects these into every container when a service is called headwater.
_INJECTED = ("HEADWATER_PORT", "HEADWATER_SERVICE_")
BY_VARIABLE: Mapping[str, str] = {
    ENVIRONMENT_PREFIX + key.upper().replace(".", "_"): key for key in BY_KEY
}
# Keys that have a flag of their own at `headwater start`.
FLAGS: Mapping[str, str] = {
    "store": "--store",
    "create.bucket": "--create-bucket",
    "listeners": "--listener",
    "advertised.listeners": "--advertised",
    "node.id": "--node-id",
    "take.over": "--take-over",
    "broker.rack": "--rack",
    "http": "--http",
    "cache.dir": "--cache-dir",
    "log.level": "--log-level",
}


class ConfigError(Exception):
    """A setting that stops the start; the message is one line for the operator."""


@dataclass(frozen=True)
class Loaded:
    """warnings: one line each, for the log."""

    config: BrokerConfig
    warnings: tuple[str, ...]


def load(
    *,
    flags: Mapping[str, str] | None = None,
    sets: Sequence[str] = (),
    environ: Mapping[str, str] | None = None,
    file: Path | None = None,
) -> Loaded:
    """flags: key to text, as typed; a list is joined with commas. sets: KEY=VALUE each.

    Raises ConfigError.
    """
    given: dict[str, Given] = {}
    warnings: list[str] = []
    if file is not None:
        for key, text in _read_file(file):
            _give(given, str(file), key, text)
    for variable, text in sorted((environ or {}).items()):
        if variable.startswith(ENVIRONMENT_PREFIX) and not variable.startswith(_INJECTED):
            if variable in BY_VARIABLE:
                _give(given, f"environment {variable}", BY_VARIABLE[variable], text)
            else:
                warnings.append(f"environment {variable} is ignored: {_unknown_variable(variable)}")
    for entry in sets:
        key, equals, text = entry.partition("=")
        if not equals:
            raise ConfigError(f"--set {entry}: write KEY=VALUE")
        _give(given, "--set", key.strip(), text)
    for key, text in (flags or {}).items():
        _give(given, FLAGS[key], key, text)
    config = BrokerConfig(given)
    _check_together(config)
    return Loaded(config, tuple(warnings))


def _give(given: dict[str, Given], origin: str, key: str, text: str) -> None:
    row = BY_KEY.get(key)
    if row is None:
        raise ConfigError(f"{origin}: unknown key {key}{_did_you_mean(key)}")
    try:
        given[key] = Given(row.parse(text), origin)
    except InvalidValue as error:
        shown = text if len(text) <= 80 else text[:77] + "..."
        raise ConfigError(
            f"{origin}: {key}={shown!r}: {error.why}; allowed: {row.allowed()}"
        ) from None


def _did_you_mean(key: str) -> str:
    near = nearest_key(key)
    return f"; did you mean {near}?" if near else "; `headwater config` lists all keys"


def _unknown_variable(variable: str) -> str:
    key = variable.removeprefix(ENVIRONMENT_PREFIX).lower().replace("_", ".")
    return f"no key has this name{_did_you_mean(key)}"


def _read_file(path: Path) -> Iterable[tuple[str, str]]:
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: is not TOML: {error}") from None
    return list(_flatten(path, "", table))


def _flatten(path: Path, prefix: str, table: Mapping[str, object]) -> Iterable[tuple[str, str]]:
    for name, value in table.items():
        key = f"{prefix}{name}"
        if isinstance(value, dict):
            yield from _flatten(path, f"{key}.", value)
        elif isinstance(value, list):
            yield key, ",".join(_scalar(path, key, element) for element in value)
        else:
            yield key, _scalar(path, key, value)


def _scalar(path: Path, key: str, value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str | int | float):
        return str(value)
    raise ConfigError(f"{path}: {key}: write a text, a number, true or false, or a list of texts")


def _check_together(config: BrokerConfig) -> None:
    """What no single row can see."""
    for key, read in (
        ("listeners", lambda: config.listeners),
        ("http", lambda: config.http_address),
    ):
        try:
            read()
        except BadListener as error:
            given = config.static.get(key) or config.static.get("advertised.listeners")
            raise ConfigError(f"{given.origin if given else key}: {error}") from None
    for low, high in (("group.min.session.timeout.ms", "group.max.session.timeout.ms"),):
        if config.int(low) > config.int(high):
            given = config.static.get(low) or config.static[high]
            raise ConfigError(
                f"{given.origin}: {low}={config.int(low)} is above {high}={config.int(high)};"
                " it must not be"
            )
