"""Kinesis data streams, and DynamoDB's destinations for its changes, where MiniStack is laxer."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from .registry import Answer, AwsFailure, Call, Proceed, World, behaviour
from .tables import table_of
from .tagging import as_map, with_resources

# Seconds. On AWS these states last for seconds to minutes.
CREATING_SECONDS, UPDATING_SECONDS, DELETING_SECONDS = 0.7, 0.5, 0.5
ENABLING_SECONDS, DISABLING_SECONDS = 0.7, 0.5

INVALID, IN_USE, MISSING = "ValidationException", "ResourceInUseException", "ResourceNotFoundException"
TAGGING = ("AddTagsToStream", "RemoveTagsFromStream")
CHANGES = (
    "IncreaseStreamRetentionPeriod", "DecreaseStreamRetentionPeriod", "StartStreamEncryption", "StopStreamEncryption",
    "UpdateStreamMode", *TAGGING,
)  # fmt: skip
ENABLE, DISABLE = "EnableKinesisStreamingDestination", "DisableKinesisStreamingDestination"
DESCRIBE = "DescribeKinesisStreamingDestination"
OFF = ("DISABLED", "ENABLE_FAILED")

Json = dict[str, Any]


def name_of(call: Call) -> str:
    """Returns the name of the call's stream."""
    return call.params.get("StreamName") or call.params.get("StreamARN", "").rsplit("/", 1)[-1]


def memory_of(call: Call, world: World, name: str) -> Json:
    """Returns the memory of a behaviour for the region's streams or tables, by their names."""
    return world.state(call.account).memory.setdefault(name, {}).setdefault(call.region, {})


async def describe(call: Call, world: World) -> Json:
    """Returns MiniStack's description of the call's stream, or nothing if there is none."""
    try:
        query = {"StreamName": name_of(call)}
        answer = await world.send(call.account, "kinesis", "DescribeStreamSummary", query, call.region)
    except AwsFailure:
        return {}
    return answer["StreamDescriptionSummary"]


@dataclass
class Life:
    """What happens to a stream: until when its creation, a change or its deletion lasts."""

    creating: float = 0.0
    updating: float = 0.0
    # The deleted stream, which is still described.
    deleting: float = 0.0
    last: Json = field(default_factory=dict)

    def status(self, now: float) -> str:
        """Returns the status of the stream."""
        states = {"DELETING": self.deleting, "CREATING": self.creating, "UPDATING": self.updating}
        return next((state for state, until in states.items() if now < until), "ACTIVE")


@behaviour(
    service="kinesis",
    operations=["CreateStream", "DescribeStreamSummary", "DeleteStream", *CHANGES],
    source="Kinesis API model, CreateStream, StartStreamEncryption, DeleteStream, ResourceInUseException",
    certainty="certain",
)
async def streams_change_slowly(call: Call, proceed: Proceed, world: World) -> Answer:
    """New streams are CREATING, changed ones UPDATING, deleted ones DELETING; meanwhile they refuse changes."""
    life: Life = memory_of(call, world, "streams_change_slowly").setdefault(name_of(call), Life())
    status = life.status(world.now())
    if call.operation == "DescribeStreamSummary":
        return await described(call, proceed, world, life)
    busy = status == "DELETING" if call.operation == "CreateStream" else status != "ACTIVE"
    if busy:
        world.fired(call, streams_change_slowly)
        why = f"Stream {name_of(call)} under account {call.account} not ACTIVE, instead in state {status}"
        return Answer.error(call, 400, IN_USE, why)
    last = await describe(call, world) if call.operation == "DeleteStream" else {}
    answer = await proceed(call)
    now = world.now()
    if answer.ok and call.operation == "CreateStream":
        life.creating, life.updating, life.deleting = now + CREATING_SECONDS, 0.0, 0.0
    elif answer.ok and call.operation == "DeleteStream":
        life.deleting, life.last = now + DELETING_SECONDS, last
    elif answer.ok and call.operation not in TAGGING:
        life.updating = now + UPDATING_SECONDS
    return answer


async def described(call: Call, proceed: Proceed, world: World, life: Life) -> Answer:
    """Returns the description of the stream with its status."""
    status = life.status(world.now())
    if status == "DELETING":
        world.fired(call, streams_change_slowly)
        return Answer.of(call, {"StreamDescriptionSummary": {**life.last, "StreamStatus": status}})
    answer = await proceed(call)
    if not answer.ok or status == "ACTIVE":
        return answer
    world.fired(call, streams_change_slowly)
    summary = answer.parsed(call)["StreamDescriptionSummary"]
    return Answer.of(call, {"StreamDescriptionSummary": {**summary, "StreamStatus": status}})


@behaviour(
    service="kinesis",
    operations=["CreateStream"],
    source="Kinesis API model, CreateStream (Tags)",
    certainty="certain",
)
async def streams_are_created_with_tags(call: Call, proceed: Proceed, world: World) -> Answer:
    """A new stream has the tags of the call that creates it."""
    answer = await proceed(call)
    if answer.ok and call.params.get("Tags"):
        world.fired(call, streams_are_created_with_tags)
        query = {"StreamName": name_of(call), "Tags": call.params["Tags"]}
        await world.send(call.account, "kinesis", "AddTagsToStream", query, call.region)
    return answer


