"""The permissions that each operation needs: actions, resources and condition keys.

The table follows AWS's service authorization reference; "*" is the resource of actions that it lists without resource
types. Further sources stand at their rules.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from botocore.loaders import Loader

from .policies import Context
from .registry import ACCOUNT, AwsFailure, Call, World

# Actions have another prefix than botocore's name of the service.
PREFIXES = {"s3control": "s3", "resourcegroupstaggingapi": "tag"}
LAMBDA = "lambda.amazonaws.com"


@dataclass(frozen=True)
class Check:
    """A permission that a call needs. `shown` is the resource as the refusal words it."""

    action: str
    resource: str
    context: Context = field(default_factory=dict)
    shown: str = ""
    refusal: str = ""


def arn(call: Call, service: str, resource: str) -> str:
    """Returns the ARN of a resource in the account and the region of the call."""
    return f"arn:{partition_of(call.region)}:{service}:{call.region}:{call.account}:{resource}"


@functools.cache
def partition_of(region: str) -> str:
    """Returns the partition of a region (botocore, partitions.json)."""
    for partition in Loader().load_data("partitions")["partitions"]:
        if region in partition["regions"] or re.fullmatch(partition["regionRegex"], region):
            return partition["id"]
    return "aws"


# Resources. A function returns the ARN for a call.

Resource = Callable[[Call], str]


def _anything(_call: Call) -> str:
    return "*"


def bucket_arn(call: Call) -> str:
    return f"arn:{partition_of(call.region)}:s3:::{call.params['Bucket']}"


def _object(call: Call) -> str:
    return f"{bucket_arn(call)}/{call.params['Key']}"


def function_arn(call: Call) -> str:
    """Returns the ARN of a function, with the qualifier if the call names one."""
    # A name, a partial ARN or an ARN, each with a qualifier or without (Lambda API reference, FunctionName).
    name, _, qualifier = call.params["FunctionName"].rpartition("function:")[2].partition(":")
    qualifier = call.params.get("Qualifier") or qualifier
    return arn(call, "lambda", f"function:{name}" + (f":{qualifier}" if qualifier else ""))


def _table_arn(call: Call, name: str) -> str:
    return name if name.startswith("arn:") else arn(call, "dynamodb", f"table/{name}")


def _table(call: Call) -> str:
    return _table_arn(call, call.params["TableName"])


def _table_or_index(call: Call) -> str:
    # A call on an index needs the permission on the index only (DynamoDB guide, fine-grained access control).
    index = call.params.get("IndexName")
    return f"{_table(call)}/index/{index}" if index else _table(call)


def _member(name: str) -> Resource:
    return lambda call: call.params[name]


def _log_group(call: Call) -> str:
    """Returns the ARN by which most calls on a log group are authorised.

    It goes on after the name, so that only patterns with the suffix `:*` match (CloudWatch Logs guide, resource ARNs).
    """
    name = call.params.get("logGroupName") or call.params.get("logGroupIdentifier", "")
    name = name.partition("log-group:")[2].removesuffix(":*") if name.startswith("arn:") else name
    return arn(call, "logs", f"log-group:{name}:log-stream:{call.params.get('logStreamName', '')}")


def _tagged_log_group(call: Call) -> str:
    # Calls on tags are authorised without the suffix (CloudWatch Logs guide, resource ARNs).
    return call.params["resourceArn"].removesuffix(":*")


def _queue(call: Call) -> str:
    if "QueueUrl" in call.params:
        account, name = call.params["QueueUrl"].rstrip("/").split("/")[-2:]
    else:
        account, name = call.params.get("QueueOwnerAWSAccountId", call.account), call.params["QueueName"]
    account = account if ACCOUNT.fullmatch(account) else call.account
    return f"arn:{partition_of(call.region)}:sqs:{call.region}:{account}:{name}"


def _stream(call: Call) -> str:
    return call.params.get("StreamARN") or arn(call, "kinesis", f"stream/{call.params['StreamName']}")


def _topic(call: Call) -> str:
    return call.params.get("TopicArn") or arn(call, "sns", call.params["Name"])


def _alarm(call: Call) -> str:
    return arn(call, "cloudwatch", f"alarm:{call.params['AlarmName']}")


def _every_alarm(call: Call) -> str:
    # Also of a call with names (aws-terminator#63).
    return arn(call, "cloudwatch", "alarm:*")


def _iam(kind: str, member: str) -> Resource:
    return lambda call: f"arn:{partition_of(call.region)}:iam::{call.account}:{kind}/{call.params[member]}"


# Operations. A word is an operation with the action of that name, or OPERATION=ACTION. Of the operations of IAM on
# roles and users see below.

_TABLE: list[tuple[str, Resource, str]] = [
    (
        "s3",
        bucket_arn,
        """
        CreateBucket DeleteBucket HeadBucket=ListBucket ListObjects=ListBucket ListObjectsV2=ListBucket
        ListObjectVersions=ListBucketVersions ListMultipartUploads=ListBucketMultipartUploads GetBucketLocation
        GetBucketAcl PutBucketAcl GetBucketPolicy PutBucketPolicy DeleteBucketPolicy GetBucketPolicyStatus
        GetBucketVersioning PutBucketVersioning
        GetBucketTagging PutBucketTagging DeleteBucketTagging=PutBucketTagging
        GetBucketEncryption=GetEncryptionConfiguration PutBucketEncryption=PutEncryptionConfiguration
        DeleteBucketEncryption=PutEncryptionConfiguration
        GetPublicAccessBlock=GetBucketPublicAccessBlock PutPublicAccessBlock=PutBucketPublicAccessBlock
        DeletePublicAccessBlock=PutBucketPublicAccessBlock
        GetBucketOwnershipControls PutBucketOwnershipControls DeleteBucketOwnershipControls=PutBucketOwnershipControls
        GetBucketLifecycleConfiguration=GetLifecycleConfiguration
        PutBucketLifecycleConfiguration=PutLifecycleConfiguration DeleteBucketLifecycle=PutLifecycleConfiguration
        GetBucketNotificationConfiguration=GetBucketNotification
        PutBucketNotificationConfiguration=PutBucketNotification
        GetBucketAbac PutBucketAbac GetBucketLogging PutBucketLogging GetBucketRequestPayment GetBucketWebsite
        GetBucketCors=GetBucketCORS PutBucketCors=PutBucketCORS DeleteBucketCors=PutBucketCORS
        GetBucketReplication=GetReplicationConfiguration GetObjectLockConfiguration=GetBucketObjectLockConfiguration
        GetBucketIntelligentTieringConfiguration=GetIntelligentTieringConfiguration
        """,
    ),
    (
        "s3",
        _object,
        """
        PutObject CreateMultipartUpload=PutObject UploadPart=PutObject CompleteMultipartUpload=PutObject
        AbortMultipartUpload ListParts=ListMultipartUploadParts RestoreObject
        GetObject HeadObject=GetObject GetObjectTagging PutObjectTagging DeleteObjectTagging GetObjectAcl PutObjectAcl
        GetObjectAttributes DeleteObject
        """,
    ),
    ("s3", _anything, "ListBuckets=ListAllMyBuckets"),
    ("s3control", _member("ResourceArn"), "TagResource UntagResource ListTagsForResource"),
    (
        "lambda",
        function_arn,
        """
        CreateFunction DeleteFunction GetFunction GetFunctionConfiguration UpdateFunctionCode
        UpdateFunctionConfiguration PublishVersion ListVersionsByFunction
        ListAliases ListFunctionUrlConfigs
        GetPolicy AddPermission RemovePermission Invoke=InvokeFunction InvokeAsync
        PutFunctionConcurrency GetFunctionConcurrency DeleteFunctionConcurrency
        PutFunctionEventInvokeConfig GetFunctionEventInvokeConfig UpdateFunctionEventInvokeConfig
        DeleteFunctionEventInvokeConfig GetRuntimeManagementConfig GetFunctionRecursionConfig
        """,
    ),
    ("lambda", _member("Resource"), "TagResource UntagResource ListTags"),
    ("lambda", _anything, "GetAccountSettings ListFunctions ListEventSourceMappings"),
    (
        "dynamodb",
        _table,
        """
        CreateTable DeleteTable DescribeTable UpdateTable DescribeTimeToLive UpdateTimeToLive
        DescribeContinuousBackups UpdateContinuousBackups GetItem PutItem UpdateItem DeleteItem
        DescribeKinesisStreamingDestination EnableKinesisStreamingDestination DisableKinesisStreamingDestination
        """,
    ),
    ("cloudwatch", _anything, "GetMetricStatistics"),
    ("cloudwatch", _alarm, "PutMetricAlarm"),
    ("cloudwatch", _every_alarm, "DescribeAlarms"),
    ("cloudwatch", _member("ResourceARN"), "TagResource UntagResource ListTagsForResource"),
    (
        "sns",
        _topic,
        "CreateTopic DeleteTopic GetTopicAttributes SetTopicAttributes Subscribe ListSubscriptionsByTopic Publish",
    ),
    ("sns", _member("ResourceArn"), "TagResource UntagResource ListTagsForResource"),
    ("sns", _anything, "ListTopics ListSubscriptions Unsubscribe"),
    ("dynamodb", _table_or_index, "Query Scan DescribeContributorInsights"),
    ("dynamodb", _member("ResourceArn"), "TagResource UntagResource ListTagsOfResource GetResourcePolicy"),
    ("dynamodb", _anything, "ListTables DescribeLimits DescribeEndpoints"),
    (
        "logs",
        _log_group,
        """
        CreateLogGroup DeleteLogGroup PutRetentionPolicy DeleteRetentionPolicy FilterLogEvents DescribeLogStreams
        CreateLogStream DeleteLogStream PutLogEvents GetLogEvents AssociateKmsKey DisassociateKmsKey
        PutMetricFilter DescribeMetricFilters DeleteMetricFilter
        """,
    ),
    ("logs", _tagged_log_group, "TagResource UntagResource ListTagsForResource"),
    # The reference lists no resource type. The refusals name the group without a name (terraform-provider-aws#8804).
    ("logs", _anything, "DescribeLogGroups DescribeAccountPolicies ListLogGroups"),
    (
        "sqs",
        _queue,
        """
        CreateQueue DeleteQueue GetQueueUrl GetQueueAttributes SetQueueAttributes ListQueueTags TagQueue UntagQueue
        PurgeQueue SendMessage SendMessageBatch=SendMessage ReceiveMessage DeleteMessage
        DeleteMessageBatch=DeleteMessage ChangeMessageVisibility ChangeMessageVisibilityBatch=ChangeMessageVisibility
        ListDeadLetterSourceQueues
        """,
    ),
    ("sqs", _member("SourceArn"), "StartMessageMoveTask ListMessageMoveTasks"),
    ("sqs", _anything, "ListQueues"),
    (
        "kinesis",
        _stream,
        """
        CreateStream DeleteStream DescribeStream DescribeStreamSummary ListTagsForStream AddTagsToStream
        RemoveTagsFromStream UpdateStreamMode IncreaseStreamRetentionPeriod DecreaseStreamRetentionPeriod
        StartStreamEncryption StopStreamEncryption ListShards PutRecord PutRecords GetShardIterator
        """,
    ),
    ("kinesis", _anything, "ListStreams"),
    ("resourcegroupstaggingapi", _anything, "GetResources GetTagKeys GetTagValues"),
    ("application-autoscaling", _anything, "DescribeScalableTargets DescribeScalingPolicies"),
    ("kms", _anything, "ListAliases ListKeys"),
    ("iam", _member("PolicyArn"), "GetPolicy GetPolicyVersion ListPolicyVersions DeletePolicy CreatePolicyVersion"),
    ("iam", _member("PolicySourceArn"), "SimulatePrincipalPolicy"),
    ("iam", _member("OpenIDConnectProviderArn"), "GetOpenIDConnectProvider"),
    ("iam", _anything, "ListRoles ListUsers ListPolicies ListOpenIDConnectProviders ListAccountAliases"),
    ("sts", _member("RoleArn"), "AssumeRole"),
]


def _parsed(table: list[tuple[str, Resource, str]]) -> dict[tuple[str, str], tuple[str, Resource]]:
    operations = {}
    for service, resource, words in table:
        for word in words.split():
            operation, _, action = word.partition("=")
            operations[service, operation] = (f"{PREFIXES.get(service, service)}:{action or operation}", resource)
    return operations


_OPERATIONS = _parsed(_TABLE)
_ROLE_OPERATIONS = frozenset(
    """
    GetRole DeleteRole UpdateRole UpdateRoleDescription UpdateAssumeRolePolicy GetRolePolicy PutRolePolicy
    DeleteRolePolicy ListRolePolicies ListAttachedRolePolicies AttachRolePolicy DetachRolePolicy TagRole UntagRole
    ListRoleTags PutRolePermissionsBoundary DeleteRolePermissionsBoundary ListInstanceProfilesForRole
    """.split()
)
_USER_OPERATIONS = frozenset("GetUser ListUserPolicies GetUserPolicy ListAttachedUserPolicies ListUserTags".split())

Rule = Callable[[Call, World], Awaitable[list[Check]]]


async def checks_of(call: Call, world: World) -> list[Check] | None:
    """Returns the permissions that a call needs, in AWS's order, or None if the operation is not known."""
    further = _FURTHER.get((call.service, call.operation))
    if call.service == "iam" and call.operation in _ROLE_OPERATIONS:
        return await _on_role(call, world)
    if call.service == "iam" and call.operation in _USER_OPERATIONS:
        return await _on_user(call, world)
    if call.service == "s3" and call.operation in _VERSIONED:
        return await _versioned(call, world)
    known = _OPERATIONS.get((call.service, call.operation))
    if known is None:
        return await further(call, world) if further else None
    action, resource = known
    checks = [Check(action, resource(call), _context(call), _shown(call))]
    return checks + (await further(call, world) if further else [])


