"""The Resource Groups Tagging API, where MiniStack's differs."""

from __future__ import annotations

from typing import Any

from .registry import Answer, AwsFailure, Call, Proceed, World, behaviour

# Seconds for which a deleted resource is still listed. On AWS it may be hours.
LISTED_SECONDS = 20.0

Json = dict[str, Any]


def as_map(tags: Any) -> dict[str, str]:
    """Returns tags as a map, from a map or from a list of keys and values."""
    return dict(tags or {}) if isinstance(tags, dict) else {tag["Key"]: tag["Value"] for tag in tags or []}


def name_in(text: str, before: str) -> str:
    """Returns the name in a name or an ARN: what comes after `before`, if that is in it."""
    return text.rsplit(before, 1)[-1]


def resource_of(call: Call) -> tuple[str, str, Json, str]:
    """Returns the ARN of the resource that a call deletes, and the call that lists its tags, with the member."""
    service, params, at = call.service, call.params, f"{call.region}:{call.account}"
    if service == "dynamodb":
        arn = f"arn:aws:dynamodb:{at}:table/{name_in(params['TableName'], ':table/')}"
        return arn, "ListTagsOfResource", {"ResourceArn": arn}, "Tags"
    if service == "lambda":
        arn = f"arn:aws:lambda:{at}:function:{name_in(params['FunctionName'], 'function:')}"
        return arn, "ListTags", {"Resource": arn}, "Tags"
    if service == "sqs":
        arn = f"arn:aws:sqs:{at}:{name_in(params['QueueUrl'], '/')}"
        return arn, "ListQueueTags", {"QueueUrl": params["QueueUrl"]}, "Tags"
    if service == "kinesis":
        name = params.get("StreamName") or name_in(params["StreamARN"], ":stream/")
        return f"arn:aws:kinesis:{at}:stream/{name}", "ListTagsForStream", {"StreamName": name}, "Tags"
    if service == "sns":
        return params["TopicArn"], "ListTagsForResource", {"ResourceArn": params["TopicArn"]}, "Tags"
    if service == "cloudwatch":
        arn = f"arn:aws:cloudwatch:{at}:alarm:{params['AlarmNames'][0]}"
        return arn, "ListTagsForResource", {"ResourceARN": arn}, "Tags"
    if service == "logs":
        arn = f"arn:aws:logs:{at}:log-group:{params['logGroupName']}"
        return arn, "ListTagsForResource", {"resourceArn": arn}, "tags"
    return f"arn:aws:s3:::{params['Bucket']}", "GetBucketTagging", {"Bucket": params["Bucket"]}, "TagSet"


def is_wanted(call: Call, arn: str, tags: dict[str, str]) -> bool:
    """Returns whether GetResources asks for a resource with these tags."""
    service, resource = arn.split(":")[2], arn.split(":", 5)[5]
    kinds = [wanted.partition(":") for wanted in call.params.get("ResourceTypeFilters") or []]
    if kinds and not any(kind == service and resource.startswith(prefix) for kind, _, prefix in kinds):
        return False
    if call.params.get("ResourceARNList") and arn not in call.params["ResourceARNList"]:
        return False
    for wanted in call.params.get("TagFilters") or []:
        if wanted.get("Key") not in tags or (wanted.get("Values") and tags[wanted["Key"]] not in wanted["Values"]):
            return False
    return bool(tags)


def with_resources(call: Call, result: Json, more: dict[str, dict[str, str]]) -> list[Json]:
    """Returns the resources of the last page and further ones, as far as they are asked for."""
    mappings = result.get("ResourceTagMappingList") or []
    listed = {mapping["ResourceARN"] for mapping in mappings}
    for arn, tags in more.items():
        if arn not in listed and is_wanted(call, arn, tags):
            pairs = [{"Key": key, "Value": value} for key, value in tags.items()]
            mappings = [*mappings, {"ResourceARN": arn, "Tags": pairs}]
    return mappings


@behaviour(
    service="resourcegroupstaggingapi",
    operations=["GetResources"],
    source="Resource Groups user guide, supported resources; moto#6734",
    certainty="certain",
)
async def get_resources_lists_log_groups(call: Call, proceed: Proceed, world: World) -> Answer:
    """GetResources lists log groups, too."""
    answer = await proceed(call)
    result = answer.parsed(call) if answer.ok else {}
    if not answer.ok or result.get("PaginationToken"):
        return answer
    try:
        groups = await log_groups(call, world)
    except AwsFailure:
        return answer
    mappings = with_resources(call, result, groups)
    if len(mappings) == len(result.get("ResourceTagMappingList") or []):
        return answer
    world.fired(call, get_resources_lists_log_groups)
    return Answer.of(call, {"ResourceTagMappingList": mappings, "PaginationToken": ""})


async def log_groups(call: Call, world: World) -> dict[str, dict[str, str]]:
    """Returns the tags of the region's log groups, by their ARNs."""
    found: dict[str, dict[str, str]] = {}
    token: Json = {}
    while True:
        page = await world.send(call.account, "logs", "DescribeLogGroups", token, call.region)
        for group in page.get("logGroups") or []:
            arn = group["arn"].removesuffix(":*")
            answer = await world.send(call.account, "logs", "ListTagsForResource", {"resourceArn": arn}, call.region)
            found[arn] = answer.get("tags") or {}
        if not page.get("nextToken"):
            return found
        token = {"nextToken": page["nextToken"]}


DELETED = "Resource Groups Tagging API model, GetResources (previously tagged resources)"


@behaviour(service="resourcegroupstaggingapi", operations=["GetResources"], source=DELETED, certainty="certain")
@behaviour(service="dynamodb", operations=["DeleteTable"], source=DELETED, certainty="certain")
@behaviour(service="lambda", operations=["DeleteFunction"], source=DELETED, certainty="certain")
@behaviour(service="sqs", operations=["DeleteQueue"], source=DELETED, certainty="certain")
@behaviour(service="kinesis", operations=["DeleteStream"], source=DELETED, certainty="certain")
@behaviour(service="sns", operations=["DeleteTopic"], source=DELETED, certainty="certain")
@behaviour(service="cloudwatch", operations=["DeleteAlarms"], source=DELETED, certainty="certain")
@behaviour(service="logs", operations=["DeleteLogGroup"], source=DELETED, certainty="certain")
@behaviour(service="s3", operations=["DeleteBucket"], source=DELETED, certainty="certain")
async def get_resources_lists_deleted_resources(call: Call, proceed: Proceed, world: World) -> Answer:
    """GetResources lists deleted resources for a while, with their last tags."""
    deleted = world.state(call.account).memory.setdefault("get_resources_lists_deleted_resources", {})
    if call.service != "resourcegroupstaggingapi":
        arn, operation, query, member = resource_of(call)
        try:
            tags = (await world.send(call.account, call.service, operation, query, call.region)).get(member)
        except AwsFailure:
            tags = None
        answer = await proceed(call)
        if answer.ok and tags:
            deleted[arn] = (world.now(), call.region, as_map(tags))
        return answer
    answer = await proceed(call)
    result = answer.parsed(call) if answer.ok else {}
    if not answer.ok or result.get("PaginationToken"):
        return answer
    recent = {
        arn: tags
        for arn, (when, region, tags) in deleted.items()
        if world.now() - when < LISTED_SECONDS and region == call.region
    }
    mappings = with_resources(call, result, recent)
    if len(mappings) == len(result.get("ResourceTagMappingList") or []):
        return answer
    world.fired(call, get_resources_lists_deleted_resources)
    return Answer.of(call, {"ResourceTagMappingList": mappings, "PaginationToken": ""})
