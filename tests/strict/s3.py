"""The behaviours of Amazon S3: buckets, their creation, and what all changes of their settings have in common."""

from __future__ import annotations

import asyncio

from .registry import ACCOUNT, Answer, Call, Proceed, World, behaviour
from .s3_state import CHANGES, CONTROL_CHANGES, MALFORMED, READS, bucket_of, exists, forgetting, memory, owns

# Seconds in which parts of S3 do not know a new bucket yet.
NEW_BUCKET_SECONDS = 2.0
# Seconds for which a change of a bucket is in progress after MiniStack made it, so that calls sent together overlap.
CHANGE_SECONDS = 0.03
# Seconds for which a bucket is busy after a change.
BUSY_SECONDS = 0.5
# Seconds for which the name of a deleted bucket cannot be used.
HELD_SECONDS = 1.0

ABORTED = "A conflicting conditional operation is currently in progress against this resource. Please try again."


def _aborted(call: Call) -> Answer:
    return Answer.error(call, 409, "OperationAborted", ABORTED)


# Names and creation

RESERVED_PREFIXES = ("xn--", "sthree-", "amzn-s3-demo-")
RESERVED_SUFFIXES = ("-s3alias", "--ol-s3", ".mrap", "--x-s3", "--table-s3")


def _is_reserved(call: Call, bucket: str) -> bool:
    if bucket.startswith(RESERVED_PREFIXES) or bucket.endswith(RESERVED_SUFFIXES):
        return True
    own = bucket.endswith(f"-{call.account}-{call.region}-an")
    regional = call.params.get("BucketNamespace") == "account-regional"
    return (bucket.endswith("-an") or regional) and not (own and regional)


@behaviour(
    service="s3",
    operations=["CreateBucket"],
    source="S3 user guide, general purpose bucket naming rules, namespaces for general purpose buckets",
    certainty="certain",
)
async def reserved_bucket_names_are_refused(call: Call, proceed: Proceed, world: World) -> Answer:
    """CreateBucket refuses reserved prefixes and suffixes; a name in -an must be in the account's own namespace."""
    if not _is_reserved(call, bucket_of(call)):
        return await proceed(call)
    world.fired(call, reserved_bucket_names_are_refused)
    return Answer.error(call, 400, "InvalidBucketName", "The specified bucket is not valid.")


@behaviour(
    service="s3",
    operations=["CreateBucket"],
    source="terraform-provider-aws#45684, #45566, #47061",
    certainty="seen",
    optional=True,
)
async def create_bucket_with_tags_is_refused(call: Call, proceed: Proceed, world: World) -> Answer:
    """CreateBucket refuses tags, as in the European Sovereign Cloud and in older S3-compatible servers.

    Setting `create_bucket_tags`: the code, "UnsupportedArgument" (the default) or "MalformedXML".
    """
    if not call.params.get("CreateBucketConfiguration", {}).get("Tags"):
        return await proceed(call)
    world.fired(call, create_bucket_with_tags_is_refused)
    code = world.state(call.account).settings.get("create_bucket_tags", "UnsupportedArgument")
    text = MALFORMED if code == "MalformedXML" else "The request contained an unsupported argument."
    return Answer.error(call, 400, code, text)


@behaviour(
    service="s3",
    operations=[],
    source="S3 user guide, verifying bucket ownership with bucket owner condition",
    certainty="certain",
)
async def expected_bucket_owners_are_checked(call: Call, proceed: Proceed, world: World) -> Answer:
    """A call whose expected bucket owner does not own the bucket answers 403."""
    expected, bucket = call.params.get("ExpectedBucketOwner"), bucket_of(call)
    if not expected:
        return await proceed(call)
    if not ACCOUNT.fullmatch(expected):
        world.fired(call, expected_bucket_owners_are_checked)
        text = "The value of the expected bucket owner parameter must be an AWS account ID."
        return Answer.error(call, 400, "InvalidBucketOwnerAWSAccountID", text)
    if await owns(world, expected, bucket) or not await exists(world, call, bucket):
        if call.operation == "DeleteBucket":
            return await forgetting(call, proceed, world)
        return await proceed(call)
    world.fired(call, expected_bucket_owners_are_checked)
    return Answer.error(call, 403, "AccessDenied", "Access Denied")


@behaviour(
    service="s3",
    operations=["CreateBucket", "DeleteBucket"],
    source="S3 user guide, deleting a bucket; aws-cli#2593",
    certainty="seen",
)
async def names_of_deleted_buckets_are_held(call: Call, proceed: Proceed, world: World) -> Answer:
    """CreateBucket answers OperationAborted for a short time after the deletion of a bucket of that name."""
    # Not in memory(), which forgets deleted buckets.
    deleted = world.state(call.account).memory.setdefault("names_of_deleted_buckets_are_held", {})
    if call.operation == "DeleteBucket":
        answer = await proceed(call)
        if answer.ok:
            deleted[bucket_of(call)] = world.now()
        return answer
    if world.now() - deleted.get(bucket_of(call), float("-inf")) < HELD_SECONDS:
        world.fired(call, names_of_deleted_buckets_are_held)
        return _aborted(call)
    return await proceed(call)


