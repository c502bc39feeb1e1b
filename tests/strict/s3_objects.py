"""The behaviours of Amazon S3: objects, their listings and their encryption."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, unquote, unquote_plus
from xml.sax.saxutils import escape, unescape

from .authorization import caller_arn, common, role_allows, user_allows
from .registry import Answer, AwsFailure, Call, Proceed, World, behaviour
from .s3_state import bucket_of, forgetting, memory

ARCHIVES, INTELLIGENT = ("GLACIER", "DEEP_ARCHIVE"), "INTELLIGENT_TIERING"
LISTINGS = ("ListObjects", "ListObjectsV2", "ListObjectVersions")


# Sessions of roles


@dataclass(frozen=True)
class Session:
    """A session of a role: of a function, or of AssumeRole."""

    role: str
    arn: str


async def _remember_session(call: Call, proceed: Proceed, world: World) -> Answer:
    """Assumes a role, and notes the session."""
    answer = await proceed(call)
    if answer.ok:
        result = answer.parsed(call)
        role = call.params["RoleArn"].rpartition("/")[2]
        known = world.state(call.params["RoleArn"].split(":")[4]).memory.setdefault("sessions of roles", {})
        known[result["Credentials"]["AccessKeyId"]] = Session(role, result["AssumedRoleUser"]["Arn"])
    return answer


async def _session_of(call: Call, world: World) -> Session | None:
    """Returns the role's session that makes the call, and None for other callers."""
    if call.caller != "session":
        return None
    known: dict[str, Session] = world.state(call.account).memory.setdefault("sessions of roles", {})
    if call.access_key not in known:
        functions = await world.send(call.account, "lambda", "ListFunctions", {}, call.region)
        for function in functions.get("Functions", []):
            # MiniStack derives the keys of a function from its ARN and its role (core/lambda_runtime.py).
            digest = hashlib.sha256(f"{function['FunctionArn']}:{function['Role']}".encode()).hexdigest()
            role = function["Role"].rpartition("/")[2]
            arn = f"arn:aws:sts::{call.account}:assumed-role/{role}/{function['FunctionName']}"
            known[f"ASIA{digest[:16].upper()}"] = Session(role, arn)
    return known.get(call.access_key)


async def _refusal(
    call: Call, world: World, action: str, resource: str, shown: str, context: dict[str, str]
) -> Answer | None:
    """Returns the refusal of an action that the call also needs, if the caller has no right to it."""
    session = await _session_of(call, world)
    context = {**common(call), **context}
    if session is not None:
        arn, allowed = session.arn, await role_allows(world, call.account, session.role, action, resource, context)
    else:
        arn = await caller_arn(call, world)
        # MiniStack knows other sessions, and authorises them alone.
        allowed = call.caller == "session" or await user_allows(call, world, action, resource, context)
    if allowed:
        return None
    text = (
        f"User: {arn} is not authorized to perform: {action} on {shown} because no identity-based policy allows the "
        f"{action} action"
    )
    return Answer.error(call, 403, "AccessDenied", text)


@behaviour(service="sts", operations=["AssumeRole"], source="S3 API model, GetObject", certainty="certain")
@behaviour(
    service="s3",
    operations=["GetObject", "HeadObject"],
    source="S3 API model, GetObject and HeadObject: permissions",
    certainty="certain",
)
async def missing_keys_need_list_bucket(call: Call, proceed: Proceed, world: World) -> Answer:
    """Reads of missing objects by callers without s3:ListBucket on the bucket answer 403.

    The request has no prefix, so that a condition on s3:prefix does not hold.
    """
    if call.service == "sts":
        return await _remember_session(call, proceed, world)
    answer = await proceed(call)
    if answer.status != 404 or call.params.get("VersionId"):
        return answer
    if answer.code(call) == "NoSuchBucket":
        return answer
    arn = f"arn:aws:s3:::{bucket_of(call)}"
    refused = await _refusal(call, world, "s3:ListBucket", arn, f'resource: "{arn}"', {})
    if refused is None:
        return answer
    world.fired(call, missing_keys_need_list_bucket)
    return refused


# Encryption


async def _described(world: World, call: Call, key: str) -> dict[str, Any] | None:
    try:
        return (await world.send(call.account, "kms", "DescribeKey", {"KeyId": key}, call.region))["KeyMetadata"]
    except AwsFailure:
        return None


