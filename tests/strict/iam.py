"""The behaviours of IAM, and those of other services that depend on the caller's permissions."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from .actions import function_arn, partition_of
from .authorization import caller_arn, simulate, user_allows
from .policies import document, statements
from .registry import Answer, AwsFailure, Call, Proceed, World, behaviour

# Tags of a role (IAM and STS quotas).
MAX_TAGS = 50
# Characters of all inline policies of a role, and of a managed policy, without white space (IAM and STS quotas).
ROLE_POLICY_CHARACTERS = 10_240
MANAGED_POLICY_CHARACTERS = 6_144


def _lower_keys(tags: list[Mapping[str, str]]) -> list[str]:
    return [tag["Key"].lower() for tag in tags]


@behaviour(
    service="iam",
    operations=["CreateRole", "TagRole"],
    source="IAM user guide, tags: case sensitivity",
    certainty="certain",
)
async def role_tag_keys_ignore_case(call: Call, proceed: Proceed, world: World) -> Answer:
    """Tag keys of a role that differ in case only are duplicates."""
    # A key that the role has in another case replaces that tag (IAM user guide), as MiniStack does.
    keys = _lower_keys(call.params.get("Tags", []))
    if len(keys) == len(set(keys)):
        return await proceed(call)
    world.fired(call, role_tag_keys_ignore_case)
    message = "Duplicate tag keys found. Please note that Tag keys are case insensitive."
    return Answer.error(call, 400, "InvalidInput", message)


@behaviour(service="iam", operations=["TagRole"], source="IAM and STS quotas", certainty="certain")
async def roles_have_at_most_50_tags(call: Call, proceed: Proceed, world: World) -> Answer:
    """A role has at most 50 tags, those that it already has included."""
    try:
        found = await world.send(call.account, "iam", "ListRoleTags", {"RoleName": call.params["RoleName"]})
    except AwsFailure:
        return await proceed(call)
    # A key in another case replaces the tag (IAM user guide, tags: case sensitivity).
    keys = {*_lower_keys(found.get("Tags", [])), *_lower_keys(call.params.get("Tags", []))}
    if len(keys) <= MAX_TAGS:
        return await proceed(call)
    world.fired(call, roles_have_at_most_50_tags)
    message = f"Cannot exceed quota for TagsPerRole: {MAX_TAGS}"
    return Answer.error(call, 409, "LimitExceeded", message)


def _policy_in(call: Call, member: str) -> dict[str, Any] | None:
    """Returns the policy of the request, or None if it is not JSON, which MiniStack refuses."""
    try:
        return document(call.params[member])
    except ValueError:
        return None


def _principals(policy: Mapping[str, Any]) -> list[str]:
    found: list[str] = []
    for statement in statements(policy):
        principal = statement.get("Principal", {})
        value = principal.get("AWS", []) if isinstance(principal, Mapping) else []
        found += [value] if isinstance(value, str) else value
    return found


def _foreign(arns: list[str], partition: str) -> str | None:
    """Returns the first ARN of another partition."""
    return next((arn for arn in arns if arn.startswith("arn:") and arn.split(":")[1] not in (partition, "*")), None)


@behaviour(
    service="iam",
    operations=["CreateRole", "UpdateAssumeRolePolicy"],
    source="DataDog/cloudformation-template#71",
    certainty="seen",
)
async def roles_of_other_partitions_are_unknown(call: Call, proceed: Proceed, world: World) -> Answer:
    """Trust policies cannot name principals of other partitions."""
    member = "AssumeRolePolicyDocument" if call.operation == "CreateRole" else "PolicyDocument"
    policy = _policy_in(call, member)
    foreign = policy and _foreign(_principals(policy), partition_of(call.region))
    if not foreign:
        return await proceed(call)
    world.fired(call, roles_of_other_partitions_are_unknown)
    message = f'Invalid principal in policy: "AWS":"{foreign}"'
    return Answer.error(call, 400, "MalformedPolicyDocument", message)


# MiniStack's own ARNs are all in the partition aws, so that an account elsewhere must ask for this.
@behaviour(
    service="iam",
    operations=["PutRolePolicy", "CreatePolicy", "CreatePolicyVersion"],
    source="aws/chalice#777, terraform-aws-iam#224",
    certainty="seen",
    optional=True,
)
async def policies_name_their_own_partition(call: Call, proceed: Proceed, world: World) -> Answer:
    """Policies cannot name resources of other partitions."""
    policy = _policy_in(call, "PolicyDocument")
    resources = [arn for statement in statements(policy or {}) for arn in _texts(statement.get("Resource", []))]
    partition = partition_of(call.region)
    foreign = _foreign(resources, partition)
    if foreign is None:
        return await proceed(call)
    world.fired(call, policies_name_their_own_partition)
    message = f'Partition "{foreign.split(":")[1]}" is not valid for resource "{foreign}".'
    return Answer.error(call, 400, "MalformedPolicyDocument", message)


def _texts(value: str | list[str]) -> list[str]:
    return [value] if isinstance(value, str) else value


def _characters(text: str) -> int:
    """Returns the size of a policy as IAM counts it: without white space."""
    return len("".join(text.split()))


@behaviour(
    service="iam",
    operations=["PutRolePolicy", "CreatePolicy", "CreatePolicyVersion"],
    source="IAM and STS quotas, character limits",
    certainty="certain",
)
async def policies_have_a_size_limit(call: Call, proceed: Proceed, world: World) -> Answer:
    """The inline policies of a role have 10,240 characters together, a managed policy 6,144, without white space."""
    text = call.params["PolicyDocument"]
    if call.operation != "PutRolePolicy":
        if _characters(text) <= MANAGED_POLICY_CHARACTERS:
            return await proceed(call)
        world.fired(call, policies_have_a_size_limit)
        message = f"Cannot exceed quota for PolicySize: {MANAGED_POLICY_CHARACTERS}"
        return Answer.error(call, 409, "LimitExceeded", message)
    role = call.params["RoleName"]
    if _characters(text) + await _other_characters(call, world) <= ROLE_POLICY_CHARACTERS:
        return await proceed(call)
    world.fired(call, policies_have_a_size_limit)
    message = f"Maximum policy size of {ROLE_POLICY_CHARACTERS} bytes exceeded for role {role}"
    return Answer.error(call, 409, "LimitExceeded", message)


async def _other_characters(call: Call, world: World) -> int:
    """Returns the size of the role's other inline policies."""
    role, total = call.params["RoleName"], 0
    try:
        names = (await world.send(call.account, "iam", "ListRolePolicies", {"RoleName": role}))["PolicyNames"]
        for name in names:
            if name != call.params["PolicyName"]:
                params = {"RoleName": role, "PolicyName": name}
                policy = await world.send(call.account, "iam", "GetRolePolicy", params)
                total += _characters(json.dumps(document(policy["PolicyDocument"]), separators=(",", ":")))
    except AwsFailure:
        # A role that does not exist is MiniStack's to refuse.
        return total
    return total


