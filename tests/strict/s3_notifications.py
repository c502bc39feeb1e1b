"""The behaviours of Amazon S3: the notification configuration of a bucket."""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import quote, unquote_plus

from . import policies
from .registry import Answer, AwsFailure, Call, Proceed, World, behaviour
from .s3_state import bucket_of, forgetting, listed, memory

# Seconds for which reads do not see a put.
STALE_SECONDS = 1.5
# Seconds until S3 sees a new permission of a function.
PERMISSION_SECONDS = 1.0

# The kinds of configurations, with the member that names the destination.
KINDS = {
    "LambdaFunctionConfigurations": "LambdaFunctionArn",
    "QueueConfigurations": "QueueArn",
    "TopicConfigurations": "TopicArn",
}
UNVALIDATED = "Unable to validate the following destination configurations"

# Letters and digits are safe too. The slash is not on the list of the guide, but in its examples of prefixes.
SAFE = "!-_.*'()/"
VALUE = re.compile(r"(?:[A-Za-z0-9!\-_.*'()/+]|%[0-9A-Fa-f]{2})*")
# Begins the values that MiniStack stores for those that match no key. No key has this character of private use.
NO_KEY = "\ue000"


def _entries(configuration: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    for kind, destination in KINDS.items():
        for entry in configuration.get(kind, []):
            yield entry[destination], entry


def _rules(entry: dict[str, Any]) -> dict[str, str]:
    rules = entry.get("Filter", {}).get("Key", {}).get("FilterRules", [])
    return {rule.get("Name", "").lower(): rule.get("Value", "") for rule in rules}


async def _current(world: World, call: Call) -> dict[str, Any]:
    """Returns the configuration as S3 would return it."""
    bucket = {"Bucket": bucket_of(call)}
    stored = await world.send(call.account, "s3", "GetBucketNotificationConfiguration", bucket, call.region)
    return _with_values(stored, lambda value: _returned(world, call, value))


# Destinations


def _overlap(one: dict[str, Any], other: dict[str, Any]) -> bool:
    events = itertools.product(one.get("Events", []), other.get("Events", []))
    if not any(policies.matches(a, b) or policies.matches(b, a) for a, b in events):
        return False
    (mine, yours), ends = (_rules(one), _rules(other)), {}
    for name in ("prefix", "suffix"):
        # A suffix is a prefix of the reversed key.
        a, b = (rules.get(name, "")[:: 1 if name == "prefix" else -1] for rules in (mine, yours))
        ends[name] = a.startswith(b) or b.startswith(a)
    return all(ends.values())


def _ambiguity(configuration: dict[str, Any]) -> str | None:
    entries = [entry for _, entry in _entries(configuration)]
    ids = [entry["Id"] for entry in entries if entry.get("Id")]
    if len(set(ids)) < len(ids):
        return "Same ID used for multiple configurations. IDs must be unique"
    if any(_overlap(one, other) for one, other in itertools.combinations(entries, 2)):
        return (
            "Configuration is ambiguously defined. Cannot have overlapping suffixes in two rules if the prefixes are "
            "overlapping for the same event type."
        )
    return None


def _lets_s3_invoke(statement: dict[str, Any], call: Call) -> bool:
    principal = statement.get("Principal")
    names = listed(principal.get("Service")) if isinstance(principal, dict) else listed(principal)
    allowed = any(policies.matches(action, "lambda:InvokeFunction") for action in listed(statement.get("Action")))
    if statement.get("Effect") != "Allow" or not allowed or not {"s3.amazonaws.com", "*"} & set(names):
        return False
    sent = {"aws:sourcearn": f"arn:aws:s3:::{bucket_of(call)}", "aws:sourceaccount": call.account}
    conditions = [(key.lower(), listed(values)) for keys in statement.get("Condition", {}).values()
                  for key, values in keys.items()]
    return all(
        key in sent and any(policies.matches(value, sent[key]) for value in values) for key, values in conditions
    )


async def _may_invoke(world: World, call: Call, function: str, added: dict[str, float]) -> bool:
    parts = function.split(":")
    target = {"FunctionName": parts[6], **({"Qualifier": parts[7]} if len(parts) > 7 else {})}
    try:
        answer = await world.send(parts[4], "lambda", "GetPolicy", target, parts[3])
    except AwsFailure:
        return False
    return any(
        _lets_s3_invoke(statement, call)
        and world.now() - added.get(f"{parts[6]}/{statement.get('Sid')}", float("-inf")) >= PERMISSION_SECONDS
        for statement in policies.statements(json.loads(answer["Policy"]))
    )


@behaviour(
    service="lambda",
    operations=["AddPermission"],
    source="S3 user guide, granting permissions to publish event notification messages; eventual consistency",
    certainty="seen",
)
@behaviour(
    service="s3",
    operations=["PutBucketNotificationConfiguration"],
    source="S3 API reference, PutBucketNotificationConfiguration; cdk-serverless-clamscan#612, aws-cli#2387",
    certainty="certain",
)
async def notification_destinations_are_validated(call: Call, proceed: Proceed, world: World) -> Answer:
    """Each destination must let S3 send to it, and two entries for the same objects and events are refused.

    A permission of a function counts from a second after it was added.
    """
    added = world.state(call.account).memory.setdefault("notification_destinations_are_validated", {})
    if call.service == "lambda":
        answer = await proceed(call)
        if answer.ok:
            name = call.params["FunctionName"].rpartition("function:")[2].partition(":")[0]
            added[f"{name}/{call.params['StatementId']}"] = world.now()
        return answer
    configuration = call.params.get("NotificationConfiguration", {})
    fault = _ambiguity(configuration)
    refused: dict[str, str] = {}
    if fault is None and not call.params.get("SkipDestinationValidation"):
        for destination, entry in _entries(configuration):
            if "LambdaFunctionArn" in entry and not await _may_invoke(world, call, destination, added):
                refused = {
                    "ArgumentName1": destination,
                    "ArgumentValue1": f"Not authorized to invoke function [{destination}]",
                }
                fault = UNVALIDATED
                break
    if fault is None:
        answer = await proceed(call)
        # MiniStack validates queues and topics, and appends their ARNs.
        text = "" if answer.ok else answer.parsed(call).get("Error", {}).get("Message", "")
        if not text.startswith(UNVALIDATED):
            return answer
        fault = UNVALIDATED
    world.fired(call, notification_destinations_are_validated)
    return Answer.error(call, 400, "InvalidArgument", fault, **refused)


# Consistency


@behaviour(
    service="s3",
    operations=["GetBucketNotificationConfiguration", "PutBucketNotificationConfiguration", "DeleteBucket"],
    source="S3 user guide, data consistency model: bucket configurations are eventually consistent",
    certainty="certain",
)
async def notification_reads_are_stale(call: Call, proceed: Proceed, world: World) -> Answer:
    """Reads see a put of the notification configuration after a second and a half."""
    kept, bucket = memory(world, call.account, "notifications"), bucket_of(call)
    if call.operation == "DeleteBucket":
        return await forgetting(call, proceed, world)
    # Pairs of the time from which reads see a configuration, and the configuration.
    history: list[tuple[float, dict[str, Any]]] = kept.get(bucket, [])
    if call.operation == "PutBucketNotificationConfiguration":
        try:
            before = await _current(world, call)
        except AwsFailure:
            return await proceed(call)
        answer = await proceed(call)
        if answer.ok:
            history = [*(history or [(float("-inf"), before)]), (world.now() + STALE_SECONDS, {})]
            history[-1] = (history[-1][0], await _current(world, call))
            kept[bucket] = history
        return answer
    answer = await proceed(call)
    if not answer.ok or not history:
        return answer
    seen = [configuration for time, configuration in history if time <= world.now()]
    if len(seen) == len(history):
        kept.pop(bucket, None)
        return answer
    world.fired(call, notification_reads_are_stale)
    return Answer.of(call, seen[-1])


# Filters


def _decoded(value: str) -> str:
    """Returns the text that S3 matches keys against, or a text that no key matches for a value that is not encoded."""
    try:
        text = unquote_plus(value, errors="strict")
    except UnicodeDecodeError:
        return NO_KEY + value
    # XML has no control characters, so MiniStack could not store them.
    return text if VALUE.fullmatch(value) and not re.search(r"[\x00-\x1f]", text) else NO_KEY + value


def _encoded(text: str) -> str:
    return quote(text, safe=SAFE).replace("%20", "+").replace("~", "%7E")


def _with_values(configuration: dict[str, Any], change: Callable[[str], str]) -> dict[str, Any]:
    """Returns the configuration with each value of a filter rule changed, and the rules' names as S3 returns them."""
    changed = dict(configuration)
    for kind in KINDS:
        if kind in configuration:
            changed[kind] = [_entry_with_values(entry, change) for entry in configuration[kind]]
    return changed


def _entry_with_values(entry: dict[str, Any], change: Callable[[str], str]) -> dict[str, Any]:
    rules = entry.get("Filter", {}).get("Key", {}).get("FilterRules")
    if rules is None:
        return entry
    changed = [
        {"Name": rule.get("Name", "").capitalize(), "Value": change(rule.get("Value", ""))} for rule in rules
    ]
    return {**entry, "Filter": {"Key": {"FilterRules": changed}}}


def _returned(world: World, call: Call, stored: str) -> str:
    """Returns the value as it was put, or the encoded one if it was put elsewhere."""
    if stored.startswith(NO_KEY):
        return stored[len(NO_KEY) :]
    put = memory(world, call.account, "filter values").get(bucket_of(call), {})
    return put.get(stored, _encoded(stored))


@behaviour(
    service="s3",
    operations=["GetBucketNotificationConfiguration", "PutBucketNotificationConfiguration", "DeleteBucket"],
    source="S3 user guide, object key name filtering; aws-cdk#28012",
    certainty="certain",
)
async def notification_filters_are_url_encoded(call: Call, proceed: Proceed, world: World) -> Answer:
    """The values of filters are URL-encoded; a value with a raw special character matches no object."""
    if call.operation == "DeleteBucket":
        return await forgetting(call, proceed, world)
    if call.operation == "GetBucketNotificationConfiguration":
        answer = await proceed(call)
        if not answer.ok:
            return answer
        stored = answer.parsed(call)
        returned = _with_values(stored, lambda value: _returned(world, call, value))
        return answer if returned == stored else Answer.of(call, returned)
    put: dict[str, str] = memory(world, call.account, "filter values").setdefault(bucket_of(call), {})
    configuration = call.params.get("NotificationConfiguration", {})
    values = {value for _, entry in _entries(configuration) for value in _rules(entry).values()}
    put.update({_decoded(value): value for value in values})
    if all(_decoded(value) == value for value in values):
        return await proceed(call)
    world.fired(call, notification_filters_are_url_encoded)
    return await proceed(call.with_params(NotificationConfiguration=_with_values(configuration, _decoded)))
