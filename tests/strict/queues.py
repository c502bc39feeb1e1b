"""SQS, where MiniStack is laxer."""

from __future__ import annotations

from typing import Any

from .registry import Answer, AwsFailure, Call, Proceed, World, behaviour

# Seconds. On AWS the name of a deleted queue is locked for 60, in which calls may still find the queue.
LOCKED_SECONDS, FOUND_SECONDS = 2.0, 1.0
# What a queue has without these attributes (SQS API reference, CreateQueue).
DEFAULTS = {"KmsMasterKeyId": "", "KmsDataKeyReusePeriodSeconds": "300", "RedrivePolicy": "", "Policy": ""}

Json = dict[str, Any]


@behaviour(
    service="sqs",
    operations=["CreateQueue", "DeleteQueue", "GetQueueUrl"],
    source="SQS API model, CreateQueue, DeleteQueue, QueueDeletedRecently",
    certainty="certain",
)
async def deleted_queues_are_named_for_60_seconds(call: Call, proceed: Proceed, world: World) -> Answer:
    """The name of a deleted queue still resolves for a while, and no queue can be created with it for 60 seconds."""
    memory = world.state(call.account).memory.setdefault("deleted_queues_are_named_for_60_seconds", {})
    if call.operation == "DeleteQueue":
        url = call.params["QueueUrl"]
        answer = await proceed(call)
        if answer.ok:
            memory[call.region, url.rsplit("/", 1)[-1]] = (world.now(), url)
        return answer
    when, url = memory.get((call.region, call.params["QueueName"]), (-LOCKED_SECONDS, ""))
    age = world.now() - when
    if call.operation == "CreateQueue" and age < LOCKED_SECONDS:
        world.fired(call, deleted_queues_are_named_for_60_seconds)
        why = "You must wait 60 seconds after deleting a queue before you can create another with the same name."
        return Answer.error(call, 400, "QueueDeletedRecently", why)
    if call.operation == "GetQueueUrl" and age < FOUND_SECONDS:
        world.fired(call, deleted_queues_are_named_for_60_seconds)
        return Answer.of(call, {"QueueUrl": url})
    return await proceed(call)


async def attributes_of(call: Call, world: World) -> Json | None:
    """Returns the attributes of the call's queue, or None if there is none."""
    try:
        url = call.params.get("QueueUrl")
        if url is None:
            name = {"QueueName": call.params["QueueName"]}
            url = (await world.send(call.account, "sqs", "GetQueueUrl", name, call.region))["QueueUrl"]
        query = {"QueueUrl": url, "AttributeNames": ["All"]}
        return (await world.send(call.account, "sqs", "GetQueueAttributes", query, call.region)).get("Attributes") or {}
    except AwsFailure:
        return None


@behaviour(
    service="sqs",
    operations=["CreateQueue"],
    source="SQS API model, CreateQueue, QueueNameExists",
    certainty="certain",
)
async def queues_are_not_changed_by_their_creation(call: Call, proceed: Proceed, world: World) -> Answer:
    """CreateQueue refuses the name of a queue that has other attributes, whichever they are."""
    wanted = call.params.get("Attributes") or {}
    live = await attributes_of(call, world) if wanted else None
    if live is None:
        return await proceed(call)
    sse = "false" if live.get("KmsMasterKeyId") else "true"
    live = {**DEFAULTS, "SqsManagedSseEnabled": sse, **live}
    other = next((name for name, value in wanted.items() if name in live and live[name] != value), None)
    if other is None:
        return await proceed(call)
    world.fired(call, queues_are_not_changed_by_their_creation)
    why = "A queue already exists with the same name and a different value for attribute"
    return Answer.error(call, 400, "QueueNameExists", f"{why} {other}")


@behaviour(
    service="sqs",
    operations=["CreateQueue", "SetQueueAttributes", "GetQueueAttributes"],
    source="SQS API model, CreateQueue (SqsManagedSseEnabled); the text: ansible-collections/community.aws#2433",
    certainty="certain",
)
async def queues_have_one_encryption(call: Call, proceed: Proceed, world: World) -> Answer:
    """A queue is encrypted by SQS unless it has a KMS key or is told otherwise, and in one way at a time."""
    if call.operation == "GetQueueAttributes":
        return await shown(call, proceed, world)
    wanted = call.params.get("Attributes") or {}
    key, sse = wanted.get("KmsMasterKeyId"), wanted.get("SqsManagedSseEnabled")
    if key and sse == "true":
        world.fired(call, queues_have_one_encryption)
        why = "You can use one type of server-side encryption (SSE) at one time."
        return Answer.error(call, 400, "InvalidAttributeValue", why)
    more: Json = {}
    if key:
        more["SqsManagedSseEnabled"] = "false"
    elif sse == "true" and call.operation == "SetQueueAttributes":
        more["KmsMasterKeyId"] = ""
    elif sse is None and call.operation == "CreateQueue" and await attributes_of(call, world) is None:
        more["SqsManagedSseEnabled"] = "true"
    if not more:
        return await proceed(call)
    world.fired(call, queues_have_one_encryption)
    return await proceed(call.with_params(Attributes={**wanted, **more}))


async def shown(call: Call, proceed: Proceed, world: World) -> Answer:
    """Leaves out an empty key, which MiniStack keeps."""
    answer = await proceed(call)
    result = answer.parsed(call) if answer.ok else {}
    attributes = result.get("Attributes") or {}
    if attributes.get("KmsMasterKeyId") != "":
        return answer
    world.fired(call, queues_have_one_encryption)
    return Answer.of(call, {"Attributes": {key: value for key, value in attributes.items() if value != ""}})
