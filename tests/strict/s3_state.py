"""What the behaviours of S3 know of buckets: what they remember, who owns a bucket, and which calls change one."""

from __future__ import annotations

from typing import Any

from .registry import ACCOUNT, Answer, AwsFailure, Call, Proceed, World

SETTINGS = (
    "Abac", "AccelerateConfiguration", "Acl", "Cors", "Encryption", "LifecycleConfiguration", "Logging",
    "NotificationConfiguration", "OwnershipControls", "Policy", "Replication", "RequestPayment", "Tagging",
    "Versioning", "Website",
)  # fmt: skip
READS = tuple(f"GetBucket{setting}" for setting in SETTINGS) + ("GetPublicAccessBlock",)
DELETES = (
    "DeleteBucketCors", "DeleteBucketEncryption", "DeleteBucketLifecycle", "DeleteBucketOwnershipControls",
    "DeleteBucketPolicy", "DeleteBucketReplication", "DeleteBucketTagging", "DeleteBucketWebsite",
    "DeletePublicAccessBlock",
)  # fmt: skip
CHANGES = tuple(f"PutBucket{setting}" for setting in SETTINGS) + ("PutPublicAccessBlock",) + DELETES
# The tags of a bucket can also be changed by the control API.
CONTROL_CHANGES = ("TagResource", "UntagResource")

MALFORMED = "The XML you provided was not well-formed or did not validate against our published schema"

_MEMORY = "s3."


def memory(world: World, account: str, name: str) -> dict[str, Any]:
    """Returns what a behaviour remembers of the account's buckets, by the bucket's name."""
    return world.state(account).memory.setdefault(f"{_MEMORY}{name}", {})


def forget(world: World, call: Call) -> None:
    """Forgets a deleted bucket."""
    for name, remembered in world.state(call.account).memory.items():
        if name.startswith(_MEMORY):
            remembered.pop(bucket_of(call), None)


async def forgetting(call: Call, proceed: Proceed, world: World) -> Answer:
    """Deletes a bucket, and forgets it if that succeeds."""
    answer = await proceed(call)
    if answer.ok:
        forget(world, call)
    return answer


def bucket_of(call: Call) -> str:
    """Returns the bucket that the call is about."""
    if call.service == "s3control":
        return call.params.get("ResourceArn", "").rpartition(":::")[2].partition("/")[0]
    return call.params.get("Bucket", "")


async def exists(world: World, call: Call, bucket: str) -> bool:
    """Returns whether there is a bucket of this name, of whatever account."""
    try:
        await world.send(call.account, "s3", "HeadBucket", {"Bucket": bucket}, call.region)
    except AwsFailure as failure:
        return failure.status != 404
    return True


async def owns(world: World, account: str, bucket: str) -> bool:
    """Returns whether the account owns a bucket of this name."""
    if not ACCOUNT.fullmatch(account):
        return False
    known = memory(world, account, "owned")
    if bucket not in known:
        listed = await world.send(account, "s3", "ListBuckets", {"Prefix": bucket})
        if any(entry["Name"] == bucket for entry in listed.get("Buckets", [])):
            known[bucket] = True
    return bucket in known


def listed(value: Any) -> list[Any]:
    """Returns a member of a policy as a list. A single value stands for a list of one."""
    return value if isinstance(value, list) else [] if value is None else [value]
