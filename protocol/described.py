"""Message classes of the schemas in `protocol.schemas`, on kafka-python's machinery."""

from __future__ import annotations

import protocol.kafka_package  # noqa: F401  # isort: skip  # before kafka

from kafka.protocol.api_message import ApiMessage

_HERE = "protocol.schemas"


class UnregisterBrokerRequest(ApiMessage, load_json=_HERE):  # type: ignore[misc,call-arg]
    pass


class UnregisterBrokerResponse(ApiMessage, load_json=_HERE):  # type: ignore[misc,call-arg]
    pass
