"""CloudWatch alarms and SNS topics, where MiniStack is laxer."""

from __future__ import annotations

from typing import Any

from .registry import Answer, AwsFailure, Call, Proceed, World, behaviour
from .tagging import as_map, with_resources

# The members of DescribeAlarms that a metric has, and an expression has not.
SINGLE = ("MetricName", "Namespace", "Dimensions", "Statistic", "ExtendedStatistic", "Period", "Unit")
PENDING = "PendingConfirmation"

Json = dict[str, Any]


def memory_of(call: Call, world: World, name: str) -> Json:
    """Returns the memory of a behaviour for the region."""
    return world.state(call.account).memory.setdefault(name, {}).setdefault(call.region, {})


@behaviour(
    service="cloudwatch",
    operations=["PutMetricAlarm", "DescribeAlarms", "DeleteAlarms"],
    source="CloudWatch API model, PutMetricAlarm and MetricAlarm (Metrics)",
    certainty="certain",
)
async def alarms_on_expressions_have_metrics(call: Call, proceed: Proceed, world: World) -> Answer:
    """An alarm on an expression has the metrics of that expression, and none of its own."""
    known = memory_of(call, world, "alarms_on_expressions_have_metrics")
    answer = await proceed(call)
    if not answer.ok:
        return answer
    if call.operation == "PutMetricAlarm":
        known[call.params["AlarmName"]] = call.params.get("Metrics")
        return answer
    if call.operation == "DeleteAlarms":
        for name in call.params["AlarmNames"]:
            known.pop(name, None)
        return answer
    result = answer.parsed(call)
    alarms = result.get("MetricAlarms") or []
    if not any(known.get(alarm["AlarmName"]) for alarm in alarms):
        return answer
    world.fired(call, alarms_on_expressions_have_metrics)
    return Answer.of(call, {**result, "MetricAlarms": [with_metrics(alarm, known) for alarm in alarms]})


def with_metrics(alarm: Json, known: Json) -> Json:
    """Returns the description of an alarm with the metrics of its expression, if it has one."""
    metrics = known.get(alarm["AlarmName"])
    if not metrics:
        return alarm
    return {**{key: value for key, value in alarm.items() if key not in SINGLE}, "Metrics": metrics}


@behaviour(
    service="resourcegroupstaggingapi",
    operations=["GetResources"],
    source="Resource Groups user guide, supported resources",
    certainty="certain",
)
async def get_resources_lists_alarms(call: Call, proceed: Proceed, world: World) -> Answer:
    """GetResources lists CloudWatch alarms, too."""
    answer = await proceed(call)
    result = answer.parsed(call) if answer.ok else {}
    if not answer.ok or result.get("PaginationToken"):
        return answer
    try:
        mappings = with_resources(call, result, await tagged_alarms(call, world))
    except AwsFailure:
        return answer
    if len(mappings) == len(result.get("ResourceTagMappingList") or []):
        return answer
    world.fired(call, get_resources_lists_alarms)
    return Answer.of(call, {"ResourceTagMappingList": mappings, "PaginationToken": ""})


async def tagged_alarms(call: Call, world: World) -> dict[str, dict[str, str]]:
    """Returns the tags of the region's alarms, by their ARNs."""
    found = {}
    for alarm in (await world.send(call.account, "cloudwatch", "DescribeAlarms", {}, call.region))["MetricAlarms"]:
        query = {"ResourceARN": alarm["AlarmArn"]}
        tags = await world.send(call.account, "cloudwatch", "ListTagsForResource", query, call.region)
        found[alarm["AlarmArn"]] = as_map(tags.get("Tags"))
    return found


@behaviour(
    service="sns",
    operations=["Subscribe", "ListSubscriptionsByTopic"],
    source="SNS API model, Subscribe; SNS developer guide, email notifications",
    certainty="certain",
)
async def addresses_confirm_their_subscription(call: Call, proceed: Proceed, world: World) -> Answer:
    """An address is subscribed once it has confirmed; until then its subscription has no ARN."""
    confirmed = world.state(call.account).settings.get("confirmed_addresses", [])
    answer = await proceed(call)
    if not answer.ok:
        return answer
    if call.operation == "Subscribe":
        if call.params["Protocol"] != "email" or call.params["Endpoint"] in confirmed:
            return answer
        world.fired(call, addresses_confirm_their_subscription)
        return Answer.of(call, {"SubscriptionArn": "pending confirmation"})

    def shown(subscription: Json) -> Json:
        is_pending = subscription["Protocol"] == "email" and subscription["Endpoint"] not in confirmed
        return {**subscription, "SubscriptionArn": PENDING} if is_pending else subscription

    result = answer.parsed(call)
    subscriptions = [shown(subscription) for subscription in result.get("Subscriptions") or []]
    if subscriptions == (result.get("Subscriptions") or []):
        return answer
    world.fired(call, addresses_confirm_their_subscription)
    return Answer.of(call, {**result, "Subscriptions": subscriptions})
