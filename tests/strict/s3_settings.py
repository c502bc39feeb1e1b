"""The behaviours of Amazon S3: tags, lifecycle rules, versioning and policies of buckets."""

from __future__ import annotations

import json
import re
import unicodedata
from typing import Any

from . import models, policies
from .registry import ACCOUNT, Answer, AwsFailure, Call, Proceed, World, behaviour
from .s3_state import MALFORMED, bucket_of, exists, forgetting, listed, memory, owns

MAX_TAGS = 50
NO_METHOD = "The specified method is not allowed against this resource."
# The pattern has a region, which the ARNs of general purpose buckets lack (S3 control API model, TagResource).
models.EXCEPTIONS["s3control", "S3ResourceArn", "pattern"] = "ARNs of general purpose buckets have no region"


# Tags

def _tag_fault(tags: list[dict[str, str]]) -> str | None:
    keys = [tag["Key"] for tag in tags]
    if len(set(keys)) < len(keys):
        return "Cannot provide multiple Tags with the same key"
    if any(key.lower().startswith("aws:") for key in keys):
        return "System tags cannot be added/updated by requester"
    for tag in tags:
        for part, most in (("Key", 128), ("Value", 256)):
            text = tag[part]
            allowed = all(unicodedata.category(char)[0] in "LNZ" or char in "_.:/=+-@" for char in text)
            if len(text) > most or not allowed or (part == "Key" and not text):
                return f"The Tag{part} you have provided is invalid"
    return None


@behaviour(
    service="s3control",
    operations=["TagResource"],
    source="S3 control API model, Tag: length and pattern; S3 user guide, tagging",
    certainty="certain",
)
@behaviour(
    service="s3",
    operations=["PutBucketTagging", "CreateBucket"],
    source="S3 API reference, PutBucketTagging: InvalidTag; S3 user guide, using cost allocation S3 bucket tags",
    certainty="certain",
)
async def bucket_tags_are_checked(call: Call, proceed: Proceed, world: World) -> Answer:
    """Tags with equal keys, system keys, characters that tags cannot have or too long parts answer InvalidTag."""
    params = call.params
    tags = params.get("Tags") or params.get("Tagging", {}).get("TagSet") or []
    tags = tags or params.get("CreateBucketConfiguration", {}).get("Tags") or []
    fault = _tag_fault(tags)
    if fault is None:
        return await proceed(call)
    world.fired(call, bucket_tags_are_checked)
    return Answer.error(call, 400, "InvalidTag", fault)


async def _tags(world: World, call: Call) -> dict[str, str]:
    try:
        answer = await world.send(call.account, "s3", "GetBucketTagging", {"Bucket": bucket_of(call)}, call.region)
    except AwsFailure as failure:
        if failure.code == "NoSuchTagSet":
            return {}
        raise
    return {tag["Key"]: tag["Value"] for tag in answer["TagSet"]}


@behaviour(
    service="s3control",
    operations=["TagResource", "UntagResource", "ListTagsForResource"],
    source="terraform-provider-aws#46054",
    certainty="seen",
    optional=True,
)
async def control_api_tags_no_buckets(call: Call, proceed: Proceed, world: World) -> Answer:
    """The control API cannot tag buckets, as in the European Sovereign Cloud and in S3-compatible servers."""
    world.fired(call, control_api_tags_no_buckets)
    return Answer.error(call, 405, "MethodNotAllowed", NO_METHOD)


