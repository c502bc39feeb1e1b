"""DynamoDB's tables, where MiniStack is laxer. Transactions, tags and scaling are in modules of their own."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from .registry import Answer, AwsFailure, Call, Proceed, World, behaviour

# Seconds. On AWS these states last for seconds to minutes, and the pause between changes of a time to live an hour.
UNKNOWN_SECONDS, CREATING_SECONDS, UPDATING_SECONDS, DELETING_SECONDS = 0.2, 0.7, 0.5, 0.5
BACKUPS_SECONDS = 1.0
# Calls of ListTagsOfResource without tags, and seconds for which a table is young.
CALLS_WITHOUT_TAGS, YOUNG_SECONDS = 2, 45.0
TTL_SECONDS = 3.0
DAY_SECONDS = 24 * 60 * 60.0
MOST_TAGS = 50

INVALID, IN_USE, MISSING = "ValidationException", "ResourceInUseException", "ResourceNotFoundException"
LIMIT = "LimitExceededException"
ITEMS = (
    "GetItem", "PutItem", "UpdateItem", "DeleteItem", "Query", "Scan", "BatchGetItem", "BatchWriteItem",
    "TransactGetItems", "TransactWriteItems",
)  # fmt: skip
CHANGES = ("UpdateTable", "DeleteTable", "UpdateTimeToLive")

Json = dict[str, Any]


def name_of(table: str) -> str:
    """Returns the name of a table that is given by its name or ARN."""
    return table.split(":table/", 1)[-1].split("/", 1)[0]


def table_of(call: Call) -> str:
    """Returns the name of the table that the call is about, or "" if it is about several."""
    return name_of(call.params.get("TableName") or call.params.get("ResourceArn") or "")


def tables_of(call: Call) -> set[str]:
    """Returns the names of the tables that the call is about."""
    names = {table_of(call), *map(name_of, call.params.get("RequestItems") or {})}
    for item in call.params.get("TransactItems") or []:
        names |= {name_of(action["TableName"]) for action in item.values()}
    return names - {""}


def memory_of(call: Call, world: World, name: str) -> Json:
    """Returns the memory of a behaviour for the region's tables, by their names."""
    return world.state(call.account).memory.setdefault(name, {}).setdefault(call.region, {})


async def describe(call: Call, world: World) -> Json:
    """Returns MiniStack's description of the call's table, or nothing if there is none."""
    query = {"TableName": table_of(call)}
    try:
        return (await world.send(call.account, "dynamodb", "DescribeTable", query, call.region))["Table"]
    except AwsFailure:
        return {}


def is_on_demand(table: Json) -> bool:
    """Returns whether the described table is billed on demand."""
    return (table.get("BillingModeSummary") or {}).get("BillingMode") == "PAY_PER_REQUEST"


@dataclass
class Life:
    """What happens to a table: when it was created, and until when a change or the deletion lasts."""

    created: float | None = None
    updating: float = 0.0
    # The deleted table, which is still described.
    deleting: float = 0.0
    last: Json = field(default_factory=dict)
    # By the name of the index: until when it is created, and until when it is deleted, with its description.
    new: dict[str, float] = field(default_factory=dict)
    old: dict[str, tuple[float, Json]] = field(default_factory=dict)

    def status(self, now: float) -> str:
        """Returns the status of the table."""
        if now < self.deleting:
            return "DELETING"
        if self.created is not None and now - self.created < CREATING_SECONDS:
            return "CREATING"
        return "UPDATING" if now < self.updating else "ACTIVE"

    def described(self, table: Json, now: float) -> Json:
        """Returns the description of the table with its status and those of its indexes."""
        status = self.status(now)
        indexes = []
        for index in table.get("GlobalSecondaryIndexes") or []:
            new = status == "CREATING" or now < self.new.get(index["IndexName"], 0.0)
            indexes.append({**index, "IndexStatus": "CREATING"} if new else index)
        there = {index["IndexName"] for index in indexes}
        for name, (until, index) in self.old.items():
            if now < until and name not in there:
                indexes.append({**index, "IndexStatus": "DELETING"})
        return {**table, "TableStatus": status, **({"GlobalSecondaryIndexes": indexes} if indexes else {})}


