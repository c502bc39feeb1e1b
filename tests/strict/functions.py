"""Lambda, where MiniStack is laxer."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import unquote

from .authorization import role_allows
from .registry import Answer, AwsFailure, Call, Proceed, World, behaviour

# Lambda quotas and the reserved concurrency guide: the limit of an account, and what functions cannot reserve.
CONCURRENCY_LIMIT, UNRESERVED = 1000, 100
MOST_TAGS = 50
# Seconds. On AWS a role becomes assumable within ten, and a function active within a few. MiniStack's own transition
# takes half a second, so the states here last longer.
ROLE_SECONDS, PENDING_SECONDS, UPDATE_SECONDS = 1.5, 0.7, 0.6
# Seconds for which a mapping is being created or changed.
MAPPING_SECONDS = 0.7

INVALID, CONFLICT = "InvalidParameterValueException", "ResourceConflictException"
UPDATES = ("UpdateFunctionCode", "UpdateFunctionConfiguration")
READS = ("GetFunction", "GetFunctionConfiguration")
PUTS = ("PutFunctionEventInvokeConfig", "UpdateFunctionEventInvokeConfig")

Json = dict[str, Any]


def name_of(function: str) -> str:
    """Returns the name of a function that is given by its name, ARN or partial ARN, with or without a qualifier."""
    return function.rsplit("function:", 1)[-1].split(":", 1)[0]


def arn_of(call: Call, name: str) -> str:
    """Returns the ARN of a function."""
    return f"arn:aws:lambda:{call.region}:{call.account}:function:{name}"


def counted(keys: Any) -> int:
    """Returns the number of tags that count: AWS's own do not (Tagging user guide)."""
    return len({key for key in keys if not key.startswith("aws:")})


async def configuration_of(call: Call, world: World) -> Json:
    """Returns the configuration of the call's function, or nothing if there is none."""
    name = {"FunctionName": name_of(call.params["FunctionName"])}
    try:
        return await world.send(call.account, "lambda", "GetFunctionConfiguration", name, call.region)
    except AwsFailure:
        return {}


def with_configuration(call: Call, answer: Answer, result: Json, changed: Json) -> Answer:
    """Returns the answer with a changed configuration: that of GetFunction is a member, that of others the whole."""
    whole = {**result, "Configuration": changed} if call.operation == "GetFunction" else changed
    return Answer.of(call, {key: value for key, value in whole.items() if key != "ResponseMetadata"}, answer.status)


@behaviour(
    service="lambda",
    operations=["CreateFunction", "TagResource"],
    source="Lambda developer guide, tags (50 a function)",
    certainty="certain",
)
async def at_most_50_tags(call: Call, proceed: Proceed, world: World) -> Answer:
    """A resource has at most 50 tags, those that it has already included."""
    tags = set(call.params.get("Tags") or {})
    if call.operation == "TagResource":
        try:
            resource = {"Resource": call.params["Resource"]}
            tags |= set((await world.send(call.account, "lambda", "ListTags", resource, call.region)).get("Tags") or {})
        except AwsFailure:
            return await proceed(call)
    if counted(tags) <= MOST_TAGS:
        return await proceed(call)
    world.fired(call, at_most_50_tags)
    return Answer.error(call, 400, INVALID, f"Number of tags exceeds resource tag limit: {MOST_TAGS}.")


def concurrency_limit(call: Call, world: World) -> int:
    """Returns the account's limit of concurrent executions."""
    return int(world.state(call.account).settings.get("concurrency_limit", CONCURRENCY_LIMIT))


async def reserved(call: Call, world: World) -> dict[str, int]:
    """Returns the reserved concurrency of each function of the account."""
    found: dict[str, int] = {}
    marker: Json = {}
    while True:
        page = await world.send(call.account, "lambda", "ListFunctions", marker, call.region)
        for function in page.get("Functions") or []:
            name = {"FunctionName": function["FunctionName"]}
            answer = await world.send(call.account, "lambda", "GetFunctionConcurrency", name, call.region)
            found[function["FunctionName"]] = answer.get("ReservedConcurrentExecutions") or 0
        if not page.get("NextMarker"):
            return found
        marker = {"Marker": page["NextMarker"]}