async def _write_key(world: World, call: Call) -> tuple[str, bool] | None:
    """Returns the KMS key that a new object is encrypted with, as named, and whether a bucket key is used."""
    params = call.params
    algorithm, key = params.get("ServerSideEncryption", ""), params.get("SSEKMSKeyId")
    bucket_key = params.get("BucketKeyEnabled", False)
    if not algorithm:
        try:
            answer = await world.send(
                call.account, "s3", "GetBucketEncryption", {"Bucket": bucket_of(call)}, call.region
            )
        except AwsFailure:
            return None
        rule = answer["ServerSideEncryptionConfiguration"]["Rules"][0]
        default = rule.get("ApplyServerSideEncryptionByDefault", {})
        algorithm, key = default.get("SSEAlgorithm", ""), default.get("KMSMasterKeyID")
        bucket_key = rule.get("BucketKeyEnabled", False)
    # Without a key, it is AWS's own, which all principals of the account may use by S3.
    if not algorithm.startswith("aws:kms") or not key or "alias/aws/" in key:
        return None
    return key, bool(bucket_key)


async def _key_refusal(world: World, call: Call, action: str, key: str, bucket_key: bool) -> Answer | None:
    arn = f"arn:aws:s3:::{bucket_of(call)}"
    context = {
        "kms:ViaService": f"s3.{call.region}.amazonaws.com",
        "kms:CallerAccount": call.account,
        "kms:EncryptionContext:aws:s3:arn": arn if bucket_key else f"{arn}/{call.params['Key']}",
    }
    shown = "the resource associated with this ciphertext" if action == "kms:Decrypt" else f"resource: {key}"
    return await _refusal(call, world, action, key, shown, context)


async def _write_refusal(world: World, call: Call, key: str, bucket_key: bool) -> Answer | None:
    described = await _described(world, call, key)
    if described is None:
        return Answer.error(call, 400, "KMS.NotFoundException", f"Invalid keyId '{key.rpartition('/')[2]}'")
    if not described.get("Enabled", True):
        return Answer.error(call, 400, "KMS.DisabledException", f"{described['Arn']} is disabled.")
    return await _key_refusal(world, call, "kms:GenerateDataKey", described["Arn"], bucket_key)


@behaviour(service="sts", operations=["AssumeRole"], source="S3 user guide, using SSE-KMS", certainty="certain")
@behaviour(
    service="s3",
    operations=["PutObject", "CreateMultipartUpload", "GetObject", "DeleteBucket"],
    source="S3 user guide, using SSE-KMS: permissions; AWS KMS developer guide, Decrypt",
    certainty="certain",
)
async def kms_keys_need_rights(call: Call, proceed: Proceed, world: World) -> Answer:
    """Callers need kms:GenerateDataKey to write and kms:Decrypt to read objects under a KMS key.

    A key that is missing or disabled is refused to all.
    """
    if call.service == "sts":
        return await _remember_session(call, proceed, world)
    if call.operation == "DeleteBucket":
        return await forgetting(call, proceed, world)
    keys = memory(world, call.account, "object keys").setdefault(bucket_of(call), {})
    if call.operation != "GetObject":
        written = await _write_key(world, call)
        refused = await _write_refusal(world, call, *written) if written else None
        if refused is not None:
            world.fired(call, kms_keys_need_rights)
            return refused
        answer = await proceed(call)
        if answer.ok and call.operation == "PutObject":
            keys[call.params["Key"], answer.headers.get("x-amz-version-id")] = written
        return answer
    answer = await proceed(call)
    if not answer.ok:
        return answer
    read = keys.get((call.params["Key"], answer.headers.get("x-amz-version-id")))
    if read is None and answer.headers.get("x-amz-server-side-encryption-aws-kms-key-id"):
        read = answer.headers["x-amz-server-side-encryption-aws-kms-key-id"], False
    if read is None:
        return answer
    described = await _described(world, call, read[0])
    refused = await _key_refusal(world, call, "kms:Decrypt", described["Arn"] if described else read[0], read[1])
    if refused is None:
        return answer
    world.fired(call, kms_keys_need_rights)
    return refused


# Archives


def _archived(call: Call, **members: str) -> Answer:
    text = "The operation is not valid for the object's storage class"
    return Answer.error(call, 403, "InvalidObjectState", text, **{"StorageClass": INTELLIGENT, **members})


def _source(call: Call) -> dict[str, str]:
    """Returns the members that name the source of a copy."""
    source = call.params["CopySource"]
    if not isinstance(source, str):
        return dict(source)
    path, _, query = source.removeprefix("/").partition("?")
    bucket, _, key = unquote(path).partition("/")
    version = query.removeprefix("versionId=")
    return {"Bucket": bucket, "Key": key, **({"VersionId": version} if version else {})}


async def _head(world: World, call: Call, named: dict[str, str]) -> dict[str, Any]:
    try:
        return await world.send(call.account, "s3", "HeadObject", named, call.region)
    except AwsFailure:
        return {}


