"""The authorisation of calls, as IAM does it.

Users are evaluated here, by their own policies, those of their groups and their permissions boundary. The permissions
that a call needs are in actions.py. The root is allowed everything; the sessions of roles are evaluated by MiniStack.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .actions import Check, bucket_arn, checks_of, head_object, partition_of
from .policies import ALLOWED, EXPLICIT_DENY, IMPLICIT_DENY, Context, Decision, Request, document, evaluate, within
from .registry import Answer, AwsFailure, Call, World

# Status and code of a refusal: the services that speak JSON answer 400, those that speak XML, and Lambda, 403. SQS
# keeps the code of its query protocol (awsQueryCompatible in its model).
REFUSALS = {
    "cloudwatch": (403, "AccessDenied"),
    "sns": (403, "AuthorizationError"),
    "s3": (403, "AccessDenied"),
    "s3control": (403, "AccessDenied"),
    "iam": (403, "AccessDenied"),
    "sts": (403, "AccessDenied"),
    "sqs": (403, "AccessDenied"),
    "lambda": (403, "AccessDeniedException"),
}
OTHER_REFUSAL = (400, "AccessDeniedException")
# The answers to an access key that does not exist.
UNKNOWN_KEYS = {
    "s3": (403, "InvalidAccessKeyId", "The AWS Access Key Id you provided does not exist in our records."),
    "iam": (403, "InvalidClientTokenId", "The security token included in the request is invalid."),
    "sts": (403, "InvalidClientTokenId", "The security token included in the request is invalid."),
}
OTHER_UNKNOWN_KEY = (400, "UnrecognizedClientException", "The security token included in the request is invalid.")


@dataclass(frozen=True)
class Principal:
    """A user or a role with its identity policies and its permissions boundary."""

    arn: str
    policies: Sequence[Mapping[str, Any]]
    boundary: Mapping[str, Any] | None
    context: Context

    def decide(self, action: str, resource: str, context: Context) -> tuple[Decision, bool]:
        """Returns the decision, and whether the boundary made it."""
        request = Request(action, resource, {**self.context, **context})
        identity = evaluate(self.policies, request)
        if self.boundary is None or not identity.allowed:
            return identity, False
        return within(identity, evaluate([self.boundary], request)), True


async def authorise(call: Call, world: World) -> Answer | None:
    """Returns None if the caller may make the call, and AWS's refusal if not.

    Objects of DeleteObjects are authorised one by one, so that the answer may also be a result.
    """
    if call.caller != "user" or call.name == "sts:GetCallerIdentity":
        return None
    user = await user_of(call, world)
    if user is None:
        return _unknown_key(call)
    # GetUser without a name is about the caller.
    if call.service == "iam" and call.operation == "GetUser" and "UserName" not in call.params:
        return _first_refusal(call, user, [Check("iam:GetUser", user.arn)])
    if call.name == "s3:DeleteObjects":
        return await _delete_objects(call, user, world)
    checks = await checks_of(call, world)
    if checks is None:
        return _error(call, f"tests/strict/authorization.py knows no action for {call.name}")
    return _first_refusal(call, user, checks) or await _missing_object(call, user, world)


async def role_allows(
    world: World, account: str, role_name: str, action: str, resource: str, context: Context | None = None
) -> bool:
    """Returns whether the role's policies, within its permissions boundary, allow an action. No role allows nothing."""
    role = await role_principal(world, account, role_name)
    return role is not None and role.decide(action, resource, context or {})[0].allowed


async def user_allows(call: Call, world: World, action: str, resource: str, context: Context | None = None) -> bool:
    """Returns whether the caller, a user or the root, is allowed an action."""
    if call.caller == "root":
        return True
    user = await user_of(call, world)
    return user is not None and user.decide(action, resource, {**common(call), **(context or {})})[0].allowed


async def caller_arn(call: Call, world: World) -> str:
    """Returns the ARN of the caller as refusals name it."""
    if call.caller == "user" and (user := await user_of(call, world)):
        return user.arn
    prefix = f"arn:{partition_of(call.region)}"
    if call.caller == "session":
        return f"{prefix}:sts::{call.account}:assumed-role/session"
    return f"{prefix}:iam::{call.account}:root"


# Principals


async def user_of(call: Call, world: World) -> Principal | None:
    """Returns the user to whom the access key of the call belongs."""
    try:
        found = await world.send(call.account, "iam", "GetAccessKeyLastUsed", {"AccessKeyId": call.access_key})
    except AwsFailure:
        return None
    return await user_principal(world, call.account, found["UserName"])