@behaviour(
    service="dynamodb",
    operations=["CreateTable", "DescribeTable"],
    source="DynamoDB API model, DescribeTable",
    certainty="certain",
)
async def new_tables_are_unknown_at_first(call: Call, proceed: Proceed, world: World) -> Answer:
    """DescribeTable may not find a table in the first moments after CreateTable."""
    created = memory_of(call, world, "new_tables_are_unknown_at_first")
    name = table_of(call)
    if call.operation == "DescribeTable":
        if name not in created or world.now() - created[name] >= UNKNOWN_SECONDS:
            return await proceed(call)
        world.fired(call, new_tables_are_unknown_at_first)
        return Answer.error(call, 400, MISSING, f"Requested resource not found: Table: {name} not found")
    answer = await proceed(call)
    if answer.ok:
        created[name] = world.now()
    return answer


@behaviour(
    service="dynamodb",
    operations=["CreateTable", "DescribeTable", *CHANGES, *ITEMS],
    source="DynamoDB API model, CreateTable, UpdateTable, DeleteTable, ResourceInUseException",
    certainty="certain",
)
async def tables_change_slowly(call: Call, proceed: Proceed, world: World) -> Answer:
    """New tables are CREATING and without items, changed ones UPDATING, deleted ones DELETING; changes then wait."""
    lives: dict[str, Life] = memory_of(call, world, "tables_change_slowly")
    name, now = table_of(call), world.now()
    life = lives.setdefault(name, Life()) if name else Life()
    if call.operation in ITEMS:
        if all(lives.get(table, life).status(now) != "CREATING" for table in tables_of(call)):
            return await proceed(call)
        world.fired(call, tables_change_slowly)
        return Answer.error(call, 400, MISSING, "Requested resource not found")
    status = life.status(now)
    refusal = refused(call, name, status)
    if refusal is not None:
        world.fired(call, tables_change_slowly)
        return refusal
    if status == "DELETING" and call.operation in ("DescribeTable", "DeleteTable"):
        world.fired(call, tables_change_slowly)
        member = "Table" if call.operation == "DescribeTable" else "TableDescription"
        return Answer.of(call, {member: life.described(life.last, now)})
    before = await describe(call, world) if call.operation in ("UpdateTable", "DeleteTable") else {}
    answer = await proceed(call)
    if answer.ok and call.operation != "UpdateTimeToLive":
        begin(call, life, before, world.now())
        result = answer.parsed(call)
        member = "Table" if call.operation == "DescribeTable" else "TableDescription"
        described = life.described(result[member], world.now())
        if described != result[member]:
            world.fired(call, tables_change_slowly)
            return Answer.of(call, {member: described})
    return answer


def refused(call: Call, name: str, status: str) -> Answer | None:
    """Returns the refusal of a call that the table's status does not allow."""
    if status == "DELETING" and call.operation in ("UpdateTable", "UpdateTimeToLive"):
        return Answer.error(call, 400, MISSING, f"Requested resource not found: Table: {name} not found")
    verbs = {"CREATING": "created", "UPDATING": "updated", "DELETING": "deleted"}
    busy = {"CREATING", "UPDATING"} if call.operation in CHANGES else set()
    if status not in (busy | {"DELETING"} if call.operation == "CreateTable" else busy):
        return None
    why = f"Attempt to change a resource which is still in use: Table is being {verbs[status]}: {name}"
    return Answer.error(call, 400, IN_USE, why)


def begin(call: Call, life: Life, before: Json, now: float) -> None:
    """Notes the change that the call has begun."""
    if call.operation == "CreateTable":
        life.created, life.updating, life.deleting = now, 0.0, 0.0
        life.new, life.old = {}, {}
    if call.operation == "DeleteTable":
        life.deleting, life.last = now + DELETING_SECONDS, before
    if call.operation == "UpdateTable":
        life.updating = now + UPDATING_SECONDS
        described = {index["IndexName"]: index for index in before.get("GlobalSecondaryIndexes") or []}
        for update in call.params.get("GlobalSecondaryIndexUpdates") or []:
            if "Create" in update:
                life.new[update["Create"]["IndexName"]] = now + UPDATING_SECONDS
            if "Delete" in update and update["Delete"]["IndexName"] in described:
                index = update["Delete"]["IndexName"]
                life.old[index] = (now + UPDATING_SECONDS, described[index])


@behaviour(
    service="dynamodb",
    operations=["CreateTable", "UpdateContinuousBackups"],
    source="DynamoDB API model, ContinuousBackupsUnavailableException; the text: amplify-backend#1654",
    certainty="certain",
)
async def backups_of_young_tables_are_unavailable(call: Call, proceed: Proceed, world: World) -> Answer:
    """The backups of a table become available some time after the table is ACTIVE."""
    created = memory_of(call, world, "backups_of_young_tables_are_unavailable")
    name = table_of(call)
    if call.operation == "UpdateContinuousBackups":
        if name not in created or world.now() - created[name] >= CREATING_SECONDS + BACKUPS_SECONDS:
            return await proceed(call)
        world.fired(call, backups_of_young_tables_are_unavailable)
        why = f"Backups are being enabled for the table: {name}. Please retry later"
        return Answer.error(call, 400, "ContinuousBackupsUnavailableException", why)
    answer = await proceed(call)
    if answer.ok:
        created[name] = world.now()
    return answer


