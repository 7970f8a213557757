"""The group coordinator: classic consumer groups and committed offsets, durable in a log."""

from broker.coordinator.config import OFFSETS_TOPIC, GroupConfig
from broker.coordinator.log import CoordinatorLog, LogRecord
from broker.coordinator.runtime import GroupCoordinator

__all__ = ["OFFSETS_TOPIC", "CoordinatorLog", "GroupConfig", "GroupCoordinator", "LogRecord"]
