"""Counts bursts and rates with the release handler against a store that conflicts and throttles as DynamoDB does.

The store, the bucket, Lambda's runtime API and the event source mapping are simulated here; the handler is the real one.
Usage: scale.py BOOTSTRAP REPORT [--quick]
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import gzip
import itertools
import json
import math
import os
import random
import sys
import time
from collections import Counter, defaultdict, deque
from dataclasses import dataclass, field
from typing import Any

import report
from aiohttp import web

HOST = "127.0.0.1"
BUCKET = "events"
HOUR = "2015-08-04T12:00:00Z"
MESSAGES_A_PAIR = 10
# Two transactions that begin within this time and share an item both fail; a later one fails alone. A transaction takes
# from the second to the third time.
BOTH_FAIL, SHORTEST, LONGEST = 0.005, 0.010, 0.025
# The write units that a partition takes in a second (DynamoDB developer guide, partitions).
PARTITION_UNITS = 1000
TIMEOUT = 60
# Lambda invokes again after these times in seconds (Lambda developer guide, asynchronous invocation).
RETRY_AFTER = (60, 120)
REDELIVERIES = 4
# The time after which a run is abandoned.
PATIENCE = 240


@dataclass(frozen=True)
class Way:
    """A way of delivery: the number of invocations at the same time, and the batches."""

    name: str
    workers: int
    batch_size: int
    window: float


QUEUE = Way("queue", 8, 100, 1.0)
FUNCTION = Way("function", 40, 1, 0.0)


@dataclass(frozen=True)
class Load:
    """Objects with the same pairs: all at once, or at a rate."""

    objects: int
    pairs: int
    rate: float = 0.0

    def __str__(self) -> str:
        at = f", {self.rate:.0f} a second" if self.rate else ", at once"
        return f"{self.objects:,} objects of {self.pairs:,} pairs{at}"


# -- the store -----------------------------------------------------------------------------------------------------------


def kilobytes(item: dict[str, Any]) -> int:
    """Returns the write units of an item: each begun kilobyte of names and values is one."""
    size = 0
    for name, value in item.items():
        ((kind, inner),) = value.items()
        size += len(name) + (len(inner) * 3 // 4 if kind == "B" else len(json.dumps(inner)) - 2)
    return max(1, math.ceil(size / 1024))


class Partition:
    """A bucket of write units that refills every second."""

    def __init__(self) -> None:
        self.units, self.at = float(PARTITION_UNITS), time.monotonic()

    def has(self, units: int) -> bool:
        now = time.monotonic()
        self.units = min(PARTITION_UNITS, self.units + (now - self.at) * PARTITION_UNITS)
        self.at = now
        return self.units >= units

    def take(self, units: int) -> None:
        self.units -= units


@dataclass
class Store:
    """The three tables, with DynamoDB's rules of transactions, partitions and write units."""

    ledger: dict[tuple[str, int], dict[str, Any]] = field(default_factory=dict)
    # The chunks of each name in the ledger.
    names: defaultdict[str, set[int]] = field(default_factory=lambda: defaultdict(set))
    counts: Counter[tuple[str, str, str]] = field(default_factory=Counter)
    held: dict[Any, list[Any]] = field(default_factory=dict)
    partitions: defaultdict[Any, Partition] = field(default_factory=lambda: defaultdict(Partition))
    units: int = 0
    conflicts: int = 0
    throttled: int = 0

    async def call(self, request: web.Request) -> web.Response:
        operation = request.headers["x-amz-target"].rpartition(".")[2]
        status, answer = await getattr(self, operation)(json.loads(await request.read()))
        return web.Response(status=status, text=json.dumps(answer), content_type="application/x-amz-json-1.0")

    async def Query(self, params: dict[str, Any]) -> tuple[int, Any]:
        await asyncio.sleep(0.004)
        name = params["ExpressionAttributeValues"][":object"]["S"]
        chunks = sorted(self.names.get(name, ()))
        condition = params["KeyConditionExpression"]
        if "<" in condition:
            chunks = [chunk for chunk in chunks if chunk < 0]
        elif ">=" in condition:
            chunks = [chunk for chunk in chunks if chunk >= 0]
        if params.get("ScanIndexForward") is False:
            chunks.reverse()
        items = [self.ledger[name, chunk] for chunk in chunks[: params.get("Limit", len(chunks))]]
        return 200, {"Items": items, "Count": len(items), "ScannedCount": len(items)}

    async def PutItem(self, params: dict[str, Any]) -> tuple[int, Any]:
        await asyncio.sleep(0.005)
        item = params["Item"]
        # A record has an entry in the index.
        self.units += kilobytes(item) * (2 if "counted_hour" in item else 1)
        self._put(item)
        return 200, {}

    async def TransactWriteItems(self, params: dict[str, Any]) -> tuple[int, Any]:
        actions = params["TransactItems"]
        keys = [self._key(action) for action in actions]
        mine = [time.monotonic(), False]
        for key in keys:
            for other in self.held.get(key, ()):
                mine[1] = True
                if mine[0] - other[0] < BOTH_FAIL:
                    other[1] = True
            self.held.setdefault(key, []).append(mine)
        await asyncio.sleep(random.uniform(SHORTEST, LONGEST))
        for key in keys:
            self.held[key].remove(mine)
            if not self.held[key]:
                del self.held[key]
        if mine[1]:
            self.conflicts += 1
            return self._cancelled(["TransactionConflict"] * len(actions))
        exists = [key[0] == "ledger" and key[1] in self.ledger for key in keys]
        if any(exists):
            return self._cancelled(["ConditionalCheckFailed" if one else "None" for one in exists])
        needs: Counter[Any] = Counter()
        for key in keys:
            if key[0] == "counts":
                needs["by-hour", key[1][1]] += 1
            elif key[0] == "daily":
                needs["daily", key[1][0]] += 2
        if not all(self.partitions[name].has(units) for name, units in needs.items()):
            self.throttled += 1
            return self._cancelled(["ThrottlingError"] * len(actions))
        for name, units in needs.items():
            self.partitions[name].take(units)
        for key, action in zip(keys, actions):
            if key[0] == "ledger":
                self.units += 2 * kilobytes(action["Put"]["Item"])
                self._put(action["Put"]["Item"])
            else:
                # Twice in the transaction, and once in the index.
                self.units += 3 if key[0] == "counts" else 2
                count = int(action["Update"]["ExpressionAttributeValues"][":count"]["N"])
                self.counts[key[0], *key[1]] += count
        return 200, {}

    def _put(self, item: dict[str, Any]) -> None:
        name, chunk = item["object"]["S"], int(item["chunk"]["N"])
        self.ledger[name, chunk] = item
        self.names[name].add(chunk)

    def _key(self, action: dict[str, Any]) -> tuple[str, tuple[Any, ...]]:
        if "Put" in action:
            item = action["Put"]["Item"]
            return "ledger", (item["object"]["S"], int(item["chunk"]["N"]))
        update = action["Update"]
        names = ("event", "hour") if update["TableName"] == "counts" else ("day", "event")
        return update["TableName"], tuple(update["Key"][name]["S"] for name in names)

    @staticmethod
    def _cancelled(codes: list[str]) -> tuple[int, Any]:
        reasons = [{"Code": code} for code in codes]
        return 400, {
            "__type": "com.amazonaws.dynamodb.v20120810#TransactionCanceledException",
            "Message": "Transaction cancelled, please refer cancellation reasons for specific reasons",
            "CancellationReasons": reasons,
        }