@behaviour(
    service="lambda",
    operations=["PutFunctionConcurrency", "GetAccountSettings"],
    source="Lambda developer guide, reserved concurrency; the text: aws-samples/alarm-context-tool#2",
    certainty="certain",
)
async def concurrency_leaves_some_unreserved(call: Call, proceed: Proceed, world: World) -> Answer:
    """Functions cannot reserve the last 100 concurrent executions; in new accounts, which have 10, they cannot any."""
    limit = concurrency_limit(call, world)
    try:
        taken = await reserved(call, world)
    except AwsFailure:
        return await proceed(call)
    if call.operation == "GetAccountSettings":
        answer = await proceed(call)
        result = answer.parsed(call) if answer.ok else {}
        counts = {"ConcurrentExecutions": limit, "UnreservedConcurrentExecutions": limit - sum(taken.values())}
        before = result.get("AccountLimit") or {}
        if not answer.ok or {**before, **counts} == before:
            return answer
        world.fired(call, concurrency_leaves_some_unreserved)
        return Answer.of(call, {"AccountUsage": result.get("AccountUsage"), "AccountLimit": {**before, **counts}})
    name = name_of(call.params["FunctionName"])
    taken[name] = call.params["ReservedConcurrentExecutions"]
    least = min(UNRESERVED, limit)
    if limit - sum(taken.values()) >= least:
        return await proceed(call)
    world.fired(call, concurrency_leaves_some_unreserved)
    why = "Specified ReservedConcurrentExecutions for function decreases account's UnreservedConcurrentExecution below"
    return Answer.error(call, 400, INVALID, f"{why} its minimum value of [{least}].")


@behaviour(
    service="lambda",
    operations=[*UPDATES, *READS],
    source="Lambda developer guide, container images; the texts: zappa#1459, aws-cdk#13037, pythonista-chromeless#19",
    certainty="seen",
)
async def image_functions_stay_images(call: Call, proceed: Proceed, world: World) -> Answer:
    """A function of package type Image cannot become Zip, nor Zip Image; images have no runtime and no handler."""
    if call.operation in READS:
        return await without_runtime(call, proceed, world)
    package = (await configuration_of(call, world)).get("PackageType")
    image, why = "ImageUri" in call.params, None
    if call.operation == "UpdateFunctionCode":
        if package == "Image" and not image:
            why = "Please provide ImageUri when updating a function with packageType Image."
        if package == "Zip" and image:
            why = "Please don't provide ImageUri when updating a function with packageType Zip."
    elif package == "Image" and any(call.params.get(member) for member in ("Handler", "Runtime", "Layers")):
        why = "Please don't provide Handler or Runtime or Layer when the intended function PackageType is Image."
    if why is None:
        return await proceed(call)
    world.fired(call, image_functions_stay_images)
    return Answer.error(call, 400, INVALID, why)


async def without_runtime(call: Call, proceed: Proceed, world: World) -> Answer:
    """Removes the empty members of an image's configuration."""
    answer = await proceed(call)
    result = answer.parsed(call) if answer.ok else {}
    configuration = result.get("Configuration", {}) if call.operation == "GetFunction" else result
    empty = [member for member in ("Runtime", "Handler") if configuration.get(member) == ""]
    if configuration.get("PackageType") != "Image" or not empty:
        return answer
    world.fired(call, image_functions_stay_images)
    kept = {key: value for key, value in configuration.items() if key not in empty}
    return with_configuration(call, answer, result, kept)


def as_list(value: Any) -> list[Any]:
    """Returns the value as a list; policies may leave out the brackets of one."""
    return value if isinstance(value, list) else [] if value is None else [value]


def trusts_lambda(document: Any) -> bool:
    """Returns whether a trust policy lets Lambda assume the role. Conditions are taken to hold."""
    if isinstance(document, str):
        document = json.loads(document if document.lstrip().startswith("{") else unquote(document))
    for statement in as_list(document.get("Statement")):
        principal = statement.get("Principal")
        services = as_list(principal.get("Service")) if isinstance(principal, dict) else as_list(principal)
        actions = {action.lower() for action in as_list(statement.get("Action"))}
        if statement.get("Effect") == "Allow" and actions & {"sts:assumerole", "sts:*", "*"}:
            if {"lambda.amazonaws.com", "*"} & set(services):
                return True
    return False