async def user_principal(world: World, account: str, name: str) -> Principal | None:
    """Returns a user with its policies and those of its groups."""
    try:
        details, user = await asyncio.gather(
            _details(world, account, "User", "Group"), world.send(account, "iam", "GetUser", {"UserName": name})
        )
    except AwsFailure:
        return None
    user = user["User"]
    of_user = [one for one in details.get("UserDetailList", []) if one["UserName"] == name]
    names = {group for one in of_user for group in one.get("GroupList", [])}
    groups = [one for one in details.get("GroupDetailList", []) if one["GroupName"] in names]
    policies = [policy for one in of_user for policy in one.get("UserPolicyList", [])]
    policies += [policy for one in groups for policy in one.get("GroupPolicyList", [])]
    return await _principal(
        world, account, user, policies, of_user + groups,
        {"aws:username": name, "aws:userid": user["UserId"], "aws:PrincipalType": "User"},
    )


async def role_principal(world: World, account: str, name: str) -> Principal | None:
    """Returns a role with its policies."""
    try:
        details, role = await asyncio.gather(
            _details(world, account, "Role"), world.send(account, "iam", "GetRole", {"RoleName": name})
        )
    except AwsFailure:
        return None
    of_role = [one for one in details.get("RoleDetailList", []) if one["RoleName"] == name]
    policies = [policy for one in of_role for policy in one.get("RolePolicyList", [])]
    return await _principal(world, account, role["Role"], policies, of_role, {"aws:PrincipalType": "AssumedRole"})


async def _details(world: World, account: str, *kinds: str) -> dict[str, Any]:
    return await world.send(account, "iam", "GetAccountAuthorizationDetails", {"Filter": list(kinds)})


async def _principal(
    world: World,
    account: str,
    entity: Mapping[str, Any],
    inline: list[Mapping[str, Any]],
    attached_to: list[Mapping[str, Any]],
    context: dict[str, str],
) -> Principal:
    arns = [policy["PolicyArn"] for one in attached_to for policy in one.get("AttachedManagedPolicies", [])]
    boundary = entity.get("PermissionsBoundary", {}).get("PermissionsBoundaryArn")
    documents = [*arns, boundary] if boundary else arns
    managed = await asyncio.gather(*(_managed(world, account, arn) for arn in documents))
    policies = [document(policy["PolicyDocument"]) for policy in inline] + managed[: len(arns)]
    context = {**context, "aws:PrincipalArn": entity["Arn"], "aws:PrincipalAccount": account}
    return Principal(entity["Arn"], policies, managed[-1] if boundary else None, context)


async def _managed(world: World, account: str, policy_arn: str) -> dict[str, Any]:
    """Returns the document of a managed policy; that of one that is gone allows nothing."""
    try:
        policy = await world.send(account, "iam", "GetPolicy", {"PolicyArn": policy_arn})
        version = policy["Policy"]["DefaultVersionId"]
        found = await world.send(
            account, "iam", "GetPolicyVersion", {"PolicyArn": policy_arn, "VersionId": version}
        )
    except AwsFailure:
        return {}
    return document(found["PolicyVersion"]["Document"])


# Decisions and refusals


def common(call: Call) -> dict[str, str]:
    """Returns the context keys that every call has."""
    return {
        "aws:RequestedRegion": call.region,
        "aws:ResourceAccount": call.account,
        # The proxy speaks plain HTTP.
        "aws:SecureTransport": "false",
    }


def _first_refusal(call: Call, user: Principal, checks: list[Check]) -> Answer | None:
    for check in checks:
        decision, by_boundary = user.decide(check.action, check.resource, {**common(call), **check.context})
        if not decision.allowed:
            return _error(call, check.refusal or _refusal(user, check, decision, by_boundary), check.action)
    return None


def _refusal(user: Principal, check: Check, decision: Decision, by_boundary: bool) -> str:
    """Returns AWS's message (IAM user guide, access denied error messages)."""
    # SQS writes actions in lower case, and S3 puts resources in quotes.
    service = check.action.partition(":")[0]
    action = check.action.lower() if service == "sqs" else check.action
    shown = check.shown or check.resource
    shown = f'"{shown}"' if service == "s3" else shown
    kind = "permissions boundary" if by_boundary else "identity-based policy"
    if decision.unsupported:
        reason = f"because tests/strict/policies.py does not evaluate {decision.unsupported}"
    elif decision.outcome == EXPLICIT_DENY:
        reason = f"with an explicit deny in {'a' if by_boundary else 'an'} {kind}"
    else:
        reason = f"because no {kind} allows the {action} action"
    return f"User: {user.arn} is not authorized to perform: {action} on resource: {shown} {reason}"