# -- the delivery --------------------------------------------------------------------------------------------------------


@dataclass
class Delivery:
    """The queue and its mapping, or Lambda's own queue of asynchronous invocations."""

    way: Way
    waiting: deque[tuple[int, int]] = field(default_factory=deque)
    arrived: asyncio.Event = field(default_factory=asyncio.Event)
    taking: asyncio.Lock = field(default_factory=asyncio.Lock)
    running: dict[str, list[tuple[int, int]]] = field(default_factory=dict)
    done: set[int] = field(default_factory=set)
    repeated: int = 0
    failed: int = 0
    invocations: int = 0

    def put(self, number: int, attempt: int = 0) -> None:
        self.waiting.append((number, attempt))
        self.arrived.set()

    async def take(self) -> list[tuple[int, int]]:
        async with self.taking:
            while not self.waiting:
                self.arrived.clear()
                await self.arrived.wait()
            end = time.monotonic() + self.way.window
            while len(self.waiting) < self.way.batch_size and (left := end - time.monotonic()) > 0:
                await asyncio.sleep(min(left, 0.05))
            return [self.waiting.popleft() for _ in range(min(len(self.waiting), self.way.batch_size))]

    def end(self, messages: list[tuple[int, int]], failed: set[int]) -> None:
        for number, attempt in messages:
            if number not in failed:
                self.done.add(number)
                continue
            queue = self.way is QUEUE
            if attempt >= (REDELIVERIES if queue else len(RETRY_AFTER)):
                self.failed += 1
                self.done.add(number)
                continue
            self.repeated += 1
            after = 6 * TIMEOUT if queue else RETRY_AFTER[attempt]
            asyncio.get_running_loop().call_later(after, self.put, number, attempt + 1)

    async def next(self, _request: web.Request) -> web.Response:
        messages = await self.take()
        self.invocations += 1
        identifier = f"{self.invocations:08x}-0000-0000-0000-000000000000"
        self.running[identifier] = messages
        bodies = [{"Records": [record(number)]} for number, _ in messages]
        event = bodies[0]
        if self.way is QUEUE:
            event = {
                "Records": [
                    {
                        "messageId": str(number),
                        "body": json.dumps(body),
                        "eventSource": "aws:sqs",
                        "eventSourceARN": "arn:aws:sqs:us-east-1:123456789012:events-notifications",
                        "attributes": {"ApproximateReceiveCount": str(attempt + 1)},
                    }
                    for (number, attempt), body in zip(messages, bodies)
                ]
            }
        headers = {
            "Lambda-Runtime-Aws-Request-Id": identifier,
            "Lambda-Runtime-Deadline-Ms": str(int((time.time() + TIMEOUT) * 1000)),
            "Lambda-Runtime-Invoked-Function-Arn": "arn:aws:lambda:us-east-1:123456789012:function:events-handler",
        }
        return web.json_response(event, headers=headers)

    async def respond(self, request: web.Request) -> web.Response:
        messages = self.running.pop(request.match_info["id"])
        failed: set[int] = set()
        if request.match_info["kind"] == "error":
            failed = {number for number, _ in messages}
        elif self.way is QUEUE:
            answer = await request.json()
            failed = {int(one["itemIdentifier"]) for one in answer.get("batchItemFailures", [])}
        self.end(messages, failed)
        return web.json_response({}, status=202)