def _shown(call: Call) -> str:
    """Returns the resource as refusals name it, of actions without resource-level permissions."""
    if call.name == "logs:DescribeLogGroups":
        return arn(call, "logs", "log-group::log-stream:")
    if call.name == "iam:ListRoles":
        return f"arn:{partition_of(call.region)}:iam::{call.account}:role{call.params.get('PathPrefix', '/')}"
    return ""


def _context(call: Call) -> dict[str, str | list[str]]:
    """Returns the context keys that the members of the request supply."""
    context: dict[str, str | list[str]] = {}
    params = call.params
    if tags := _request_tags(call):
        context |= {f"aws:RequestTag/{key}": value for key, value in tags.items()}
    if tags or "TagKeys" in params or "tagKeys" in params:
        context["aws:TagKeys"] = list(tags) or list(params.get("TagKeys") or params.get("tagKeys") or [])
    if call.service == "s3":
        members = {"s3:prefix": "Prefix", "s3:delimiter": "Delimiter", "s3:max-keys": "MaxKeys", "s3:x-amz-acl": "ACL"}
        members |= {"s3:versionid": "VersionId", "s3:x-amz-server-side-encryption": "ServerSideEncryption"}
        context |= {key: str(params[member]) for key, member in members.items() if member in params}
    if call.service == "lambda" and "Principal" in params:
        context["lambda:Principal"] = params["Principal"]
    return context


