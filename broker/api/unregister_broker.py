"""UnregisterBroker (64, served 0): a node that is gone for good is told of no more."""

from __future__ import annotations

from typing import Any

from broker.request_context import RequestContext
from protocol.messages import UnregisterBrokerResponse


async def handle(ctx: RequestContext, request: Any, version: int) -> Any:
    """What it led went to others when it was fenced, or still does."""
    await ctx.services.controller.unregister(request.broker_id)
    return UnregisterBrokerResponse(error_code=0, error_message=None, version=version)