def record(number: int) -> dict[str, Any]:
    """Returns the notification of an object."""
    return {
        "eventSource": "aws:s3",
        "eventName": "ObjectCreated:Put",
        "s3": {"bucket": {"name": BUCKET}, "object": {"key": f"segment-logs/x/1/{number}.gz"}},
    }


def content(number: int, pairs: int) -> bytes:
    """Returns an object with these pairs, unlike all others."""
    lines = (
        f'{{"type":"track","event":"Event {pair:04}","messageId":"{number}-{pair}-{n}","timestamp":"{HOUR}"}}\n'
        for pair, n in itertools.product(range(pairs), range(MESSAGES_A_PAIR))
    )
    return gzip.compress("".join(lines).encode(), compresslevel=1)


# -- a run ---------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Outcome:
    """What a run took."""

    seconds: float
    units: float
    delivery: Delivery
    store: Store


async def run(bootstrap: str, load: Load, way: Way) -> Outcome:
    """Lets the handler count a load, and checks the counts."""
    store, delivery = Store(), Delivery(way)
    objects = {number: content(number, load.pairs) for number in range(load.objects)}

    async def get(request: web.Request) -> web.Response:
        number = int(request.path.rpartition("/")[2].removesuffix(".gz"))
        headers = {"ETag": f'"{number}"', "Last-Modified": "Tue, 04 Aug 2015 12:00:00 GMT"}
        return web.Response(body=objects[number], headers=headers)

    app = web.Application(client_max_size=1 << 24)
    app.router.add_post("/", store.call)
    app.router.add_get("/2018-06-01/runtime/invocation/next", delivery.next)
    app.router.add_post("/2018-06-01/runtime/invocation/{id}/{kind}", delivery.respond)
    app.router.add_get("/{tail:.*}", get)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1, handler_cancellation=True)
    await runner.setup()
    site = web.TCPSite(runner, HOST, 0)
    await site.start()
    port = site._server.sockets[0].getsockname()[1]
    environment = report.function_environment(f"{HOST}:{port}") | {"AWS_ENDPOINT_URL": f"http://{HOST}:{port}"}
    nowhere = asyncio.subprocess.DEVNULL
    workers = [
        await asyncio.create_subprocess_exec(bootstrap, env=environment, stdout=nowhere, stderr=nowhere)
        for _ in range(way.workers)
    ]
    begun = time.monotonic()
    try:
        for number in range(load.objects):
            if load.rate:
                await asyncio.sleep(max(0.0, begun + number / load.rate - time.monotonic()))
            delivery.put(number)
        while len(delivery.done) < load.objects and time.monotonic() - begun < PATIENCE:
            if any(worker.returncode is not None for worker in workers):
                sys.exit("a handler ended")
            await asyncio.sleep(0.02)
        seconds = time.monotonic() - begun
    finally:
        for worker in workers:
            with contextlib.suppress(ProcessLookupError):
                worker.kill()
            await worker.wait()
        await runner.cleanup()
    undone = load.objects - len(delivery.done)
    delivery.failed += undone
    counted = load.objects - delivery.failed
    each = {store.counts["counts", f"Event {pair:04}", HOUR] for pair in range(load.pairs)}
    days = {store.counts["daily", HOUR[:10], f"Event {pair:04}"] for pair in range(load.pairs)}
    # An object that failed may be added in part, and is finished later.
    if not undone and delivery.failed == 0 and each | days != {counted * MESSAGES_A_PAIR}:
        sys.exit(f"wrong counts: {each | days} instead of {counted * MESSAGES_A_PAIR}")
    return Outcome(seconds, store.units / load.objects, delivery, store)