def _request_tags(call: Call) -> dict[str, str]:
    """Returns the tags of a request, which each service writes in its own way."""
    params = call.params
    found = params.get("Tags") or params.get("tags") or params.get("CreateBucketConfiguration", {}).get("Tags") or {}
    if isinstance(found, Mapping):
        return dict(found)
    return {tag["Key"]: tag["Value"] for tag in found}


# Rules for operations that need more, or several resources


async def _create_bucket(call: Call, _world: World) -> list[Check]:
    checks = [Check("s3:TagResource", bucket_arn(call), _context(call))] if _request_tags(call) else []
    return checks + ([Check("s3:PutBucketAcl", bucket_arn(call))] if "ACL" in call.params else [])


async def _tagged_creation(call: Call, _world: World) -> list[Check]:
    """Creating with tags also needs the action that tags."""
    if not _request_tags(call):
        return []
    if call.service == "sqs":
        return [Check("sqs:TagQueue", _queue(call), _context(call))]
    if call.service == "dynamodb":
        return [Check("dynamodb:TagResource", _table(call), _context(call))]
    if call.service == "sns":
        return [Check("sns:TagResource", _topic(call), _context(call))]
    if call.service == "cloudwatch":
        return [Check("cloudwatch:TagResource", _alarm(call), _context(call))]
    if call.service == "kinesis":
        # TagResource would not do (Kinesis API reference, CreateStream).
        return [Check("kinesis:AddTagsToStream", _stream(call), _context(call))]
    group = arn(call, "logs", f"log-group:{call.params['logGroupName']}")
    refusal = (
        f"User with accountId: {call.account} is not authorized to perform CreateLogGroup with Tags. "
        'An additional permission "logs:TagResource" is required.'
    )
    return [Check("logs:TagResource", group, _context(call), refusal=refusal)]