@behaviour(
    service="iam",
    operations=["CreateRole", "PutRolePermissionsBoundary", "DeleteRolePermissionsBoundary"],
    source="aws/chalice#1716, IAM user guide, permissions boundaries",
    certainty="seen",
    optional=True,
)
async def organization_requires_a_permissions_boundary(call: Call, proceed: Proceed, world: World) -> Answer:
    """A service control policy of the organization allows roles with a certain permissions boundary only."""
    required = world.state(call.account).settings.get("boundary")
    deletes = call.operation == "DeleteRolePermissionsBoundary"
    boundary = call.params.get("PermissionsBoundary")
    if not deletes and boundary and (required is None or boundary == required):
        return await proceed(call)
    world.fired(call, organization_requires_a_permissions_boundary)
    role = f"arn:{partition_of(call.region)}:iam::{call.account}:role{call.params.get('Path', '/')}"
    # Calls about an existing role are refused by its name.
    resource = role + call.params["RoleName"] if call.operation == "CreateRole" else f"role {call.params['RoleName']}"
    message = (
        f"User: {await caller_arn(call, world)} is not authorized to perform: iam:{call.operation} on resource: "
        f"{resource} with an explicit deny in a service control policy"
    )
    return Answer.error(call, 403, "AccessDenied", message)


@behaviour(
    service="iam",
    operations=["SimulatePrincipalPolicy"],
    source="IAM API model, SimulatePrincipalPolicy",
    certainty="certain",
)
async def simulations_decide_as_calls_do(call: Call, proceed: Proceed, world: World) -> Answer:
    """Simulations evaluate every resource, conditions and permissions boundaries, and name missing context values."""
    results = await simulate(call, world)
    if results is None:
        return await proceed(call)
    world.fired(call, simulations_decide_as_calls_do)
    return Answer.of(call, {"EvaluationResults": results, "IsTruncated": False})


@behaviour(
    service="lambda", operations=["GetFunction"], source="Lambda API reference, GetFunction: Tags", certainty="certain"
)
async def function_tags_need_list_tags(call: Call, proceed: Proceed, world: World) -> Answer:
    """GetFunction omits the tags and says so, if the caller may not list them."""
    answer = await proceed(call)
    if call.caller != "user" or not answer.ok:
        return answer
    result = answer.parsed(call)
    function = function_arn(call)
    if await user_allows(call, world, "lambda:ListTags", function):
        return answer
    world.fired(call, function_tags_need_list_tags)
    message = (
        f"User: {await caller_arn(call, world)} is not authorized to perform: lambda:ListTags on resource: {function} "
        "because no identity-based policy allows the lambda:ListTags action"
    )
    result.pop("Tags", None)
    result.pop("ResponseMetadata", None)
    return Answer.of(call, {**result, "TagsError": {"ErrorCode": "AccessDeniedException", "Message": message}})
