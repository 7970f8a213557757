"""Configuration as the controller checks it."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from broker.config import BrokerConfig
from broker.config.topic import validate


class BrokerConfigRules:
    """Implements broker.controller.ConfigRules by this broker's settings."""

    def __init__(self, config: Callable[[], BrokerConfig]) -> None:
        self._config = config

    def check_topic(self, name: str, configs: Mapping[str, str]) -> None:
        validate(name, configs, self._config())

    def check_broker(self, name: str, configs: Mapping[str, str]) -> None:
        """The API has checked each change against what stands there (config.alter)."""