def row(load: Load, outcome: Outcome) -> str:
    delivery, store = outcome.delivery, outcome.store
    # One update for each message: a unit, and one for the index.
    naive = load.pairs * MESSAGES_A_PAIR * 2
    cells = [
        str(load),
        f"`{delivery.way.name}`",
        f"{outcome.seconds:.1f}",
        f"{delivery.invocations:,}",
        f"{store.conflicts:,}",
        f"{store.throttled:,}",
        f"{delivery.repeated:,}",
        f"{delivery.failed:,}",
        f"{outcome.units:,.1f}",
        f"{naive:,}",
    ]
    return f"| {' | '.join(cells)} |"


async def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("bootstrap")
    parser.add_argument("report")
    parser.add_argument("--quick", action="store_true", help="only a small burst through the queue")
    arguments = parser.parse_args()
    bootstrap = os.path.abspath(arguments.bootstrap)
    if arguments.quick:
        load = Load(200, 60)
        print(row(load, await run(bootstrap, load, QUEUE)))
        return
    rows = []
    for load in (Load(300, 100), Load(100, 1_000), Load(300, 100, 10), Load(1_500, 20, 50)):
        for way in (QUEUE, FUNCTION):
            rows.append(row(load, await run(bootstrap, load, way)))
            print(rows[-1], flush=True)
    lines = [
        "Written by `make bench-scale`. The release handler counts objects with the same pairs, ten messages each, of the",
        "present hour. It runs against a simulated DynamoDB: transactions take 10 to 25 ms, two that share an item within 5 ms",
        "both fail and a later one alone, and a partition takes 1,000 write units a second. `queue` is the default: up to 8",
        "invocations at a time, batches of 100, a window of 1 s. `function` is one invocation for each object, up to 40 at a",
        f"time. A run ends after {PATIENCE // 60} minutes; what is not counted then has failed. Write units are those of what",
        "was written; the last column is what the handler of 2015 wrote, one update for each message, which was not exact.",
        "",
        "| load | `via` | seconds | invocations | conflicts | throttled | delivered again | failed | write units an object | one "
        "update a message |",
        "| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
        *rows,
    ]
    print(report.write(arguments.report, "Bursts and rates", lines))


if __name__ == "__main__":
    asyncio.run(main())