async def _pass_role(call: Call, world: World) -> list[Check]:
    """Lambda checks iam:PassRole on the role's ARN (Lambda guide, execution role), and the key for the environment."""
    checks = []
    if role := call.params.get("Role"):
        checks.append(Check("iam:PassRole", role, {"iam:PassedToService": LAMBDA}))
    if call.operation == "CreateFunction" and call.params.get("Tags"):
        checks.append(Check("lambda:TagResource", function_arn(call), _context(call)))
    # Lambda guide, securing environment variables: required permissions.
    return checks + await _on_key(call, world, call.params.get("KMSKeyArn"), "kms:CreateGrant", "kms:Encrypt")


async def _create_table(call: Call, world: World) -> list[Check]:
    return await _tagged_creation(call, world) + await _table_key(call, world)


async def _table_key(call: Call, world: World) -> list[Check]:
    # DynamoDB guide, encryption at rest: who selects a customer managed key needs these.
    key = call.params.get("SSESpecification", {}).get("KMSMasterKeyId")
    return await _on_key(call, world, key, "kms:DescribeKey", "kms:CreateGrant")


async def _stream_key(call: Call, world: World) -> list[Check]:
    # Kinesis guide, permissions to use user-generated KMS keys: stream administrators.
    return await _on_key(call, world, call.params["KeyId"], "kms:DescribeKey")


