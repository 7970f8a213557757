"""The settings of a broker and of its topics; this package alone reads files and environment."""

from .broker_config import BrokerConfig, Synonym
from .listeners import Address, BadListener, Listener
from .load import ConfigError, Loaded, load
from .render import render_config_table
from .topic import TopicConfig
from .types import ConfigType, Source

__all__ = [
    "Address",
    "BadListener",
    "BrokerConfig",
    "ConfigError",
    "ConfigType",
    "Listener",
    "Loaded",
    "Source",
    "Synonym",
    "TopicConfig",
    "load",
    "render_config_table",
]