@behaviour(
    service="s3",
    operations=["GetObject", "HeadObject", "CopyObject", "UploadPartCopy"],
    source="S3 API model, GetObject: InvalidObjectState; S3 user guide, restoring an archived object",
    certainty="certain",
)
async def archived_objects_are_unreadable(call: Call, proceed: Proceed, world: World) -> Answer:
    """Reads and copies of archived objects that are not restored answer InvalidObjectState.

    MiniStack refuses reads of GLACIER and DEEP_ARCHIVE by itself. Setting `archived_keys`: the keys of objects in
    archive tiers of S3 Intelligent-Tiering, each with "ARCHIVE_ACCESS" or "DEEP_ARCHIVE_ACCESS".
    """
    copied = "CopySource" in call.params
    named = _source(call) if copied else {"Key": call.params["Key"]}
    tier = world.state(call.account).settings.get("archived_keys", {}).get(named["Key"])
    if copied:
        found = await _head(world, call, named)
        restored = 'ongoing-request="false"' in found.get("Restore", "")
        if not found or tier is None and (found.get("StorageClass") not in ARCHIVES or restored):
            return await proceed(call)
        world.fired(call, archived_objects_are_unreadable)
        return _archived(call, **({"AccessTier": tier} if tier else {"StorageClass": found["StorageClass"]}))
    answer = await proceed(call)
    if tier is None or not answer.ok:
        return answer
    world.fired(call, archived_objects_are_unreadable)
    if call.operation == "GetObject":
        return _archived(call, AccessTier=tier)
    answer.headers.update({"x-amz-storage-class": INTELLIGENT, "x-amz-archive-status": tier})
    return answer


@behaviour(
    service="s3",
    operations=LISTINGS,
    source="S3 API model, OptionalObjectAttributes and RestoreStatus",
    certainty="certain",
)
async def listings_tell_restored_objects(call: Call, proceed: Proceed, world: World) -> Answer:
    """Listings that are asked for RestoreStatus tell which archived objects are restored."""
    answer = await proceed(call)
    if "RestoreStatus" not in call.params.get("OptionalObjectAttributes", []) or not answer.ok:
        return answer
    text, parts, position = answer.body.decode(), [], 0
    for entry in re.finditer(r"<(Contents|Version)>.*?</\1>", text, re.DOTALL):
        element = {name: unescape(value) for name, value in re.findall(r"<(\w+)>([^<]*)</", entry[0])}
        if element.get("StorageClass") not in ARCHIVES:
            continue
        key = unquote_plus(element["Key"]) if call.params.get("EncodingType") else element["Key"]
        version = {"VersionId": element["VersionId"]} if element.get("VersionId", "null") != "null" else {}
        restore = (await _head(world, call, {"Bucket": bucket_of(call), "Key": key, **version})).get("Restore", "")
        if not restore:
            continue
        progress = "true" if 'ongoing-request="true"' in restore else "false"
        status = f"<RestoreStatus><IsRestoreInProgress>{progress}</IsRestoreInProgress></RestoreStatus>"
        end = entry.end() - len(f"</{entry[1]}>")
        parts += [text[position:end], status]
        position = end
    if not parts:
        return answer
    world.fired(call, listings_tell_restored_objects)
    return Answer(answer.status, answer.headers, "".join([*parts, text[position:]]).encode())


# Listings

_NAMES = "Key|Prefix|Delimiter|Marker|NextMarker|KeyMarker|NextKeyMarker|StartAfter"
_NAMED = re.compile(rf"<({_NAMES})>(.*?)</\1>", re.DOTALL)
# What XML 1.0 cannot carry, and what parsers change.
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\ufffe\uffff]")


def _encoded(text: str) -> str:
    """Returns a text as S3 encodes it: like a form, but with slashes."""
    return quote(text, safe="/*").replace("%20", "+").replace("~", "%7E")


@behaviour(
    service="s3",
    operations=LISTINGS,
    source="S3 API model, EncodingType; botocore, decode_list_object; aws-sdk-java#333, riak_cs#974",
    certainty="seen",
)
async def control_characters_need_encoding(call: Call, proceed: Proceed, world: World) -> Answer:
    """Listings have control characters as references that XML 1.0 forbids, unless encoding-type is url.

    With it, keys, prefixes, markers and delimiters are encoded like forms; MiniStack lacks it for versions.
    """
    answer = await proceed(call)
    if not answer.ok:
        return answer
    text = answer.body.decode()
    if call.params.get("EncodingType") == "url":
        by_ministack = "<EncodingType>" in text

        def encode(found: re.Match[str]) -> str:
            plain = unescape(found[2])
            return f"<{found[1]}>{escape(_encoded(unquote(plain) if by_ministack else plain))}</{found[1]}>"

        changed = _NAMED.sub(encode, text)
        if not by_ministack:
            changed = changed.replace("</MaxKeys>", "</MaxKeys><EncodingType>url</EncodingType>", 1)
    else:
        changed = _CONTROL.sub(lambda found: f"&#x{ord(found[0]):x};", text)
    if changed == text:
        return answer
    world.fired(call, control_characters_need_encoding)
    return Answer(answer.status, answer.headers, changed.encode())
