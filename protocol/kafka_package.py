"""kafka-python without its clients: import this before any `kafka.protocol`.

`import kafka` runs the package's `__init__`, which brings producers, consumers, metrics and SASL:
160 modules, 70 ms and 12 MB that a broker never uses. Here the package is known without having
run; whoever asks it for something that only `__init__` makes (`from kafka import KafkaProducer`)
runs it then.
"""

from __future__ import annotations

import sys
from importlib.machinery import ModuleSpec
from importlib.util import find_spec, module_from_spec
from types import ModuleType
from typing import Any


class _NotRun(ModuleType):
    """A package whose `__init__` runs at the first look for a name that it lacks."""

    def __getattr__(self, name: str) -> Any:
        # Import machinery and inspection look for dunders that are rightly absent.
        if name.startswith("__") and name not in ("__version__", "__all__"):
            raise AttributeError(name)
        self.__class__ = ModuleType  # type: ignore[assignment]  # once
        _loader(self.__spec__).exec_module(self)
        return getattr(self, name)


def _loader(spec: ModuleSpec | None) -> Any:
    assert spec is not None and spec.loader is not None, "kafka-python is installed"
    return spec.loader


def _know_package() -> None:
    if "kafka" in sys.modules:
        return  # somebody wanted its clients: they are here already
    spec = find_spec("kafka")
    assert spec is not None, "kafka-python is installed"
    package = module_from_spec(spec)
    package.__class__ = _NotRun
    sys.modules["kafka"] = package


_know_package()