async def _stream_destination(call: Call, _world: World) -> list[Check]:
    """DynamoDB checks its caller on the stream, and makes its role (DynamoDB guide, IAM for Kinesis Data Streams)."""
    service = "kinesisreplication.dynamodb.amazonaws.com"
    name = f"aws-service-role/{service}/AWSServiceRoleForDynamoDBKinesisDataStreamsReplication"
    role = f"arn:{partition_of(call.region)}:iam::{call.account}:role/{name}"
    stream = call.params["StreamArn"]
    return [
        Check("kinesis:ListStreams", "*"),
        Check("kinesis:DescribeStream", stream),
        Check("kinesis:PutRecords", stream),
        Check("iam:CreateServiceLinkedRole", role),
    ]


async def _alarms(call: Call, _world: World) -> list[Check]:
    alarms = [arn(call, "cloudwatch", f"alarm:{name}") for name in call.params["AlarmNames"]]
    return [Check("cloudwatch:DeleteAlarms", alarm) for alarm in alarms]


async def _transaction(call: Call, _world: World) -> list[Check]:
    """A transaction needs the action of each item (DynamoDB guide, IAM for transactions)."""
    actions = {"Put": "PutItem", "Update": "UpdateItem", "Delete": "DeleteItem", "Get": "GetItem"}
    actions["ConditionCheck"] = "ConditionCheckItem"
    enclosing = {"dynamodb:EnclosingOperation": call.operation}
    items = [(kind, one) for item in call.params["TransactItems"] for kind, one in item.items()]
    return [
        Check(f"dynamodb:{action}", table, enclosing)
        for action, table in dict.fromkeys((actions[kind], _table_arn(call, one["TableName"])) for kind, one in items)
    ]