@behaviour(
    service="dynamodb",
    operations=["UpdateTimeToLive", "DeleteTable"],
    source="DynamoDB API model, UpdateTimeToLive; the texts: aws-cdk#13720, cdkd#932",
    certainty="certain",
)
async def time_to_live_changes_rarely(call: Call, proceed: Proceed, world: World) -> Answer:
    """A time to live cannot be set as it is, not to another attribute at once, and not again within an hour."""
    changed = memory_of(call, world, "time_to_live_changes_rarely")
    name = table_of(call)
    if call.operation == "DeleteTable":
        changed.pop(name, None)
        return await proceed(call)
    wanted = call.params["TimeToLiveSpecification"]
    try:
        query = {"TableName": name}
        answer = await world.send(call.account, "dynamodb", "DescribeTimeToLive", query, call.region)
    except AwsFailure:
        return await proceed(call)
    live = answer.get("TimeToLiveDescription") or {}
    on, why = live.get("TimeToLiveStatus") in ("ENABLED", "ENABLING"), None
    if on and wanted["Enabled"]:
        current = live.get("AttributeName")
        other = f"TimeToLive is active on a different AttributeName: current AttributeName is {current}"
        why = "TimeToLive is already enabled" if current == wanted["AttributeName"] else other
    elif not on and not wanted["Enabled"]:
        why = "TimeToLive is already disabled"
    elif world.now() - changed.get(name, -TTL_SECONDS) < TTL_SECONDS:
        why = "Time to live has been modified multiple times within a fixed interval"
    if why is not None:
        world.fired(call, time_to_live_changes_rarely)
        return Answer.error(call, 400, INVALID, why)
    result = await proceed(call)
    if result.ok:
        changed[name] = world.now()
    return result


@behaviour(
    service="dynamodb",
    operations=["CreateTable", "DeleteTable", "ListTagsOfResource"],
    source="DynamoDB API model, TagResource",
    certainty="certain",
)
async def tags_of_young_tables_are_late(call: Call, proceed: Proceed, world: World) -> Answer:
    """ListTagsOfResource shows no tags of a table that was just created."""
    created = memory_of(call, world, "tags_of_young_tables_are_late")
    name = table_of(call)
    answer = await proceed(call)
    if call.operation == "DeleteTable" and answer.ok:
        created.pop(name, None)
    if call.operation == "CreateTable" and answer.ok:
        created[name] = (world.now(), 0)
    if call.operation != "ListTagsOfResource" or not answer.ok or name not in created:
        return answer
    since, calls = created[name]
    created[name] = (since, calls + 1)
    late = calls < CALLS_WITHOUT_TAGS and world.now() - since < YOUNG_SECONDS
    if not late or not answer.parsed(call).get("Tags"):
        return answer
    world.fired(call, tags_of_young_tables_are_late)
    return Answer.of(call, {"Tags": []})


@behaviour(
    service="dynamodb",
    operations=["CreateTable", "TagResource"],
    source="DynamoDB developer guide, tagging restrictions (50 a resource)",
    certainty="certain",
)
async def at_most_50_tags(call: Call, proceed: Proceed, world: World) -> Answer:
    """A resource has at most 50 tags, those that it has already included."""
    tags = {tag["Key"] for tag in call.params.get("Tags") or []}
    if call.operation == "TagResource":
        try:
            query = {"ResourceArn": call.params["ResourceArn"]}
            answer = await world.send(call.account, "dynamodb", "ListTagsOfResource", query, call.region)
        except AwsFailure:
            return await proceed(call)
        tags |= {tag["Key"] for tag in answer.get("Tags") or []}
    if len({tag for tag in tags if not tag.startswith("aws:")}) <= MOST_TAGS:
        return await proceed(call)
    world.fired(call, at_most_50_tags)
    why = f"One or more parameter values were invalid: Too many tags: a resource has at most {MOST_TAGS}"
    return Answer.error(call, 400, INVALID, why)


