"""Decisions about the cluster: who leads, which topics there are, what they are configured to."""

from .answering import over_network
from .controller import ConfigRules, Controller
from .failover import Recovered
from .membership import Identity, StartRefused
from .topics import NewTopic, TopicDefaults

__all__ = [
    "ConfigRules",
    "Controller",
    "Identity",
    "NewTopic",
    "Recovered",
    "StartRefused",
    "TopicDefaults",
    "over_network",
]