async def _batch(call: Call, _world: World) -> list[Check]:
    return [Check(f"dynamodb:{call.operation}", _table_arn(call, name)) for name in call.params["RequestItems"]]


async def _versioned(call: Call, world: World) -> list[Check]:
    """A version ID needs another action than the object (S3 guide, required permissions for S3 API operations)."""
    action, resource = _OPERATIONS["s3", call.operation]
    if call.params.get("VersionId"):
        action = {"s3:GetObjectAcl": "s3:GetObjectVersionAcl"}.get(action, action.replace("Object", "ObjectVersion", 1))
    checks = [Check(action, resource(call), _context(call))]
    if call.operation == "GetObjectAttributes":
        checks.append(Check(action.replace("Attributes", ""), resource(call), _context(call)))
    if call.operation == "GetObject":
        # S3 guide, SSE-KMS: reading needs kms:Decrypt on the object's key.
        checks += await _on_key(call, world, await _key_of_object(call, world), "kms:Decrypt")
    return checks


async def _put_object(call: Call, world: World) -> list[Check]:
    checks = [Check("s3:PutObjectTagging", _object(call))] if call.params.get("Tagging") else []
    checks += [Check("s3:PutObjectAcl", _object(call))] if call.params.get("ACL") else []
    # S3 guide, SSE-KMS: writing needs kms:GenerateDataKey on the key of the request or of the bucket's default.
    algorithm, key = call.params.get("ServerSideEncryption"), call.params.get("SSEKMSKeyId")
    if not algorithm:
        algorithm, key = await _default_encryption(call, world)
    key = key if (algorithm or "").startswith("aws:kms") else None
    return checks + await _on_key(call, world, key, "kms:GenerateDataKey")


async def _default_encryption(call: Call, world: World) -> tuple[str | None, str | None]:
    try:
        answer = await world.send(
            call.account, "s3", "GetBucketEncryption", {"Bucket": call.params["Bucket"]}, call.region
        )
    except AwsFailure:
        return None, None
    for rule in answer.get("ServerSideEncryptionConfiguration", {}).get("Rules", []):
        if default := rule.get("ApplyServerSideEncryptionByDefault"):
            return default.get("SSEAlgorithm"), default.get("KMSMasterKeyID")
    return None, None


async def _key_of_object(call: Call, world: World) -> str | None:
    found = await head_object(call, world)
    return found.get("SSEKMSKeyId") if found and found.get("ServerSideEncryption", "").startswith("aws:kms") else None


async def head_object(call: Call, world: World) -> dict[str, Any] | None:
    params = {name: call.params[name] for name in ("Bucket", "Key", "VersionId") if name in call.params}
    try:
        return await world.send(call.account, "s3", "HeadObject", params, call.region)
    except AwsFailure:
        return None