@behaviour(
    service="dynamodb",
    operations=["CreateTable", "UpdateTable"],
    source="dynein#228, tpa#7447 (UpdateTable), amazon-dynamodb-developer-guide#246 (CreateTable)",
    certainty="seen",
)
async def provisioned_updates_name_every_index(call: Call, proceed: Proceed, world: World) -> Answer:
    """A table that is or becomes provisioned needs units for each of its indexes, one on demand refuses them."""
    why = await wrong_units(call, world)
    if why is None:
        return await proceed(call)
    world.fired(call, provisioned_updates_name_every_index)
    return Answer.error(call, 400, INVALID, f"One or more parameter values were invalid: {why}")


async def wrong_units(call: Call, world: World) -> str | None:
    """Returns what is wrong with the units of the call's indexes."""
    table = await describe(call, world) if call.operation == "UpdateTable" else {}
    if call.operation == "UpdateTable" and not table:
        return None
    mode = call.params.get("BillingMode")
    on_demand = is_on_demand(table) if mode is None else mode == "PAY_PER_REQUEST"
    updates = call.params.get("GlobalSecondaryIndexUpdates") or []
    new = [update["Create"] for update in updates if "Create" in update]
    for index in [*new, *(call.params.get("GlobalSecondaryIndexes") or [])]:
        name, units = index["IndexName"], index.get("ProvisionedThroughput")
        if on_demand and units:
            return (
                f"Neither ReadCapacityUnits nor WriteCapacityUnits can be specified for index: {name} when BillingMode "
                "is PAY_PER_REQUEST"
            )
        if not on_demand and not units:
            return f"ProvisionedThroughput is not specified for index: {name}"
    if on_demand or not is_on_demand(table):
        return None
    if not call.params.get("ProvisionedThroughput"):
        return "ProvisionedThroughput must be specified when BillingMode is PROVISIONED"
    named = {action["IndexName"] for update in updates for action in update.values()}
    unnamed = [index["IndexName"] for index in table.get("GlobalSecondaryIndexes") or []]
    missing = next((name for name in unnamed if name not in named), None)
    return None if missing is None else f"ProvisionedThroughput must be specified for index: {missing}"


@behaviour(
    service="dynamodb",
    operations=["UpdateTable"],
    source="DynamoDB API model, UpdateTable; the texts: npdynamodb#29, cortex#441",
    certainty="seen",
)
async def one_change_of_indexes_at_a_time(call: Call, proceed: Proceed, world: World) -> Answer:
    """UpdateTable creates or deletes one index at a time, and refuses units that an index has already."""
    updates = call.params.get("GlobalSecondaryIndexUpdates") or []
    if sum("Create" in update or "Delete" in update for update in updates) > 1:
        world.fired(call, one_change_of_indexes_at_a_time)
        why = "Only 1 online index can be created or deleted simultaneously per table"
        return Answer.error(call, 400, LIMIT, f"Subscriber limit exceeded: {why}")
    resized = {update["Update"]["IndexName"]: update["Update"] for update in updates if "Update" in update}
    table = await describe(call, world) if resized else {}
    for index in table.get("GlobalSecondaryIndexes") or [] if not is_on_demand(table) else []:
        wanted = (resized.get(index["IndexName"]) or {}).get("ProvisionedThroughput")
        live = index.get("ProvisionedThroughput") or {}
        if wanted and all(live.get(kind) == units for kind, units in wanted.items()):
            world.fired(call, one_change_of_indexes_at_a_time)
            why = f"The provisioned throughput for the index {index['IndexName']} will not change."
            return Answer.error(call, 400, INVALID, f"{why} The requested value equals the current value.")
    return await proceed(call)


@behaviour(
    service="dynamodb",
    operations=["UpdateTable", "DeleteTable"],
    source="DynamoDB developer guide, quotas; the text: amplify-cli#1054",
    certainty="seen",
    optional=True,
)
async def one_change_to_on_demand_a_day(call: Call, proceed: Proceed, world: World) -> Answer:
    """A table changes to on-demand billing once a day."""
    changed = memory_of(call, world, "one_change_to_on_demand_a_day")
    name = table_of(call)
    wanted = call.params.get("BillingMode") == "PAY_PER_REQUEST" and not is_on_demand(await describe(call, world))
    if wanted and world.now() - changed.get(name, -DAY_SECONDS) < DAY_SECONDS:
        world.fired(call, one_change_to_on_demand_a_day)
        why = "Update to PayPerRequest mode are limited to once in 1 day(s)."
        return Answer.error(call, 400, LIMIT, f"Subscriber limit exceeded: {why}")
    answer = await proceed(call)
    if answer.ok and call.operation == "DeleteTable":
        changed.pop(name, None)
    if answer.ok and wanted:
        changed[name] = world.now()
    return answer


# Their behaviours come after those of this module.
from . import scaling, tagging, transactions  # noqa: E402, F401
