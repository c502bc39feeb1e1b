"""Application Auto Scaling, which MiniStack lacks: the targets are kept here, and nothing is scaled."""

from __future__ import annotations

import time
from typing import Any

from .registry import Answer, AwsFailure, Call, Proceed, World, behaviour

Json = dict[str, Any]
ROLE = "role/aws-service-role/dynamodb.application-autoscaling.amazonaws.com/AWSServiceRoleForApplicationAutoScaling"
IDENTITY = ("ServiceNamespace", "ResourceId", "ScalableDimension")


@behaviour(
    service="application-autoscaling",
    operations=["RegisterScalableTarget", "DeregisterScalableTarget", "DescribeScalableTargets"],
    source="Application Auto Scaling API model",
    certainty="certain",
)
async def scalable_targets_are_kept(call: Call, proceed: Proceed, world: World) -> Answer:
    """Tables and indexes can be registered as targets of auto scaling, which then changes their units."""
    memory = world.state(call.account).memory.setdefault("scalable_targets_are_kept", {})
    targets: dict[tuple[str, ...], Json] = memory.setdefault(call.region, {})
    world.fired(call, scalable_targets_are_kept)
    if call.operation == "DescribeScalableTargets":
        return Answer.of(call, {"ScalableTargets": [target for target in targets.values() if matches(call, target)]})
    identity = tuple(call.params[member] for member in IDENTITY)
    if call.operation == "DeregisterScalableTarget":
        if targets.pop(identity, None) is None:
            why = f"No scalable target found for service namespace: {', '.join(identity)}"
            return Answer.error(call, 400, "ObjectNotFoundException", why)
        return Answer.of(call, {})
    if identity[0] == "dynamodb" and not await table_exists(call, world, identity[1]):
        return Answer.error(call, 400, "ValidationException", f"DynamoDB table does not exist: {identity[1]}")
    if identity not in targets and not {"MinCapacity", "MaxCapacity"} <= call.params.keys():
        why = "You must specify MinCapacity and MaxCapacity to register a new scalable target."
        return Answer.error(call, 400, "ValidationException", why)
    targets[identity] = {**new_target(call), **targets.get(identity, {}), **kept(call.params)}
    return Answer.of(call, {"ScalableTargetARN": targets[identity]["ScalableTargetARN"]})


def matches(call: Call, target: Json) -> bool:
    """Returns whether the target is one of those that are asked for."""
    wanted = call.params.get("ResourceIds")
    return (
        target["ServiceNamespace"] == call.params["ServiceNamespace"]
        and (not wanted or target["ResourceId"] in wanted)
        and call.params.get("ScalableDimension") in (None, target["ScalableDimension"])
    )


async def table_exists(call: Call, world: World, resource: str) -> bool:
    """Returns whether the table of a resource id (`table/NAME`, `table/NAME/index/NAME`) exists."""
    name = resource.split("/")[1] if resource.startswith("table/") else ""
    try:
        await world.send(call.account, "dynamodb", "DescribeTable", {"TableName": name}, call.region)
    except AwsFailure:
        return False
    return True


def new_target(call: Call) -> Json:
    """Returns the members of a target that the registration leaves open."""
    number = f"{time.time_ns():024x}"[-24:]
    return {
        "ScalableTargetARN": f"arn:aws:application-autoscaling:{call.region}:{call.account}:scalable-target/{number}",
        "RoleARN": f"arn:aws:iam::{call.account}:{ROLE}_DynamoDBTable",
        "CreationTime": time.time(),
    }


def kept(params: Json) -> Json:
    """Returns the members of a registration that its target shows."""
    return {key: value for key, value in params.items() if key != "Tags"}