async def _copy_object(call: Call, _world: World) -> list[Check]:
    source = call.params["CopySource"]
    if isinstance(source, Mapping):
        version, source = source.get("VersionId"), f"{source['Bucket']}/{source['Key']}"
    else:
        source, _, version = source.lstrip("/").partition("?versionId=")
    read = "s3:GetObjectVersion" if version else "s3:GetObject"
    return [
        Check(read, f"arn:{partition_of(call.region)}:s3:::{source}"),
        Check("s3:PutObject", _object(call), _context(call)),
    ]


async def _queue_key(call: Call, world: World) -> list[Check]:
    """A queue under a customer managed key needs rights on it of senders and receivers (SQS guide, key management)."""
    try:
        answer = await world.send(
            call.account,
            "sqs",
            "GetQueueAttributes",
            {"QueueUrl": call.params["QueueUrl"], "AttributeNames": ["KmsMasterKeyId"]},
            call.region,
        )
    except AwsFailure:
        return []
    actions = ["kms:Decrypt"] if call.operation == "ReceiveMessage" else ["kms:GenerateDataKey", "kms:Decrypt"]
    return await _on_key(call, world, answer.get("Attributes", {}).get("KmsMasterKeyId"), *actions)


async def _on_key(call: Call, world: World, key: str | None, *actions: str) -> list[Check]:
    """Returns the checks of a service that uses a KMS key on behalf of its caller.

    AWS's own keys need none. The key policy is taken to leave the decision to IAM, as the default one does.
    """
    if not key or "alias/aws/" in key:
        return []
    if not key.startswith("arn:") or ":alias/" in key:
        key = await _key_arn(call, world, key)
    context = {"kms:ViaService": f"{call.service}.{call.region}.amazonaws.com", "kms:CallerAccount": call.account}
    context["kms:GrantIsForAWSResource"] = "true"
    return [Check(action, key, context) for action in actions]


async def _key_arn(call: Call, world: World, key: str) -> str:
    try:
        found = await world.send(call.account, "kms", "DescribeKey", {"KeyId": key}, call.region)
    except AwsFailure:
        return key if key.startswith("arn:") else arn(call, "kms", key if key.startswith("alias/") else f"key/{key}")
    return found["KeyMetadata"]["Arn"]


async def _on_kms_key(call: Call, world: World) -> list[Check]:
    key = await _key_arn(call, world, call.params["KeyId"])
    return [Check(f"kms:{call.operation}", key, {"kms:CallerAccount": call.account})]


async def _role_of(call: Call, world: World) -> Mapping[str, Any]:
    try:
        answer = await world.send(call.account, "iam", "GetRole", {"RoleName": call.params["RoleName"]})
    except AwsFailure:
        return {}
    return answer["Role"]


async def _on_role(call: Call, world: World) -> list[Check]:
    """Calls take a role's name without its path. A role that does not exist has none (aws-cdk#27067)."""
    role = await _role_of(call, world)
    name = call.params["RoleName"]
    resource = role.get("Arn") or _iam("role", "RoleName")(call)
    # Roles made by MiniStack are in the partition aws.
    resource = resource.replace("arn:aws:", f"arn:{partition_of(call.region)}:", 1)
    boundary = role.get("PermissionsBoundary", {}).get("PermissionsBoundaryArn")
    # The boundary of a call that sets one is the new one (IAM guide, iam:PermissionsBoundary).
    boundary = call.params.get("PermissionsBoundary", boundary)
    context = _context(call) | ({"iam:PermissionsBoundary": boundary} if boundary else {})
    if "PolicyArn" in call.params:
        context["iam:PolicyARN"] = call.params["PolicyArn"]
    return [Check(f"iam:{call.operation}", resource, context, f"role {name}")]


