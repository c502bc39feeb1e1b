"""CloudWatch Logs, where MiniStack is laxer."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable
from typing import Any

from .registry import Answer, AwsFailure, Call, Proceed, World, behaviour

# Seconds. Two changes of a log group that come within this time are concurrent.
CHANGE_SECONDS = 0.03
# Seconds after the creation of a log group before its size is told.
SIZE_SECONDS = 600.0
RETENTION_DAYS = 30
RETENTION_POLICY = "account-retention"
MOST_TAGS = 50

Json = dict[str, Any]


def with_groups(answer: Answer, change: Callable[[Json], Json]) -> Answer | None:
    """Returns the answer of DescribeLogGroups with changed groups, or None if nothing changes.

    The JSON is changed as it is, since botocore's model lacks a member.
    """
    result = json.loads(answer.body)
    groups = [change(group) for group in result.get("logGroups") or []]
    if groups == result.get("logGroups"):
        return None
    headers = {key: value for key, value in answer.headers.items() if key.lower() != "content-length"}
    return Answer(answer.status, headers, json.dumps({**result, "logGroups": groups}).encode())


@behaviour(
    service="logs",
    operations=["DescribeLogGroups"],
    source="CloudWatch Logs API model, LogGroup (retentionPolicyName, retentionInDays)",
    certainty="certain",
    optional=True,
)
async def account_log_retention_wins(call: Call, proceed: Proceed, world: World) -> Answer:
    """A retention policy of the account wins over the log group's; DescribeLogGroups names it."""
    answer = await proceed(call)
    days = int(world.state(call.account).settings.get("log_retention_days", RETENTION_DAYS))

    def inherited(group: Json) -> Json:
        own = {key: value for key, value in group.items() if key != "retentionInDays"}
        # A policy under which events never expire shows no days.
        return {**own, **({"retentionInDays": days} if days else {}), "retentionPolicyName": RETENTION_POLICY}

    changed = with_groups(answer, inherited) if answer.ok else None
    if changed is None:
        return answer
    world.fired(call, account_log_retention_wins)
    return changed


@behaviour(
    service="logs",
    operations=["DescribeLogGroups"],
    source="CloudWatch Logs API model, LogGroup (storedBytes)",
    certainty="likely",
)
async def stored_bytes_are_late(call: Call, proceed: Proceed, world: World) -> Answer:
    """The size of a young log group is told late, as 0 bytes."""
    answer = await proceed(call)
    youngest = (time.time() - SIZE_SECONDS) * 1000

    def early(group: Json) -> Json:
        young = group.get("creationTime", 0) > youngest and group.get("storedBytes")
        return {**group, "storedBytes": 0} if young else group

    changed = with_groups(answer, early) if answer.ok else None
    if changed is None:
        return answer
    world.fired(call, stored_bytes_are_late)
    return changed


@behaviour(
    service="logs",
    operations=["CreateLogGroup", "DeleteLogGroup", "PutRetentionPolicy", "DeleteRetentionPolicy"],
    source="CloudWatch Logs API model, OperationAbortedException",
    certainty="certain",
)
async def concurrent_changes_of_a_log_group_abort(call: Call, proceed: Proceed, world: World) -> Answer:
    """Of concurrent changes of a log group, one is done and the others are aborted."""
    busy = world.state(call.account).memory.setdefault("concurrent_changes_of_a_log_group_abort", set())
    key = (call.region, call.params["logGroupName"])
    if key in busy:
        world.fired(call, concurrent_changes_of_a_log_group_abort)
        why = "A conflicting operation is currently in progress against this resource. Please try again."
        return Answer.error(call, 400, "OperationAbortedException", why)
    busy.add(key)
    try:
        await asyncio.sleep(CHANGE_SECONDS)
        return await proceed(call)
    finally:
        busy.discard(key)


@behaviour(
    service="logs",
    operations=["TagResource"],
    source="CloudWatch Logs API model, TooManyTagsException",
    certainty="certain",
)
async def at_most_50_tags(call: Call, proceed: Proceed, world: World) -> Answer:
    """A resource has at most 50 tags, those that it has already included."""
    arn = call.params["resourceArn"]
    try:
        live = await world.send(call.account, "logs", "ListTagsForResource", {"resourceArn": arn}, call.region)
    except AwsFailure:
        return await proceed(call)
    tags = {*(live.get("tags") or {}), *call.params["tags"]}
    if len({tag for tag in tags if not tag.startswith("aws:")}) <= MOST_TAGS:
        return await proceed(call)
    world.fired(call, at_most_50_tags)
    why = f"A resource can have no more than {MOST_TAGS} tags."
    return Answer.error(call, 400, "TooManyTagsException", why, resourceName=arn)