@behaviour(
    service="s3control",
    operations=["TagResource", "UntagResource", "ListTagsForResource"],
    source="S3 control API model, TagResource",
    certainty="certain",
)
async def control_api_tags_the_own_buckets(call: Call, proceed: Proceed, world: World) -> Answer:
    """The control API tags existing buckets of the caller's account, with up to 50 tags."""
    bucket = bucket_of(call)
    if call.params.get("AccountId") != call.account:
        world.fired(call, control_api_tags_the_own_buckets)
        return Answer.error(call, 403, "AccessDenied", "Access Denied")
    if not await owns(world, call.account, bucket):
        world.fired(call, control_api_tags_the_own_buckets)
        found = await exists(world, call, bucket)
        refusal = (403, "AccessDenied", "Access Denied")
        missing = (404, "NoSuchBucket", "The specified bucket does not exist")
        return Answer.error(call, *(refusal if found else missing))
    tags = await _tags(world, call)
    if call.operation == "ListTagsForResource":
        # MiniStack's own answer is no XML when a value has a special character.
        return Answer.of(call, {"Tags": [{"Key": key, "Value": value} for key, value in tags.items()]})
    added = {tag["Key"] for tag in call.params.get("Tags", [])}
    if len(tags.keys() | added) > MAX_TAGS:
        world.fired(call, control_api_tags_the_own_buckets)
        return Answer.error(call, 400, "InvalidTag", "The number of tags exceeds the limit of 50 tags")
    return await proceed(call)


@behaviour(
    service="s3",
    operations=["PutBucketAbac", "GetBucketAbac", "PutBucketTagging", "DeleteBucketTagging", "DeleteBucket"],
    source="S3 API model, PutBucketAbac and PutBucketTagging; the code of the refusal is not documented",
    certainty="certain",
)
async def abac_buckets_refuse_put_bucket_tagging(call: Call, proceed: Proceed, world: World) -> Answer:
    """Buckets with attribute-based access control refuse PutBucketTagging; TagResource tags them.

    Setting `abac_refusal`: [status, code] of the refusal. MiniStack does not know PutBucketAbac.
    """
    states, bucket = memory(world, call.account, "abac"), bucket_of(call)
    if call.operation == "DeleteBucket":
        return await forgetting(call, proceed, world)
    if call.operation.endswith("BucketTagging"):
        if states.get(bucket) != "Enabled":
            return await proceed(call)
        world.fired(call, abac_buckets_refuse_put_bucket_tagging)
        status, code = world.state(call.account).settings.get("abac_refusal", (405, "MethodNotAllowed"))
        return Answer.error(call, status, code, NO_METHOD)
    if not await owns(world, call.account, bucket):
        return Answer.error(call, 404, "NoSuchBucket", "The specified bucket does not exist", BucketName=bucket)
    if call.operation == "GetBucketAbac":
        return Answer.of(call, {"AbacStatus": {"Status": states.get(bucket, "Disabled")}})
    states[bucket] = call.params["AbacStatus"].get("Status", "Disabled")
    return Answer.of(call, {})


# Settings

def _lifecycle_fault(rules: list[dict[str, Any]]) -> tuple[str, str] | None:
    for rule in rules:
        if "Filter" not in rule and "Prefix" not in rule or len(rule.get("Filter", {})) > 1:
            return "MalformedXML", MALFORMED
    if not any("Prefix" in rule for rule in rules) or not any("Filter" in rule for rule in rules):
        return None
    if "Prefix" in rules[0]:
        return "InvalidRequest", "Filter element can only be used in Lifecycle V2."
    text = "Base level prefix cannot be used in Lifecycle V2, prefixes are only supported in the Filter."
    return "InvalidRequest", text


@behaviour(
    service="s3",
    operations=[
        "PutBucketLifecycleConfiguration", "GetBucketLifecycleConfiguration", "DeleteBucketLifecycle", "DeleteBucket",
    ],  # fmt: skip
    source="S3 API model, LifecycleRule; noobaa-core#8426, aws-sdk-ruby#1653, terraform-provider-aws#23299",
    certainty="seen",
)
async def lifecycle_rule_forms_do_not_mix(call: Call, proceed: Proceed, world: World) -> Answer:
    """Lifecycle rules with Prefix and rules with Filter are not accepted together, and a rule has one of the two.

    MiniStack loses the Prefix of a rule of the old form and the minimum size; they are kept here.
    """
    kept, bucket = memory(world, call.account, "lifecycle"), bucket_of(call)
    if call.operation == "DeleteBucket":
        return await forgetting(call, proceed, world)
    if call.operation == "DeleteBucketLifecycle":
        answer = await proceed(call)
        if answer.ok:
            kept.pop(bucket, None)
        return answer
    if call.operation == "GetBucketLifecycleConfiguration":
        answer = await proceed(call)
        if not answer.ok or bucket not in kept:
            return answer
        return Answer.of(call, {**answer.parsed(call), **kept[bucket]})
    rules = call.params.get("LifecycleConfiguration", {}).get("Rules", [])
    fault = _lifecycle_fault(rules)
    if fault is not None:
        world.fired(call, lifecycle_rule_forms_do_not_mix)
        return Answer.error(call, 400, *fault)
    size = call.params.get("TransitionDefaultMinimumObjectSize", "all_storage_classes_128K")
    answer = await proceed(call)
    if answer.ok:
        old = {"Rules": rules} if any("Prefix" in rule for rule in rules) else {}
        kept[bucket] = {"TransitionDefaultMinimumObjectSize": size, **old}
        answer.headers["x-amz-transition-default-minimum-object-size"] = size
    return answer