@behaviour(service="iam", operations=["CreateRole"], source="IAM user guide, eventual consistency", certainty="seen")
@behaviour(
    service="lambda",
    operations=["CreateFunction", "UpdateFunctionConfiguration"],
    source="Lambda developer guide, execution role; eventual consistency of IAM (IAM user guide)",
    certainty="seen",
)
async def new_roles_are_not_assumable_at_first(call: Call, proceed: Proceed, world: World) -> Answer:
    """Lambda cannot assume a role in its first seconds, and never one whose trust policy does not name Lambda."""
    created = world.state(call.account).memory.setdefault("new_roles_are_not_assumable_at_first", {})
    if call.service == "iam":
        answer = await proceed(call)
        if answer.ok:
            created[call.params["RoleName"]] = world.now()
        return answer
    role = (call.params.get("Role") or "").rsplit("/", 1)[-1]
    young = world.now() - created.get(role, -ROLE_SECONDS) < ROLE_SECONDS
    if not role or not (young or await is_foreign(call, world, role)):
        return await proceed(call)
    world.fired(call, new_roles_are_not_assumable_at_first)
    return Answer.error(call, 400, INVALID, "The role defined for the function cannot be assumed by Lambda.")


async def is_foreign(call: Call, world: World, role: str) -> bool:
    """Returns whether the role exists and Lambda may not assume it."""
    try:
        found = await world.send(call.account, "iam", "GetRole", {"RoleName": role})
    except AwsFailure:
        return False
    return not trusts_lambda(found["Role"].get("AssumeRolePolicyDocument") or {})


@behaviour(
    service="lambda",
    operations=[
        "CreateFunction", "DeleteFunction", *UPDATES, *READS, "PublishVersion", "PutFunctionConcurrency", *PUTS,
        "TagResource", "Invoke",
    ],
    source="Lambda developer guide, function states; the texts: remotion#1186, aws-cli#6718",
    certainty="certain",
)  # fmt: skip
async def new_functions_are_pending(call: Call, proceed: Proceed, world: World) -> Answer:
    """A new function is Pending, an update InProgress; meanwhile the function refuses other changes."""
    times = world.state(call.account).memory.setdefault("new_functions_are_pending", {})
    name = name_of(call.params.get("FunctionName") or call.params["Resource"])
    key = (call.region, name)
    created, updated = times.get(key, (None, None))
    pending = created is not None and world.now() - created < PENDING_SECONDS
    busy = updated is not None and world.now() - updated < UPDATE_SECONDS
    if call.operation in READS:
        return with_state(call, await proceed(call), world, pending, busy)
    why = None
    if pending and call.operation not in ("CreateFunction", "DeleteFunction", "TagResource"):
        why = "The function is currently in the following state: Pending"
    elif busy and call.operation not in ("CreateFunction", "DeleteFunction", "Invoke", *PUTS):
        why = f"An update is in progress for resource: {arn_of(call, name)}"
    if why is not None:
        world.fired(call, new_functions_are_pending)
        return Answer.error(call, 409, CONFLICT, f"The operation cannot be performed at this time. {why}")
    answer = await proceed(call)
    if not answer.ok or call.params.get("DryRun"):
        return answer
    if call.operation == "CreateFunction":
        times[key] = (world.now(), None)
        return with_state(call, answer, world, True, False)
    if call.operation in UPDATES:
        times[key] = (created, world.now())
        return with_state(call, answer, world, False, True)
    if call.operation == "DeleteFunction" and not call.params.get("Qualifier"):
        times.pop(key, None)
    return answer


def with_state(call: Call, answer: Answer, world: World, pending: bool, busy: bool) -> Answer:
    """Returns the answer with the state of the function. MiniStack calls an update Pending; on AWS it stays Active."""
    result = answer.parsed(call) if answer.ok else {}
    before = result.get("Configuration", {}) if call.operation == "GetFunction" else result
    if not before.get("State"):
        return answer
    after = {key: value for key, value in before.items() if value != "" or "Reason" not in key}
    if pending:
        after |= {"State": "Pending", "StateReason": "The function is being created.", "StateReasonCode": "Creating"}
        after.pop("LastUpdateStatus", None)
    elif busy or before.get("StateReasonCode") == "Updating":
        after |= {"State": "Active", "LastUpdateStatus": "InProgress"}
        after |= {"LastUpdateStatusReason": "The function is being created.", "LastUpdateStatusReasonCode": "Creating"}
        after.pop("StateReason", None)
        after.pop("StateReasonCode", None)
    states = ("State", "LastUpdateStatus")
    if any(before.get(state) != after.get(state) for state in states):
        world.fired(call, new_functions_are_pending)
    return with_configuration(call, answer, result, after)


