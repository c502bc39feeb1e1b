"""DynamoDB's transactions, where MiniStack is laxer: there nothing ever conflicts."""

from __future__ import annotations

import json
from typing import Any

from .registry import Answer, AwsFailure, Call, Proceed, World, behaviour

# Seconds for which a transaction is taken to be ongoing.
ONGOING_SECONDS = 0.5
ONGOING = "Transaction is ongoing for the item"

Json = dict[str, Any]


async def keys_of(call: Call, world: World, table: str) -> list[str] | None:
    """Returns the names of the table's key attributes, or None if there is no such table."""
    known = world.state(call.account).memory.setdefault("transactions_conflict.keys", {})
    if (call.region, table) not in known:
        try:
            found = await world.send(call.account, "dynamodb", "DescribeTable", {"TableName": table}, call.region)
        except AwsFailure:
            return None
        known[call.region, table] = [key["AttributeName"] for key in found["Table"]["KeySchema"]]
    return known[call.region, table]


async def item_of(call: Call, world: World, action: Json) -> str | None:
    """Returns the identity of the item that an action writes: its region, table and key."""
    keys = await keys_of(call, world, action["TableName"])
    values = action.get("Key") or action.get("Item") or {}
    if keys is None or not all(key in values for key in keys):
        return None
    return json.dumps([call.region, action["TableName"], [values[key] for key in keys]], default=repr)


@behaviour(
    service="dynamodb",
    operations=["TransactWriteItems", "PutItem", "UpdateItem", "DeleteItem", "DeleteTable"],
    source="DynamoDB API model, TransactionCanceledException, TransactionConflictException",
    certainty="certain",
)
async def transactions_conflict(call: Call, proceed: Proceed, world: World) -> Answer:
    """Transactions are cancelled by others on the same items, and end plain writes of these items; repeats succeed."""
    memory = world.state(call.account).memory
    if call.operation == "DeleteTable":
        memory.get("transactions_conflict.keys", {}).pop((call.region, call.params["TableName"]), None)
        return await proceed(call)
    ongoing: dict[str, float] = memory.setdefault("transactions_conflict.ongoing", {})
    if call.operation == "TransactWriteItems":
        return await transaction(call, proceed, world, ongoing)
    item = await item_of(call, world, call.params)
    # Each transaction ends one plain write of an item.
    if item is None or world.now() - ongoing.pop(item, -ONGOING_SECONDS) >= ONGOING_SECONDS:
        return await proceed(call)
    world.fired(call, transactions_conflict)
    return Answer.error(call, 400, "TransactionConflictException", ONGOING)


async def transaction(call: Call, proceed: Proceed, world: World, ongoing: dict[str, float]) -> Answer:
    """Cancels the first transaction with these kinds of actions on these items, as if one on the last were ongoing."""
    actions = [(kind, action) for item in call.params["TransactItems"] for kind, action in item.items()]
    items = [await item_of(call, world, action) for _, action in actions]
    if None in items:
        return await proceed(call)
    seen: set[int] = world.state(call.account).memory.setdefault("transactions_conflict.seen", set())
    which = hash(frozenset(zip((kind for kind, _ in actions), items, strict=True)))
    if which not in seen:
        seen.add(which)
        world.fired(call, transactions_conflict)
        codes = ["None"] * (len(items) - 1) + ["TransactionConflict"]
        reasons = [{"Code": code, **({} if code == "None" else {"Message": ONGOING})} for code in codes]
        why = "Transaction cancelled, please refer cancellation reasons for specific reasons"
        text = f"{why} [{', '.join(codes)}]"
        return Answer.error(call, 400, "TransactionCanceledException", text, CancellationReasons=reasons)
    answer = await proceed(call)
    if answer.ok:
        ongoing.update((item, world.now()) for item in items if item is not None)
    return answer