@behaviour(
    service="s3",
    operations=["PutBucketVersioning"],
    source="S3 user guide, Object Lock considerations",
    certainty="certain",
)
async def object_lock_keeps_versioning(call: Call, proceed: Proceed, world: World) -> Answer:
    """Versioning cannot be suspended on a bucket with Object Lock."""
    if call.params.get("VersioningConfiguration", {}).get("Status") != "Suspended":
        return await proceed(call)
    try:
        await world.send(
            call.account, "s3", "GetObjectLockConfiguration", {"Bucket": bucket_of(call)}, call.region
        )
    except AwsFailure:
        return await proceed(call)
    world.fired(call, object_lock_keeps_versioning)
    text = "An Object Lock configuration is present on this bucket, so the versioning state cannot be changed."
    return Answer.error(call, 409, "InvalidBucketState", text)


PRINCIPAL = re.compile(r"arn:[^:]+:iam::([0-9]{12}):(root|role/.+|user/.+)")


async def _principal_exists(world: World, principal: str) -> bool:
    if principal == "*" or ACCOUNT.fullmatch(principal) or re.match(r"arn:[^:]+:sts::[0-9]{12}:.", principal):
        return True
    parsed = PRINCIPAL.fullmatch(principal)
    if parsed is None:
        return False
    account, kind, name = parsed[1], parsed[2].partition("/")[0], parsed[2].rpartition("/")[2]
    if kind == "root":
        return True
    member = kind.capitalize()
    try:
        found = await world.send(account, "iam", f"Get{member}", {f"{member}Name": name})
    except AwsFailure:
        return False
    return found[member]["Arn"] == principal


async def _policy_fault(world: World, call: Call, text: str) -> str | None:
    try:
        document = json.loads(text)
        statements = listed(document["Statement"])
    except (ValueError, KeyError, TypeError):
        return "Policies must be valid JSON and the first byte must be '{'"
    bucket = bucket_of(call)
    for statement in statements:
        principals = statement.get("Principal", statement.get("NotPrincipal"))
        if principals is None:
            return "Missing required field Principal"
        names = listed(principals.get("AWS")) if isinstance(principals, dict) else listed(principals)
        for name in names:
            if not await _principal_exists(world, name):
                return "Invalid principal in policy"
        if not all(action == "*" or action.lower().startswith("s3:") for action in listed(statement.get("Action"))):
            return "Policy has invalid action"
        for resource in listed(statement.get("Resource")):
            name = re.sub(r"^arn:[^:]+:s3:::", "", resource).partition("/")[0]
            if name == resource or not policies.matches(name, bucket):
                return "Policy has invalid resource"
    return None


@behaviour(
    service="s3",
    operations=["PutBucketPolicy"],
    source="S3 API reference, error responses: MalformedPolicy; knowledge center, invalid principal in policy",
    certainty="certain",
)
async def bucket_policies_are_checked(call: Call, proceed: Proceed, world: World) -> Answer:
    """A bucket policy with a missing principal, a foreign resource or an action of another service is malformed."""
    fault = await _policy_fault(world, call, call.params.get("Policy", ""))
    if fault is None:
        return await proceed(call)
    world.fired(call, bucket_policies_are_checked)
    return Answer.error(call, 400, "MalformedPolicy", fault)
