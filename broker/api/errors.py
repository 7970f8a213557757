"""The answer of an API to an error that concerns the whole request.

Kafka gives each request class a `getErrorResponse`; most answers have one top-level code, and the
rest repeat it for every element, which the handlers here do themselves.
"""

from __future__ import annotations

from typing import Any

from protocol import codec
from protocol.api_versions import ApiKey
from protocol.errors import KafkaError


def error_response(api_key: int, version: int, error: KafkaError) -> Any | None:
    """A response message with the error at its top; None where the API has no such place."""
    if api_key in (ApiKey.PRODUCE, ApiKey.FETCH):
        return None
    response_class = codec.response_class(api_key)
    fields = response_class.fields
    top = fields.get("error_code")
    if top is None or not top.for_version_q(version):
        return None
    response = response_class(version=version)
    response.error_code = int(error.code)
    message = fields.get("error_message")
    if message is not None and message.for_version_q(version):
        response.error_message = error.message
    return response