async def _create_role(call: Call, _world: World) -> list[Check]:
    path, name = call.params.get("Path", "/"), call.params["RoleName"]
    role = f"arn:{partition_of(call.region)}:iam::{call.account}:role{path}{name}"
    context = _context(call)
    if boundary := call.params.get("PermissionsBoundary"):
        context["iam:PermissionsBoundary"] = boundary
    checks = [Check("iam:CreateRole", role, context)]
    return checks + ([Check("iam:TagRole", role, context)] if call.params.get("Tags") else [])


async def _create_policy(call: Call, _world: World) -> list[Check]:
    path, name = call.params.get("Path", "/"), call.params["PolicyName"]
    policy = f"arn:{partition_of(call.region)}:iam::{call.account}:policy{path}{name}"
    return [Check("iam:CreatePolicy", policy, _context(call))]


async def _on_user(call: Call, world: World) -> list[Check]:
    try:
        answer = await world.send(call.account, "iam", "GetUser", {"UserName": call.params["UserName"]})
        resource = answer["User"]["Arn"]
    except AwsFailure:
        resource = _iam("user", "UserName")(call)
    return [Check(f"iam:{call.operation}", resource, shown=f"user {call.params['UserName']}")]


async def _on_mapping(call: Call, world: World) -> list[Check]:
    """A mapping is authorised by its own ARN, under the condition of its function."""
    params = call.params
    if "FunctionName" in params:
        function = function_arn(call)
    else:
        answer = await world.send(call.account, "lambda", "GetEventSourceMapping", {"UUID": params["UUID"]}, call.region)
        function = answer["FunctionArn"]
    mapping = arn(call, "lambda", f"event-source-mapping:{params.get('UUID', '*')}")
    return [Check(f"lambda:{call.operation}", mapping, {"lambda:FunctionArn": function})]


_FURTHER: dict[tuple[str, str], Rule] = {
    ("lambda", "CreateEventSourceMapping"): _on_mapping,
    ("lambda", "UpdateEventSourceMapping"): _on_mapping,
    ("lambda", "DeleteEventSourceMapping"): _on_mapping,
    ("s3", "CreateBucket"): _create_bucket,
    ("s3", "PutObject"): _put_object,
    ("s3", "CreateMultipartUpload"): _put_object,
    ("s3", "CopyObject"): _copy_object,
    ("lambda", "CreateFunction"): _pass_role,
    ("lambda", "UpdateFunctionConfiguration"): _pass_role,
    ("dynamodb", "CreateTable"): _create_table,
    ("dynamodb", "UpdateTable"): _table_key,
    ("dynamodb", "EnableKinesisStreamingDestination"): _stream_destination,
    ("dynamodb", "TransactWriteItems"): _transaction,
    ("dynamodb", "TransactGetItems"): _transaction,
    ("dynamodb", "BatchGetItem"): _batch,
    ("dynamodb", "BatchWriteItem"): _batch,
    ("logs", "CreateLogGroup"): _tagged_creation,
    ("cloudwatch", "PutMetricAlarm"): _tagged_creation,
    ("cloudwatch", "DeleteAlarms"): _alarms,
    ("sns", "CreateTopic"): _tagged_creation,
    ("kinesis", "CreateStream"): _tagged_creation,
    ("kinesis", "StartStreamEncryption"): _stream_key,
    ("sqs", "CreateQueue"): _tagged_creation,
    ("sqs", "SendMessage"): _queue_key,
    ("sqs", "SendMessageBatch"): _queue_key,
    ("sqs", "ReceiveMessage"): _queue_key,
    ("kms", "DescribeKey"): _on_kms_key,
    ("iam", "CreateRole"): _create_role,
    ("iam", "CreatePolicy"): _create_policy,
}
_VERSIONED = frozenset(
    """
    GetObject HeadObject DeleteObject GetObjectTagging PutObjectTagging DeleteObjectTagging GetObjectAcl PutObjectAcl
    GetObjectAttributes
    """.split()
)