@behaviour(
    service="kinesis",
    operations=["CreateStream", "UpdateStreamMode", "DescribeStreamSummary"],
    source="Kinesis API model, UpdateStreamMode",
    certainty="certain",
)
async def modes_of_streams_change(call: Call, proceed: Proceed, world: World) -> Answer:
    """A stream can be changed between on-demand and provisioned capacity."""
    modes = memory_of(call, world, "modes_of_streams_change")
    name = name_of(call)
    if call.operation == "UpdateStreamMode":
        world.fired(call, modes_of_streams_change)
        if not await describe(call, world):
            return Answer.error(call, 400, MISSING, f"Stream {name} under account {call.account} not found.")
        modes[name] = call.params["StreamModeDetails"]
        return Answer.of(call, {})
    answer = await proceed(call)
    if call.operation == "CreateStream":
        if answer.ok:
            modes.pop(name, None)
        return answer
    if not answer.ok or name not in modes:
        return answer
    world.fired(call, modes_of_streams_change)
    summary = answer.parsed(call)["StreamDescriptionSummary"]
    return Answer.of(call, {"StreamDescriptionSummary": {**summary, "StreamModeDetails": modes[name]}})


@behaviour(
    service="resourcegroupstaggingapi",
    operations=["GetResources"],
    source="Resource Groups user guide, supported resources",
    certainty="certain",
)
async def get_resources_lists_streams(call: Call, proceed: Proceed, world: World) -> Answer:
    """GetResources lists Kinesis data streams, too."""
    answer = await proceed(call)
    result = answer.parsed(call) if answer.ok else {}
    if not answer.ok or result.get("PaginationToken"):
        return answer
    try:
        mappings = with_resources(call, result, await tagged_streams(call, world))
    except AwsFailure:
        return answer
    if len(mappings) == len(result.get("ResourceTagMappingList") or []):
        return answer
    world.fired(call, get_resources_lists_streams)
    return Answer.of(call, {"ResourceTagMappingList": mappings, "PaginationToken": ""})


async def tagged_streams(call: Call, world: World) -> dict[str, dict[str, str]]:
    """Returns the tags of the region's streams, by their ARNs."""
    found = {}
    for stream in (await world.send(call.account, "kinesis", "ListStreams", {}, call.region))["StreamSummaries"]:
        query = {"StreamName": stream["StreamName"]}
        tags = await world.send(call.account, "kinesis", "ListTagsForStream", query, call.region)
        found[stream["StreamARN"]] = as_map(tags["Tags"])
    return found


@behaviour(
    service="dynamodb",
    operations=[ENABLE, DISABLE, DESCRIBE],
    source="DynamoDB API model, DestinationStatus; the texts: aws-cdk#16393, cloudformation-coverage-roadmap#707; "
    "one a table: terraform-provider-aws#49342",
    certainty="seen",
)
async def destinations_change_slowly(call: Call, proceed: Proceed, world: World) -> Answer:
    """A table has one stream destination; it is ENABLING or DISABLING at first, and meanwhile refuses changes."""
    changes = memory_of(call, world, "destinations_change_slowly")
    table, now = table_of(call), world.now()
    if call.operation == DESCRIBE:
        answer = await proceed(call)
        if not answer.ok:
            return answer
        result = answer.parsed(call)
        live = result.get("KinesisDataStreamDestinations") or []
        shown = [with_status(changes, table, destination, now) for destination in live]
        if shown == live:
            return answer
        world.fired(call, destinations_change_slowly)
        return Answer.of(call, {**result, "KinesisDataStreamDestinations": shown})
    try:
        query = {"TableName": table}
        answer = await world.send(call.account, "dynamodb", DESCRIBE, query, call.region)
    except AwsFailure:
        return await proceed(call)
    live = answer.get("KinesisDataStreamDestinations") or []
    shown = [with_status(changes, table, destination, now) for destination in live]
    why = refused(call, shown)
    if why is not None:
        world.fired(call, destinations_change_slowly)
        before = "Table is not in a valid state to enable Kinesis Streaming Destination: "
        return Answer.error(call, 400, INVALID, before + why)
    answer = await proceed(call)
    if answer.ok and call.operation == ENABLE:
        changes[table, call.params["StreamArn"]] = (world.now() + ENABLING_SECONDS, "ENABLING")
    elif answer.ok:
        changes[table, call.params["StreamArn"]] = (world.now() + DISABLING_SECONDS, "DISABLING")
    return answer


def with_status(changes: Json, table: str, destination: Json, now: float) -> Json:
    """Returns the description of a destination with its status."""
    until, status = changes.get((table, destination["StreamArn"]), (0.0, ""))
    return {**destination, "DestinationStatus": status} if now < until else destination


def refused(call: Call, destinations: list[Json]) -> str | None:
    """Returns why the call is refused in the state of the table's destinations."""
    if call.operation == ENABLE:
        if all(destination["DestinationStatus"] in OFF for destination in destinations):
            return None
        return "EnableKinesisStreamingDestination must be DISABLED or ENABLE_FAILED to perform ENABLE operation."
    own = [one["DestinationStatus"] for one in destinations if one["StreamArn"] == call.params["StreamArn"]]
    return None if "ACTIVE" in own else "KinesisStreamingDestination must be ACTIVE to perform DISABLE operation."