def destinations(call: Call) -> list[str]:
    """Returns the ARNs of the queues to which the call makes the function send."""
    config = call.params.get("DestinationConfig") or {}
    found = [(config.get(kind) or {}).get("Destination") for kind in ("OnFailure", "OnSuccess")]
    return [arn for arn in found if arn and arn.split(":")[2:3] == ["sqs"]]


async def queue_attributes(call: Call, world: World, arn: str) -> Json | None:
    """Returns the attributes of a queue, or None if there is none."""
    region, name = arn.split(":")[3], arn.split(":")[-1]
    try:
        url = (await world.send(call.account, "sqs", "GetQueueUrl", {"QueueName": name}, region))["QueueUrl"]
        query = {"QueueUrl": url, "AttributeNames": ["All"]}
        return (await world.send(call.account, "sqs", "GetQueueAttributes", query, region)).get("Attributes") or {}
    except AwsFailure:
        return None


@behaviour(
    service="lambda",
    operations=PUTS,
    source="Lambda developer guide, destinations of asynchronous invocation (rights of the execution role)",
    certainty="likely",
)
async def failure_destination_needs_send_rights(call: Call, proceed: Proceed, world: World) -> Answer:
    """The queue of a destination must exist, and the function's role must have the right to send to it."""
    role = (await configuration_of(call, world)).get("Role", "").rsplit("/", 1)[-1]
    for arn in destinations(call) if role else []:
        why = None
        if await queue_attributes(call, world, arn) is None:
            why = f"The destination ARN {arn} is invalid."
        elif not await role_allows(world, call.account, role, "sqs:SendMessage", arn, {}):
            why = f"The function's execution role does not have permissions to call SendMessage on {arn}"
        if why is not None:
            world.fired(call, failure_destination_needs_send_rights)
            return Answer.error(call, 400, INVALID, why)
    return await proceed(call)


async def key_arn(call: Call, world: World, key: str) -> str | None:
    """Returns the ARN of a customer's KMS key, or None for AWS's own, which needs no rights, and for a missing one."""
    if key.endswith("alias/aws/sqs"):
        return None
    try:
        found = await world.send(call.account, "kms", "DescribeKey", {"KeyId": key}, call.region)
    except AwsFailure:
        return key if key.startswith("arn:") else None
    return found["KeyMetadata"]["Arn"]


@behaviour(
    service="lambda",
    operations=PUTS,
    source="SQS developer guide, key management (rights of producers)",
    certainty="certain",
)
async def failures_are_lost_without_key_rights(call: Call, proceed: Proceed, world: World) -> Answer:
    """Lambda accepts a queue under a customer's key, and loses its failures if the role has no rights on the key."""
    answer = await proceed(call)
    role = (await configuration_of(call, world)).get("Role", "").rsplit("/", 1)[-1] if answer.ok else ""
    for arn in destinations(call) if role else []:
        key = ((await queue_attributes(call, world, arn)) or {}).get("KmsMasterKeyId")
        key = await key_arn(call, world, key) if key else None
        rights = ("kms:GenerateDataKey", "kms:Decrypt")
        context = {"kms:ViaService": f"sqs.{call.region}.amazonaws.com", "kms:CallerAccount": call.account}
        if key and not all([await role_allows(world, call.account, role, right, key, context) for right in rights]):
            lost = world.state(call.account).memory.setdefault("lost_failures", [])
            lost.append({"function": name_of(call.params["FunctionName"]), "queue": arn, "key": key})
            world.fired(call, failures_are_lost_without_key_rights)
    return answer


# Event source mappings


