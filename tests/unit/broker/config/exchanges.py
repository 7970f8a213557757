"""A scripted request about configurations, and its answer in a form that can be compared."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from kafka.protocol.admin import (
    AlterConfigsRequest,
    AlterConfigsResponse,
    DescribeConfigsRequest,
    DescribeConfigsResponse,
    IncrementalAlterConfigsRequest,
    IncrementalAlterConfigsResponse,
    ListConfigResourcesRequest,
    ListConfigResourcesResponse,
)

NEWEST = {"describe": 4, "alter": 2, "incremental": 1, "list": 1}


@dataclass(frozen=True)
class Ask:
    """resources: [type, name, keys or entries] each; for `list` the types themselves."""

    api: str
    resources: list[Any]
    validate_only: bool = False
    version: int | None = None

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def build_request(ask: Ask) -> tuple[Any, Any, int]:
    """The request, the class of its response and the version to send it in."""
    version = NEWEST[ask.api] if ask.version is None else ask.version
    if ask.api == "describe":
        describe = DescribeConfigsRequest.DescribeConfigsResource
        request: Any = DescribeConfigsRequest(
            resources=[
                describe(resource_type=kind, resource_name=name, configuration_keys=keys)
                for kind, name, keys in ask.resources
            ],
            include_synonyms=True,
            include_documentation=False,
        )
        return request, DescribeConfigsResponse, version
    if ask.api == "alter":
        alter = AlterConfigsRequest.AlterConfigsResource
        request = AlterConfigsRequest(
            resources=[
                alter(
                    resource_type=kind,
                    resource_name=name,
                    configs=[alter.AlterableConfig(name=k, value=v) for k, v in entries],
                )
                for kind, name, entries in ask.resources
            ],
            validate_only=ask.validate_only,
        )
        return request, AlterConfigsResponse, version
    if ask.api == "incremental":
        change = IncrementalAlterConfigsRequest.AlterConfigsResource
        request = IncrementalAlterConfigsRequest(
            resources=[
                change(
                    resource_type=kind,
                    resource_name=name,
                    configs=[
                        change.AlterableConfig(name=k, config_operation=o, value=v)
                        for k, o, v in entries
                    ],
                )
                for kind, name, entries in ask.resources
            ],
            validate_only=ask.validate_only,
        )
        return request, IncrementalAlterConfigsResponse, version
    request = ListConfigResourcesRequest(resource_types=list(ask.resources))
    return request, ListConfigResourcesResponse, version


def config_row(row: Any) -> dict[str, Any]:
    return {
        "name": row.name,
        "value": row.value,
        "read_only": row.read_only,
        "source": row.config_source,
        "sensitive": row.is_sensitive,
        "type": row.config_type,
        "synonyms": [[s.name, s.value, s.source] for s in row.synonyms],
    }


def answer_rows(ask: Ask, response: Any) -> list[Any]:
    """What the answer says; the order of configurations and of listed resources is left out."""
    if ask.api == "describe":
        return [
            [
                result.error_code,
                result.error_message,
                result.resource_type,
                result.resource_name,
                sorted((config_row(r) for r in result.configs), key=lambda row: str(row["name"])),
            ]
            for result in response.results
        ]
    if ask.api == "list":
        listed = sorted([r.resource_type or 0, r.resource_name] for r in response.config_resources)
        return [response.error_code, listed]
    return [
        [r.error_code, r.error_message, r.resource_type, r.resource_name]
        for r in response.responses
    ]
