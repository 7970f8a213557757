"""The APIs of classic groups.

    JoinGroup 11       0-9  rebalance timeout 1, member id required 4, static members 5,
                            protocol type 7, reason 8, skip assignment 9
    Heartbeat 12       0-4  static members 3
    LeaveGroup 13      0-5  several members 3, reason 5
    SyncGroup 14       0-5  static members 3, protocol type and name (required) 5
    DescribeGroups 15  0-6  authorized operations 3, GROUP_ID_NOT_FOUND 6
    ListGroups 16      0-5  states 4, types 5
    DeleteGroups 42    0-2

Source: KIP-62, KIP-345, KIP-394, KIP-518, KIP-559, KIP-814, KIP-1043.
"""

from __future__ import annotations

from typing import Any

from broker.api.group_context import GroupContext
from broker.coordinator.messages import (
    DescribedGroup,
    JoinRequest,
    JoinResult,
    Leaving,
    SyncRequest,
    SyncResult,
)
from protocol.errors import ErrorCode, KafkaError
from protocol.messages import (
    DeleteGroupsResponse,
    DescribeGroupsResponse,
    HeartbeatResponse,
    JoinGroupResponse,
    LeaveGroupResponse,
    ListGroupsResponse,
    SyncGroupResponse,
)

# AclOperation codes: READ, DELETE, DESCRIBE, DESCRIBE_CONFIGS, ALTER_CONFIGS.
GROUP_OPERATIONS = frozenset({3, 6, 8, 10, 11})


async def join_group(ctx: GroupContext, request: Any, version: int) -> Any:
    result = await ctx.groups.join(
        JoinRequest(
            group_id=request.group_id,
            member_id=request.member_id,
            instance_id=request.group_instance_id if version >= 5 else None,
            client_id=ctx.client_id,
            client_host=ctx.client_host,
            session_timeout_ms=request.session_timeout_ms,
            rebalance_timeout_ms=(
                request.rebalance_timeout_ms if version >= 1 else request.session_timeout_ms
            ),
            protocol_type=request.protocol_type,
            protocols=tuple((p.name, bytes(p.metadata)) for p in request.protocols),
            reason=request.reason if version >= 8 else None,
            needs_member_id=version >= 4,
            may_skip_assignment=version >= 9,
        )
    )
    return _join_response(result, version)


def _join_response(result: JoinResult, version: int) -> Any:
    protocol_name = result.protocol_name
    if protocol_name is None and version < 7:
        protocol_name = ""
    return JoinGroupResponse(
        error_code=result.error,
        generation_id=result.generation,
        protocol_type=result.protocol_type,
        protocol_name=protocol_name,
        leader=result.leader or "",
        skip_assignment=result.skip_assignment,
        member_id=result.member_id,
        members=[
            JoinGroupResponse.JoinGroupResponseMember(
                member_id=member_id, group_instance_id=instance_id, metadata=metadata
            )
            for member_id, instance_id, metadata in result.members
        ],
    )


async def sync_group(ctx: GroupContext, request: Any, version: int) -> Any:
    if version >= 5 and (request.protocol_type is None or request.protocol_name is None):
        result = SyncResult(error=ErrorCode.INCONSISTENT_GROUP_PROTOCOL)
    else:
        result = await ctx.groups.sync(
            SyncRequest(
                group_id=request.group_id,
                generation=request.generation_id,
                member_id=request.member_id,
                instance_id=request.group_instance_id if version >= 3 else None,
                protocol_type=request.protocol_type if version >= 5 else None,
                protocol_name=request.protocol_name if version >= 5 else None,
                assignments=tuple((a.member_id, bytes(a.assignment)) for a in request.assignments),
            )
        )
    return SyncGroupResponse(
        error_code=result.error,
        protocol_type=result.protocol_type,
        protocol_name=result.protocol_name,
        assignment=result.assignment,
    )


async def heartbeat(ctx: GroupContext, request: Any, version: int) -> Any:
    instance_id = request.group_instance_id if version >= 3 else None
    error = ctx.groups.heartbeat(
        request.group_id, request.member_id, instance_id, request.generation_id
    )
    return HeartbeatResponse(error_code=error)


async def leave_group(ctx: GroupContext, request: Any, version: int) -> Any:
    if version < 3:
        leaving = [Leaving(request.member_id)]
    else:
        leaving = [
            Leaving(m.member_id, m.group_instance_id, m.reason if version >= 5 else None)
            for m in request.members
        ]
    try:
        errors = await ctx.groups.leave(request.group_id, leaving)
    except KafkaError as error:
        return LeaveGroupResponse(error_code=error.code, members=[])
    if version < 3:
        return LeaveGroupResponse(error_code=errors[0], members=[])
    return LeaveGroupResponse(
        error_code=ErrorCode.NONE,
        members=[
            LeaveGroupResponse.MemberResponse(
                member_id=member.member_id,
                group_instance_id=member.instance_id,
                error_code=error,
            )
            for member, error in zip(leaving, errors, strict=True)
        ],
    )


async def describe_groups(ctx: GroupContext, request: Any, version: int) -> Any:
    asked = version >= 3 and request.include_authorized_operations
    return DescribeGroupsResponse(
        groups=[
            _described(ctx.groups.describe(group_id), asked=asked, version=version)
            for group_id in request.groups
        ]
    )


def _described(group: DescribedGroup, *, asked: bool, version: int) -> Any:
    error, message = group.error, group.error_message
    if error == ErrorCode.GROUP_ID_NOT_FOUND and version < 6:
        # Before version 6 a missing group was a dead one, and no error.
        error, message = ErrorCode.NONE, None
    return DescribeGroupsResponse.DescribedGroup(
        error_code=error,
        error_message=message,
        group_id=group.group_id,
        group_state=group.state,
        protocol_type=group.protocol_type,
        protocol_data=group.protocol,
        members=[
            DescribeGroupsResponse.DescribedGroup.DescribedGroupMember(
                member_id=member.member_id,
                group_instance_id=member.instance_id,
                client_id=member.client_id,
                client_host=member.client_host,
                member_metadata=member.metadata,
                member_assignment=member.assignment,
            )
            for member in group.members
        ],
        authorized_operations=(
            set(GROUP_OPERATIONS) if asked and error == ErrorCode.NONE else None
        ),
    )


async def list_groups(ctx: GroupContext, request: Any, version: int) -> Any:
    states = request.states_filter if version >= 4 else []
    types = request.types_filter if version >= 5 else []
    try:
        listed = ctx.groups.list_groups(states, types)
    except KafkaError as error:
        return ListGroupsResponse(error_code=error.code, groups=[])
    return ListGroupsResponse(
        error_code=ErrorCode.NONE,
        groups=[
            ListGroupsResponse.ListedGroup(
                group_id=group.group_id,
                protocol_type=group.protocol_type,
                group_state=group.state,
                group_type="classic",
            )
            for group in listed
        ],
    )


async def delete_groups(ctx: GroupContext, request: Any, version: int) -> Any:
    results = []
    for group_id in dict.fromkeys(request.groups_names):
        error = ErrorCode.NONE
        try:
            await ctx.groups.delete_group(group_id)
        except KafkaError as refused:
            error = refused.code
        results.append(
            DeleteGroupsResponse.DeletableGroupResult(group_id=group_id, error_code=error)
        )
    return DeleteGroupsResponse(results=results)