@behaviour(
    service="lambda",
    operations=["CreateEventSourceMapping", "UpdateEventSourceMapping"],
    source="Lambda developer guide, using Lambda with SQS (rights of the execution role, visibility timeout)",
    certainty="certain",
)
async def mappings_need_a_readable_queue(call: Call, proceed: Proceed, world: World) -> Answer:
    """The function's role must have the rights to take messages, and the queue hide them as long as the function runs."""
    source = call.params.get("EventSourceArn") or ""
    function = await configuration_of(call, world) if source.split(":")[2:3] == ["sqs"] else {}
    role = function.get("Role", "").rsplit("/", 1)[-1]
    why = None
    for action in ("ReceiveMessage", "DeleteMessage", "GetQueueAttributes") if role else ():
        if not await role_allows(world, call.account, role, f"sqs:{action}", source, {}):
            why = f"The function execution role does not have permissions to call {action} on SQS"
            break
    if role and why is None:
        hidden = int(((await queue_attributes(call, world, source)) or {}).get("VisibilityTimeout", 0))
        if hidden < function.get("Timeout", 0):
            timeout = function["Timeout"]
            why = f"Queue visibility timeout: {hidden} seconds is less than Function timeout: {timeout} seconds"
    if why is not None:
        world.fired(call, mappings_need_a_readable_queue)
        return Answer.error(call, 400, INVALID, why)
    return await proceed(call)


# The rights of the execution role that Lambda checks for the streams of a service.
STREAM_RIGHTS = {
    "dynamodb": ("GetRecords", "GetShardIterator", "DescribeStream", "ListStreams"),
    "kinesis": ("GetRecords", "GetShardIterator", "DescribeStream", "ListShards"),
}


@behaviour(
    service="lambda",
    operations=["CreateEventSourceMapping"],
    source="Lambda developer guide, using Lambda with DynamoDB and with Kinesis; awslabs/dynamodb-continuous-backup#39",
    certainty="seen",
)
async def mappings_need_a_readable_stream(call: Call, proceed: Proceed, world: World) -> Answer:
    """The function's role must have the rights to read the stream."""
    source = call.params.get("EventSourceArn") or ""
    service = source.split(":")[2] if source.count(":") > 2 else ""
    rights = STREAM_RIGHTS.get(service, ())
    role = (await configuration_of(call, world)).get("Role", "").rsplit("/", 1)[-1] if rights else ""
    for right in rights if role else ():
        if not await role_allows(world, call.account, role, f"{service}:{right}", source, {}):
            world.fired(call, mappings_need_a_readable_stream)
            why = f"Cannot access stream {source}. Please ensure the role can perform the {right} Action on your stream in IAM."
            return Answer.error(call, 400, INVALID, why)
    return await proceed(call)


@behaviour(
    service="lambda",
    operations=["CreateEventSourceMapping", "DeleteEventSourceMapping"],
    source="Lambda API reference, CreateEventSourceMapping (ResourceConflictException)",
    certainty="certain",
)
async def mappings_are_unique(call: Call, proceed: Proceed, world: World) -> Answer:
    """A queue and a function have at most one mapping."""
    known = world.state(call.account).memory.setdefault("mappings_are_unique", {})
    if call.operation == "DeleteEventSourceMapping":
        answer = await proceed(call)
        if answer.ok:
            for pair in [pair for pair, identity in known.items() if identity == call.params["UUID"]]:
                del known[pair]
        return answer
    pair = (call.params.get("EventSourceArn"), name_of(call.params["FunctionName"]))
    if pair in known:
        world.fired(call, mappings_are_unique)
        why = f"An event source mapping with SQS arn ({pair[0]}) and function ({pair[1]}) already exists."
        return Answer.error(call, 409, CONFLICT, why)
    # Before the call, so that a concurrent one is refused.
    known[pair] = ""
    answer = await proceed(call)
    if answer.ok:
        known[pair] = answer.parsed(call).get("UUID", "")
    else:
        del known[pair]
    return answer


@behaviour(
    service="lambda",
    operations=["CreateEventSourceMapping", "UpdateEventSourceMapping", "DeleteEventSourceMapping"],
    source="Lambda API reference, UpdateEventSourceMapping (states, ResourceInUseException)",
    certainty="certain",
)
async def mappings_change_slowly(call: Call, proceed: Proceed, world: World) -> Answer:
    """A mapping that is being created or changed refuses other changes."""
    changed = world.state(call.account).memory.setdefault("mappings_change_slowly", {})
    identity = call.params.get("UUID", "")
    if world.now() - changed.get(identity, -MAPPING_SECONDS) < MAPPING_SECONDS:
        world.fired(call, mappings_change_slowly)
        why = "Cannot update the event source mapping because it is in use."
        return Answer.error(call, 400, "ResourceInUseException", why)
    answer = await proceed(call)
    if answer.ok:
        changed[answer.parsed(call).get("UUID", identity)] = world.now()
    return answer