def _error(call: Call, message: str, action: str = "") -> Answer:
    status, code = REFUSALS.get(call.service, OTHER_REFUSAL)
    if call.service == "sqs" and action.startswith("kms:"):
        # SQS API model, KmsAccessDenied.
        status, code = 400, "KMS.AccessDeniedException"
    if call.request.method == "HEAD":
        return Answer(status, {"Content-Type": "application/xml"})
    return Answer.error(call, status, code, message)


def _unknown_key(call: Call) -> Answer:
    status, code, message = UNKNOWN_KEYS.get(call.service, OTHER_UNKNOWN_KEY)
    if call.request.method == "HEAD":
        return Answer(status, {"Content-Type": "application/xml"})
    return Answer.error(call, status, code, message)


# Objects


async def _missing_object(call: Call, user: Principal, world: World) -> Answer | None:
    """Refuses the read of a missing object to callers without s3:ListBucket (S3 API reference, GetObject)."""
    if call.name not in ("s3:GetObject", "s3:HeadObject"):
        return None
    # The request has no prefix, so that a condition on s3:prefix does not hold.
    refusal = _first_refusal(call, user, [Check("s3:ListBucket", bucket_arn(call))])
    if refusal is None or await head_object(call, world) is not None:
        return None
    try:
        await world.send(call.account, "s3", "HeadBucket", {"Bucket": call.params["Bucket"]}, call.region)
    except AwsFailure:
        # The bucket is missing.
        return None
    return refusal


async def _delete_objects(call: Call, user: Principal, world: World) -> Answer | None:
    """Deletes the objects that the caller may delete, and names the others (S3 API reference, DeleteObjects)."""
    deletion = call.params["Delete"]
    allowed, refused = [], []
    for one in deletion["Objects"]:
        action = "s3:DeleteObjectVersion" if one.get("VersionId") else "s3:DeleteObject"
        check = Check(action, f"{bucket_arn(call)}/{one['Key']}")
        decision, by_boundary = user.decide(action, check.resource, common(call))
        if decision.allowed:
            allowed.append(one)
            continue
        message = _refusal(user, check, decision, by_boundary)
        refused.append({**{key: one[key] for key in ("Key", "VersionId") if one.get(key)},
                        "Code": "AccessDenied", "Message": message})
    if not refused:
        return None
    result: dict[str, Any] = {}
    if allowed:
        params = {**call.params, "Delete": {**deletion, "Objects": allowed}}
        try:
            result = await world.send(call.account, "s3", "DeleteObjects", params, call.region)
        except AwsFailure as failure:
            return Answer.error(call, failure.status, failure.code, failure.message)
    result.pop("ResponseMetadata", None)
    return Answer.of(call, {**result, "Errors": [*result.get("Errors", []), *refused]})


# Simulations


async def simulate(call: Call, world: World) -> list[dict[str, Any]] | None:
    """Returns the results of SimulatePrincipalPolicy, or None if the principal does not exist."""
    principal = await _principal_at(call, world)
    if principal is None:
        return None
    context = {
        entry["ContextKeyName"]: list(entry.get("ContextKeyValues", []))
        for entry in call.params.get("ContextEntries", [])
    }
    resources = call.params.get("ResourceArns") or ["*"]
    return [_simulated(principal, action, resources, context) for action in call.params["ActionNames"]]


async def _principal_at(call: Call, world: World) -> Principal | None:
    kind, _, name = call.params["PolicySourceArn"].split(":", 5)[-1].partition("/")
    name = name.rpartition("/")[2]
    if kind == "user":
        return await user_principal(world, call.account, name)
    return await role_principal(world, call.account, name) if kind == "role" else None


def _simulated(principal: Principal, action: str, resources: list[str], context: Context) -> dict[str, Any]:
    """Returns the result for one action (IAM API model, EvaluationResult)."""
    decisions = [(resource, principal.decide(action, resource, context)[0]) for resource in resources]
    outcomes = {decision.outcome for _, decision in decisions}
    result = {
        "EvalActionName": action,
        "EvalResourceName": resources[0] if len(resources) == 1 else "*",
        # Of several resources, the most restrictive decision.
        "EvalDecision": next(one for one in (EXPLICIT_DENY, IMPLICIT_DENY, ALLOWED) if one in outcomes),
        "MatchedStatements": [],
        "MissingContextValues": sorted({key for _, decision in decisions for key in decision.missing}),
    }
    if resources != ["*"]:
        result["ResourceSpecificResults"] = [
            {
                "EvalResourceName": resource,
                "EvalResourceDecision": decision.outcome,
                "MatchedStatements": [],
                "MissingContextValues": sorted(decision.missing),
            }
            for resource, decision in decisions
        ]
    return result