@behaviour(
    service="s3",
    operations=["CreateBucket", "DeleteBucket", *READS, *CHANGES],
    source="S3 user guide, data consistency model (bucket configurations); terraform-provider-aws#372",
    certainty="seen",
)
async def new_buckets_are_unknown_at_first(call: Call, proceed: Proceed, world: World) -> Answer:
    """The first read or change of each setting of a bucket that is younger than two seconds answers NoSuchBucket."""
    new, bucket = memory(world, call.account, "new"), bucket_of(call)
    if call.operation == "DeleteBucket":
        return await forgetting(call, proceed, world)
    if call.operation == "CreateBucket":
        existed = await exists(world, call, bucket)
        answer = await proceed(call)
        if answer.ok and not existed:
            new[bucket] = (world.now(), set())
        return answer
    created, asked = new.get(bucket, (float("-inf"), set()))
    if world.now() - created >= NEW_BUCKET_SECONDS or call.operation in asked:
        return await proceed(call)
    asked.add(call.operation)
    world.fired(call, new_buckets_are_unknown_at_first)
    return Answer.error(call, 404, "NoSuchBucket", "The specified bucket does not exist", BucketName=bucket)


# Changes

@behaviour(
    service="s3control",
    operations=CONTROL_CHANGES,
    source="S3 API reference, PutBucketTagging: OperationAborted",
    certainty="likely",
)
@behaviour(
    service="s3",
    operations=["CreateBucket", "DeleteBucket", *CHANGES],
    source="S3 API reference, error responses: OperationAborted; terraform-provider-aws#7628, #36873",
    certainty="seen",
)
async def settings_of_one_bucket_conflict(call: Call, proceed: Proceed, world: World) -> Answer:
    """Of two changes of one bucket at the same time, the later one answers OperationAborted."""
    changing, bucket = memory(world, call.account, "changing"), bucket_of(call)
    if bucket in changing:
        world.fired(call, settings_of_one_bucket_conflict)
        return _aborted(call)
    changing[bucket] = call.operation
    try:
        answer = await proceed(call)
        await asyncio.sleep(CHANGE_SECONDS)
        return answer
    finally:
        changing.pop(bucket, None)


@behaviour(
    service="s3control",
    operations=CONTROL_CHANGES,
    source="S3 API reference, PutBucketTagging: OperationAborted",
    certainty="likely",
)
@behaviour(
    service="s3",
    operations=["CreateBucket", "DeleteBucket", *CHANGES],
    source="pulumi-aws#588, terraform-provider-aws#7628, #33478, #33531",
    certainty="seen",
)
async def buckets_are_busy_after_a_change(call: Call, proceed: Proceed, world: World) -> Answer:
    """DeleteBucket and PutBucketNotificationConfiguration right after another change answer OperationAborted."""
    changed, bucket = memory(world, call.account, "changed"), bucket_of(call)
    sensitive = call.operation in ("DeleteBucket", "PutBucketNotificationConfiguration")
    if sensitive and world.now() - changed.get(bucket, float("-inf")) < BUSY_SECONDS:
        world.fired(call, buckets_are_busy_after_a_change)
        return _aborted(call)
    if call.operation == "DeleteBucket":
        return await forgetting(call, proceed, world)
    answer = await proceed(call)
    if answer.ok:
        changed[bucket] = world.now()
    return answer


@behaviour(
    service="s3",
    operations=["CreateBucket"],
    source="S3 user guide, blocking public access, default encryption, blocking SSE-C for a general purpose bucket",
    certainty="certain",
)
async def new_buckets_have_defaults(call: Call, proceed: Proceed, world: World) -> Answer:
    """A new bucket blocks public access, encrypts with SSE-S3 and blocks SSE-C.

    Its ownership is BucketOwnerEnforced, which MiniStack answers by itself.
    """
    existed, bucket = await exists(world, call, bucket_of(call)), {"Bucket": bucket_of(call)}
    answer = await proceed(call)
    if not answer.ok or existed:
        return answer
    names = ("BlockPublicAcls", "IgnorePublicAcls", "BlockPublicPolicy", "RestrictPublicBuckets")
    block = {"PublicAccessBlockConfiguration": dict.fromkeys(names, True)}
    rule = {
        "ApplyServerSideEncryptionByDefault": {"SSEAlgorithm": "AES256"},
        "BucketKeyEnabled": False,
        "BlockedEncryptionTypes": {"EncryptionType": ["SSE-C"]},
    }
    encryption = {"ServerSideEncryptionConfiguration": {"Rules": [rule]}}
    region = call.params.get("CreateBucketConfiguration", {}).get("LocationConstraint") or call.region
    await world.send(call.account, "s3", "PutPublicAccessBlock", {**bucket, **block}, region)
    await world.send(call.account, "s3", "PutBucketEncryption", {**bucket, **encryption}, region)
    world.fired(call, new_buckets_have_defaults)
    return answer


@behaviour(
    service="s3",
    operations=[],
    source="S3 API model, HeadBucket; botocore, S3RegionRedirectorv2",
    certainty="certain",
    optional=True,
)
async def buckets_in_other_regions_answer_400(call: Call, proceed: Proceed, world: World) -> Answer:
    """A call signed for another region than the bucket's answers 400 with the right region, a HEAD without a body.

    Without this behaviour the answer is 301 PermanentRedirect. Both have the header x-amz-bucket-region.
    """
    answer = await proceed(call)
    region = answer.headers.get("x-amz-bucket-region")
    if answer.status != 301 or not region:
        return answer
    world.fired(call, buckets_in_other_regions_answer_400)
    text = f"The authorization header is malformed; the region '{call.region}' is wrong; expecting '{region}'"
    refused = Answer.error(call, 400, "AuthorizationHeaderMalformed", text, Region=region)
    refused.headers["x-amz-bucket-region"] = region
    return Answer(400, refused.headers, b"") if call.request.method == "HEAD" else refused


# The other behaviours of S3, which come after those of all changes.
from . import s3_notifications, s3_objects, s3_settings  # noqa: E402, F401
