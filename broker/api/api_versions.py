"""ApiVersions (key 18), served 0-4.

A version that is not served is answered in version 0 with UNSUPPORTED_VERSION and the versions of
this one API (KIP-511). v3: the client's software, checked as Kafka checks it; features as tags.
"""

from __future__ import annotations

import re
from typing import Any

from broker.request_context import RequestContext
from protocol.api_versions import SERVED, ApiKey
from protocol.errors import ErrorCode
from protocol.messages import ApiVersionsResponse
from s3stream.metadata.features import FIRST_LEVEL, HEADWATER_VERSION, SUPPORTED_LEVEL

_SOFTWARE = re.compile(r"[a-zA-Z0-9](?:[a-zA-Z0-9\-.]*[a-zA-Z0-9])?")

# The features that tools ask for, with the levels at which what they promise is served here.
SUPPORTED_FEATURES: dict[str, tuple[int, int]] = {HEADWATER_VERSION: (FIRST_LEVEL, SUPPORTED_LEVEL)}


async def handle(ctx: RequestContext, request: Any | None, version: int) -> Any:
    """request: None where the client asked for a version that is not served."""
    error = ErrorCode.NONE
    if request is None:
        error = ErrorCode.UNSUPPORTED_VERSION
    elif version >= 3:
        software = request.client_software_name, request.client_software_version
        if not all(_SOFTWARE.fullmatch(part or "") for part in software):
            error = ErrorCode.INVALID_REQUEST
        else:
            ctx.connection.client_software = software
    keys = [
        ApiVersionsResponse.ApiVersion(
            api_key=int(key), min_version=low, max_version=high, version=version
        )
        for key, (low, high) in sorted(SERVED.items())
        if error is ErrorCode.NONE or (request is None and key is ApiKey.API_VERSIONS)
    ]
    response = ApiVersionsResponse(error_code=int(error), api_keys=keys, version=version)
    if version >= 3 and error is ErrorCode.NONE:
        image = ctx.services.image
        # Clients pass by what is older than they know, and sequences begin anew in each term.
        response.finalized_features_epoch = (image.term << 32) + image.position.seq
        response.tags = {"finalized_features_epoch"}
        if image.features:
            response.finalized_features = [
                ApiVersionsResponse.FinalizedFeatureKey(
                    name=name, max_version_level=level, min_version_level=level, version=version
                )
                for name, level in sorted(image.features.items())
            ]
            response.tags.add("finalized_features")
        if SUPPORTED_FEATURES:
            response.supported_features = [
                ApiVersionsResponse.SupportedFeatureKey(
                    name=name, min_version=low, max_version=high, version=version
                )
                for name, (low, high) in sorted(SUPPORTED_FEATURES.items())
            ]
            response.tags.add("supported_features")
    return response
