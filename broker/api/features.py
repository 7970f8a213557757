"""UpdateFeatures (57, served 0-2). Source: KIP-584, KIP-1022."""

from __future__ import annotations

from typing import Any

from broker.leadership import NO_NODE
from broker.request_context import RequestContext
from protocol.errors import ErrorCode
from protocol.messages import UpdateFeaturesResponse
from s3stream.metadata.features import HEADWATER_VERSION, level_of
from s3stream.metadata.image import MetadataImage

from .api_versions import SUPPORTED_FEATURES

_UPGRADE, _SAFE_DOWNGRADE, _UNSAFE_DOWNGRADE = 1, 2, 3


async def update_features(ctx: RequestContext, request: Any, version: int) -> Any:
    """Raise or lower feature levels, within what is supported; all of them, or none."""
    if request.feature_updates:
        # Judged by what there is now, not by what has come here by now.
        await ctx.services.controller.cancel_moves(())
    updates: dict[str, int] = {}
    for update in request.feature_updates:
        name, level = update.feature, update.max_version_level
        if version == 0:
            way = _SAFE_DOWNGRADE if update.allow_downgrade else _UPGRADE
        else:
            way = update.upgrade_type
        reason = _feature_error(ctx, name, level, way)
        if reason is not None:
            return UpdateFeaturesResponse(
                error_code=int(ErrorCode.INVALID_UPDATE_VERSION),
                error_message=(
                    "The update failed for all features since the following feature had an error: "
                    f"Invalid update version {level} for feature {name}. {reason}"
                ),
                results=[],
                version=version,
            )
        updates[name] = level
    if not (version >= 1 and request.validate_only):
        for name, level in updates.items():
            await ctx.services.controller.set_feature_level(name, level)
    response = UpdateFeaturesResponse(error_code=0, error_message=None, version=version)
    if version <= 1:
        response.results = [
            UpdateFeaturesResponse.UpdatableFeatureResult(
                feature=name, error_code=0, error_message=None, version=version
            )
            for name in updates
        ]
    return response


def _feature_error(ctx: RequestContext, name: str, level: int, way: int) -> str | None:
    if way not in (_UPGRADE, _SAFE_DOWNGRADE, _UNSAFE_DOWNGRADE):
        return "The controller does not support the given upgrade type."
    if level < 0:
        return "A feature version cannot be less than 0."
    supported = SUPPORTED_FEATURES.get(name)
    if supported is None:
        if level == 0:
            return f"Feature {name} not found."
        holder = ctx.services.image.holder
        node_id = NO_NODE if holder is None else holder.node_id
        return f"Local controller {node_id} does not support this feature."
    if not (level == 0 or supported[0] <= level <= supported[1]):
        return f"Local controller only supports versions {supported[0]}-{supported[1]}"
    if name == HEADWATER_VERSION:
        return _level_error(ctx.services.image, level)
    return None


def _level_error(image: MetadataImage, level: int) -> str | None:
    """What was written at a level stays, so it never goes back; and all brokers must read it."""
    if level < level_of(image):
        return f"The level is {level_of(image)} and cannot be lowered."
    behind = [broker.node_id for broker in image.live_brokers() if broker.level < level]
    if behind:
        return f"Brokers {behind} do not support it; start a newer version of them first."
    return None
