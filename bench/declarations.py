"""The programs that `provision.py` compares: how each declares the resources of one pipeline, and its commands."""

from __future__ import annotations

import json
import os
import pathlib
import shlex
import shutil
import sys
from typing import Any

from local import ACCOUNT, REGION, client

Json = Any
NAME, BUCKET = "events", "events-bench"
ROLE, FUNCTION = f"{NAME}-function", f"{NAME}-handler"
LOG_GROUP = f"/aws/lambda/{FUNCTION}"
QUEUES = {"failures": f"{NAME}-failures", "notifications": f"{NAME}-notifications"}
TABLES = {name: f"{NAME}-{name}" for name in ("counts", "daily", "ledger")}
TAGS = {"managed-by": "provisioner", "pipeline": NAME}
PAIRS = [{"Key": key, "Value": value} for key, value in TAGS.items()]


def arn(service: str, resource: str) -> str:
    return f"arn:aws:{service}:{REGION}:{ACCOUNT}:{resource}"


FUNCTION_ARN = arn("lambda", f"function:{FUNCTION}")


def _canonical(document: Json) -> Json:
    """Returns a policy in one form: lists instead of single values, and no ids."""
    if isinstance(document, str):
        document = json.loads(document)

    def listed(value: Json) -> Json:
        if isinstance(value, dict):
            return {key: listed(inner) for key, inner in value.items()}
        return sorted(value) if isinstance(value, list) else [value]

    statements = document["Statement"]
    statements = statements if isinstance(statements, list) else [statements]
    return [{key: listed(value) for key, value in one.items() if key != "Sid"} for one in statements]


def settings(url: str) -> dict[str, Json]:
    """Reads every setting of the pipeline's resources."""
    names = ("s3", "dynamodb", "iam", "lambda", "logs", "sqs")
    s3, dynamodb, iam, functions, logs, sqs = (client(url, name) for name in names)
    found: dict[str, Json] = {}
    block = s3.get_public_access_block(Bucket=BUCKET)["PublicAccessBlockConfiguration"]
    found["bucket public access block"] = block
    found["bucket ownership"] = s3.get_bucket_ownership_controls(Bucket=BUCKET)["OwnershipControls"]["Rules"]
    encryption = s3.get_bucket_encryption(Bucket=BUCKET)["ServerSideEncryptionConfiguration"]["Rules"]
    found["bucket encryption"] = [rule["ApplyServerSideEncryptionByDefault"] for rule in encryption]
    found["bucket tags"] = tags_of(s3.get_bucket_tagging(Bucket=BUCKET)["TagSet"])
    notification = s3.get_bucket_notification_configuration(Bucket=BUCKET).get("QueueConfigurations", [])
    found["notification"] = [
        {
            "queue": one["QueueArn"],
            "events": one["Events"],
            "filter": {rule["Name"].lower(): rule["Value"] for rule in one["Filter"]["Key"]["FilterRules"]},
        }
        for one in notification
    ]
    for name in TABLES.values():
        table = dynamodb.describe_table(TableName=name)["Table"]
        found[f"table {name} keys"] = table["KeySchema"]
        found[f"table {name} attributes"] = sorted(table["AttributeDefinitions"], key=lambda one: one["AttributeName"])
        found[f"table {name} billing"] = table["BillingModeSummary"]["BillingMode"]
        indexes = table.get("GlobalSecondaryIndexes", [])
        found[f"table {name} indexes"] = [
            {key: index[key] for key in ("IndexName", "KeySchema", "Projection")} for index in indexes
        ]
        ttl = dynamodb.describe_time_to_live(TableName=name)["TimeToLiveDescription"]
        found[f"table {name} time to live"] = ttl.get("AttributeName")
        backups = dynamodb.describe_continuous_backups(TableName=name)["ContinuousBackupsDescription"]
        recovery = backups["PointInTimeRecoveryDescription"]["PointInTimeRecoveryStatus"]
        found[f"table {name} point-in-time recovery"] = recovery
        found[f"table {name} tags"] = tags_of(dynamodb.list_tags_of_resource(ResourceArn=table["TableArn"])["Tags"])
    role = iam.get_role(RoleName=ROLE)["Role"]
    found["role path"], found["role trust"] = role["Path"], _canonical(role["AssumeRolePolicyDocument"])
    found["role tags"] = tags_of(iam.list_role_tags(RoleName=ROLE)["Tags"])
    policy = iam.get_role_policy(RoleName=ROLE, PolicyName="handler")["PolicyDocument"]
    found["role policy"] = _canonical(policy)
    group = logs.describe_log_groups(logGroupNamePrefix=LOG_GROUP)["logGroups"][0]
    found["log group retention"] = group["retentionInDays"]
    found["log group tags"] = logs.list_tags_for_resource(resourceArn=group["logGroupArn"])["tags"]
    for name in QUEUES.values():
        queue = sqs.get_queue_url(QueueName=name)["QueueUrl"]
        attributes = sqs.get_queue_attributes(QueueUrl=queue, AttributeNames=["All"])["Attributes"]
        for key in ("VisibilityTimeout", "MessageRetentionPeriod", "SqsManagedSseEnabled"):
            found[f"queue {name} {key}"] = attributes.get(key)
        redrive = json.loads(attributes.get("RedrivePolicy", "{}"))
        found[f"queue {name} redrive"] = {key: str(value) for key, value in redrive.items()}
        text = attributes.get("Policy")
        found[f"queue {name} policy"] = _canonical(text) if text else None
        found[f"queue {name} tags"] = sqs.list_queue_tags(QueueUrl=queue).get("Tags", {})
    function = functions.get_function(FunctionName=FUNCTION)
    configuration = function["Configuration"]
    for key in ("Runtime", "Handler", "Role", "Timeout", "MemorySize", "Architectures", "Environment", "Description"):
        found[f"function {key}"] = configuration.get(key)
    found["function tags"] = {key: value for key, value in function["Tags"].items() if key != "revision"}
    try:
        invoke = functions.get_function_event_invoke_config(FunctionName=FUNCTION)
    except functions.exceptions.ResourceNotFoundException:
        invoke = {}
    found["function retries"] = invoke.get("MaximumRetryAttempts")
    found["function event age"] = invoke.get("MaximumEventAgeInSeconds")
    found["function failure queue"] = invoke.get("DestinationConfig", {}).get("OnFailure")
    found["permission"] = _canonical(functions.get_policy(FunctionName=FUNCTION)["Policy"])
    mapping = functions.list_event_source_mappings(FunctionName=FUNCTION)["EventSourceMappings"][0]
    keys = ("EventSourceArn", "BatchSize", "MaximumBatchingWindowInSeconds", "ScalingConfig", "FunctionResponseTypes")
    found |= {f"mapping {key}": mapping.get(key) for key in keys}
    return found


def tags_of(pairs: list[dict[str, str]]) -> dict[str, str]:
    return {pair["Key"]: pair["Value"] for pair in pairs}


def policy_of(statements: Json) -> Json:
    """Returns the policy that has these statements in their one form."""
    return {"Version": "2012-10-17", "Statement": [one | {"Effect": one["Effect"][0]} for one in statements]}


class Tool:
    """A program, and the commands with which it manages the resources."""

    name = ""
    memory = 256

    def is_installed(self) -> bool:
        return True

    def environment(self, url: str) -> dict[str, str]:
        return {
            "PATH": f"{pathlib.Path(sys.executable).parent}:{os.environ['PATH']}",
            "AWS_ENDPOINT_URL": url,
            "AWS_ACCESS_KEY_ID": ACCOUNT,
            "AWS_SECRET_ACCESS_KEY": "test",
            "AWS_REGION": REGION,
            "AWS_DEFAULT_REGION": REGION,
            "AWS_EC2_METADATA_DISABLED": "true",
        }

    def setup(self) -> list[list[str]]:
        return []

    def write(self, folder: pathlib.Path, memory: int) -> None:
        raise NotImplementedError

    def command(self, operation: str) -> list[str] | None:
        raise NotImplementedError


class Provisioner(Tool):
    name = "provisioner"

    def __init__(self, binary: str, bootstrap: str) -> None:
        self.binary, self.bootstrap = binary, bootstrap

    def write(self, folder: pathlib.Path, memory: int) -> None:
        sections = {
            "pipeline": {"name": NAME, "region": REGION},
            # The local AWS speaks plain HTTP. Terraform deletes no table that is protected.
            "bucket": {"name": BUCKET, "require_tls": False},
            "table": {"deletion_protection": False},
            "function": {"artifact": self.bootstrap, "memory_mb": memory},
        }
        lines = []
        for section, keys in sections.items():
            lines += [f"[{section}]", *(f"{key} = {json.dumps(value)}" for key, value in keys.items())]
        (folder / "pipeline.toml").write_text("\n".join(lines))

    def command(self, operation: str) -> list[str] | None:
        if "plan" in operation:
            return [self.binary, "plan"]
        delete = [self.binary, "destroy", "--yes", "--delete-data"]
        return delete if operation == "destroy" else [self.binary, "apply", "--yes"]


class Generated(Tool):
    """A program whose declaration is generated from what the provisioner made."""

    program = ""

    def __init__(self, made: dict[str, Json], code: pathlib.Path) -> None:
        self.made, self.code = made, str(code)

    def is_installed(self) -> bool:
        return shutil.which(self.program, path=self.environment("")["PATH"]) is not None

    def tables(self) -> list[tuple[str, dict[str, Json]]]:
        keys = ("keys", "attributes", "indexes", "time to live")
        return [(name, {key: self.made[f"table {name} {key}"] for key in keys}) for name in TABLES.values()]

    def queue(self, name: str) -> dict[str, Json]:
        keys = ("VisibilityTimeout", "MessageRetentionPeriod", "redrive", "policy")
        return {key: self.made[f"queue {name} {key}"] for key in keys}


def _hash(keys: list[dict[str, str]]) -> str:
    return next(key["AttributeName"] for key in keys if key["KeyType"] == "HASH")


def _range(keys: list[dict[str, str]]) -> str:
    return next(key["AttributeName"] for key in keys if key["KeyType"] == "RANGE")


class Terraform(Generated):
    name, program = "Terraform", "terraform"

    def environment(self, url: str) -> dict[str, str]:
        own = {key: value for key, value in os.environ.items() if key.startswith("TF_CLI_ARGS")}
        return super().environment(url) | own | {"CHECKPOINT_DISABLE": "1"}

    def setup(self) -> list[list[str]]:
        return [["terraform", "init", "-input=false"]]

    def command(self, operation: str) -> list[str] | None:
        if "plan" in operation:
            return ["terraform", "plan", "-input=false"]
        verb = "destroy" if operation == "destroy" else "apply"
        return ["terraform", verb, "-input=false", "-auto-approve"]

    def write(self, folder: pathlib.Path, memory: int) -> None:
        made = self.made
        notification = made["notification"][0]
        function = {"function_name": "${aws_lambda_function.handler.function_name}"}
        bucket = {"bucket": "${aws_s3_bucket.files.id}"}
        resources: dict[str, Json] = {
            "aws_s3_bucket": {"files": {"bucket": BUCKET, "force_destroy": True, "tags": TAGS}},
            "aws_s3_bucket_public_access_block": {
                "files": bucket
                | {
                    "block_public_acls": True,
                    "block_public_policy": True,
                    "ignore_public_acls": True,
                    "restrict_public_buckets": True,
                }
            },
            "aws_s3_bucket_ownership_controls": {"files": bucket | {"rule": {"object_ownership": "BucketOwnerEnforced"}}},
            "aws_s3_bucket_server_side_encryption_configuration": {
                "files": bucket
                | {"rule": {"apply_server_side_encryption_by_default": {"sse_algorithm": "AES256"}}}
            },
            "aws_s3_bucket_notification": {
                "files": bucket
                | {
                    "queue": {
                        "id": f"{NAME}-objects",
                        "queue_arn": "${aws_sqs_queue.notifications.arn}",
                        "events": notification["events"],
                        "filter_prefix": notification["filter"]["prefix"],
                        "filter_suffix": notification["filter"]["suffix"],
                    },
                    "depends_on": ["aws_lambda_event_source_mapping.notifications", "aws_sqs_queue_policy.notifications"],
                }
            },
            "aws_dynamodb_table": {name.replace("-", "_"): self._table(name, of) for name, of in self.tables()},
            "aws_iam_role": {
                "function": {
                    "name": ROLE,
                    "path": made["role path"],
                    "assume_role_policy": json.dumps(policy_of(made["role trust"])),
                    "tags": TAGS,
                }
            },
            "aws_iam_role_policy": {
                "handler": {
                    "name": "handler",
                    "role": "${aws_iam_role.function.name}",
                    "policy": json.dumps(policy_of(made["role policy"])),
                }
            },
            "aws_cloudwatch_log_group": {
                "handler": {"name": LOG_GROUP, "retention_in_days": made["log group retention"], "tags": TAGS}
            },
            "aws_sqs_queue": {short: self._queue(short, name) for short, name in QUEUES.items()},
            "aws_sqs_queue_policy": {
                "notifications": {
                    "queue_url": "${aws_sqs_queue.notifications.id}",
                    "policy": json.dumps(policy_of(self.queue(QUEUES["notifications"])["policy"])),
                }
            },
            "aws_lambda_function": {
                "handler": {
                    "function_name": FUNCTION,
                    "description": made["function Description"],
                    "filename": self.code,
                    "source_code_hash": '${filebase64sha256("%s")}' % self.code,
                    "role": "${aws_iam_role.function.arn}",
                    "runtime": made["function Runtime"],
                    "handler": made["function Handler"],
                    "architectures": made["function Architectures"],
                    "memory_size": memory,
                    "timeout": made["function Timeout"],
                    "environment": {"variables": made["function Environment"]["Variables"]},
                    "tags": TAGS,
                    "depends_on": ["aws_iam_role_policy.handler", "aws_cloudwatch_log_group.handler"],
                }
            },
            "aws_lambda_function_event_invoke_config": {
                "handler": function
                | {
                    "maximum_retry_attempts": made["function retries"],
                    "maximum_event_age_in_seconds": made["function event age"],
                    "destination_config": {"on_failure": {"destination": "${aws_sqs_queue.failures.arn}"}},
                }
            },
            "aws_lambda_permission": {
                "s3": function
                | {
                    "action": "lambda:InvokeFunction",
                    "principal": "s3.amazonaws.com",
                    "source_arn": "${aws_s3_bucket.files.arn}",
                    "source_account": ACCOUNT,
                }
            },
            "aws_lambda_event_source_mapping": {
                "notifications": function
                | {
                    "event_source_arn": "${aws_sqs_queue.notifications.arn}",
                    "batch_size": made["mapping BatchSize"],
                    "maximum_batching_window_in_seconds": made["mapping MaximumBatchingWindowInSeconds"],
                    "scaling_config": {"maximum_concurrency": made["mapping ScalingConfig"]["MaximumConcurrency"]},
                    "function_response_types": made["mapping FunctionResponseTypes"],
                }
            },
        }
        provider = {"region": REGION, "s3_use_path_style": True, "skip_metadata_api_check": True}
        document = {
            "terraform": {"required_providers": {"aws": {"source": "hashicorp/aws"}}},
            "provider": {"aws": provider},
            "resource": resources,
        }
        (folder / "main.tf.json").write_text(json.dumps(document, indent=1))

    @staticmethod
    def _table(name: str, of: dict[str, Json]) -> Json:
        table = {
            "name": name,
            "billing_mode": "PAY_PER_REQUEST",
            "hash_key": _hash(of["keys"]),
            "range_key": _range(of["keys"]),
            "attribute": [{"name": one["AttributeName"], "type": one["AttributeType"]} for one in of["attributes"]],
            "global_secondary_index": [
                {
                    "name": index["IndexName"],
                    "hash_key": _hash(index["KeySchema"]),
                    "range_key": _range(index["KeySchema"]),
                    "projection_type": "ALL",
                }
                for index in of["indexes"]
            ],
            "point_in_time_recovery": {"enabled": True},
            "tags": TAGS,
        }
        if of["time to live"]:
            table["ttl"] = {"attribute_name": of["time to live"], "enabled": True}
        return table

    def _queue(self, short: str, name: str) -> Json:
        of = self.queue(name)
        queue = {
            "name": name,
            "message_retention_seconds": int(of["MessageRetentionPeriod"]),
            "visibility_timeout_seconds": int(of["VisibilityTimeout"]),
            "sqs_managed_sse_enabled": True,
            "tags": TAGS,
        }
        if of["redrive"]:
            count = int(of["redrive"]["maxReceiveCount"])
            target = "${aws_sqs_queue.failures.arn}"
            queue["redrive_policy"] = json.dumps({"deadLetterTargetArn": target, "maxReceiveCount": count})
        return queue


class Ansible(Generated):
    """Ansible with the collections amazon.aws and community.aws. It has no module for failed asynchronous invocations."""

    name, program = "Ansible", "ansible-playbook"

    def environment(self, url: str) -> dict[str, str]:
        return super().environment(url) | {"ANSIBLE_LOCALHOST_WARNING": "false", "ANSIBLE_NOCOLOR": "1"}

    def command(self, operation: str) -> list[str] | None:
        if operation == "first plan":
            # Most modules fail if what they refer to does not exist yet.
            return None
        play = [self.program, "--inventory", "localhost,", "--connection", "local"]
        if operation == "destroy":
            return [*play, "destroy.json"]
        return [*play, *(["--check"] if "plan" in operation else []), "apply.json"]

    def write(self, folder: pathlib.Path, memory: int) -> None:
        made = self.made
        notification = made["notification"][0]
        role_arn = made["function Role"]
        tasks: list[Json] = [
            {
                "amazon.aws.iam_role": {
                    "name": ROLE,
                    "path": made["role path"],
                    "assume_role_policy_document": policy_of(made["role trust"]),
                    "create_instance_profile": False,
                    "tags": TAGS,
                }
            },
            {
                "amazon.aws.iam_policy": {
                    "iam_type": "role",
                    "iam_name": ROLE,
                    "policy_name": "handler",
                    "policy_json": policy_of(made["role policy"]),
                    "state": "present",
                }
            },
            {
                "amazon.aws.cloudwatchlogs_log_group": {
                    "log_group_name": LOG_GROUP,
                    "retention": made["log group retention"],
                    "state": "present",
                    "tags": TAGS,
                }
            },
        ]
        for name in QUEUES.values():
            of = self.queue(name)
            queue = {
                "name": name,
                "message_retention_period": int(of["MessageRetentionPeriod"]),
                "visibility_timeout": int(of["VisibilityTimeout"]),
                "tags": TAGS,
            }
            if of["redrive"]:
                queue["redrive_policy"] = of["redrive"] | {"maxReceiveCount": int(of["redrive"]["maxReceiveCount"])}
                queue["policy"] = policy_of(of["policy"])
            tasks.append({"community.aws.sqs_queue": queue})
        for name, of in self.tables():
            types = {one["AttributeName"]: {"S": "STRING", "N": "NUMBER"}[one["AttributeType"]] for one in of["attributes"]}
            hashed, ranged = _hash(of["keys"]), _range(of["keys"])
            table = {
                "name": name,
                "hash_key_name": hashed,
                "hash_key_type": types[hashed],
                "range_key_name": ranged,
                "range_key_type": types[ranged],
                "billing_mode": "PAY_PER_REQUEST",
                "indexes": [
                    {
                        "name": index["IndexName"],
                        "type": "global_all",
                        "hash_key_name": _hash(index["KeySchema"]),
                        "hash_key_type": types[_hash(index["KeySchema"])],
                        "range_key_name": _range(index["KeySchema"]),
                        "range_key_type": types[_range(index["KeySchema"])],
                    }
                    for index in of["indexes"]
                ],
                "tags": TAGS,
            }
            tasks.append({"community.aws.dynamodb_table": table})
            if of["time to live"]:
                ttl = {"state": "enable", "table_name": name, "attribute_name": of["time to live"]}
                tasks.append({"community.aws.dynamodb_ttl": ttl})
        tasks += [
            {
                "amazon.aws.s3_bucket": {
                    "name": BUCKET,
                    "encryption": "AES256",
                    "object_ownership": "BucketOwnerEnforced",
                    "public_access": {
                        "block_public_acls": True,
                        "block_public_policy": True,
                        "ignore_public_acls": True,
                        "restrict_public_buckets": True,
                    },
                    "tags": TAGS,
                }
            },
            {
                "amazon.aws.lambda": {
                    "name": FUNCTION,
                    "description": made["function Description"],
                    "state": "present",
                    "zip_file": self.code,
                    "role": role_arn,
                    "runtime": made["function Runtime"],
                    "handler": made["function Handler"],
                    "architecture": made["function Architectures"][0],
                    "memory_size": memory,
                    "timeout": made["function Timeout"],
                    "environment_variables": made["function Environment"]["Variables"],
                    "tags": TAGS,
                }
            },
            {
                "amazon.aws.lambda_policy": {
                    "state": "present",
                    "function_name": FUNCTION,
                    "statement_id": f"{NAME}-s3",
                    "action": "lambda:InvokeFunction",
                    "principal": "s3.amazonaws.com",
                    "source_arn": f"arn:aws:s3:::{BUCKET}",
                    "source_account": ACCOUNT,
                }
            },
            {
                "amazon.aws.lambda_event": {
                    "event_source": "sqs",
                    "state": "present",
                    "function_name": FUNCTION,
                    "lambda_function_arn": FUNCTION_ARN,
                    "source_params": {
                        "source_arn": arn("sqs", QUEUES["notifications"]),
                        "enabled": True,
                        "batch_size": made["mapping BatchSize"],
                        "maximum_batching_window_in_seconds": made["mapping MaximumBatchingWindowInSeconds"],
                        "function_response_types": made["mapping FunctionResponseTypes"],
                    },
                }
            },
            {
                "community.aws.s3_bucket_notification": {
                    "state": "present",
                    "bucket_name": BUCKET,
                    "event_name": f"{NAME}-objects",
                    "queue_arn": notification["queue"],
                    "events": notification["events"],
                    "prefix": notification["filter"]["prefix"],
                    "suffix": notification["filter"]["suffix"],
                }
            },
        ]
        absent = "absent"
        undone: list[Json] = [
            {
                "community.aws.s3_bucket_notification": {
                    "state": absent,
                    "bucket_name": BUCKET,
                    "event_name": f"{NAME}-objects",
                    "queue_arn": notification["queue"],
                    "events": notification["events"],
                }
            },
            {
                "amazon.aws.lambda_event": {
                    "event_source": "sqs",
                    "state": absent,
                    "function_name": FUNCTION,
                    "lambda_function_arn": FUNCTION_ARN,
                    "source_params": {"source_arn": arn("sqs", QUEUES["notifications"])},
                }
            },
            {"amazon.aws.lambda": {"name": FUNCTION, "state": absent}},
            {"amazon.aws.s3_bucket": {"name": BUCKET, "state": absent, "force": True}},
            *({"community.aws.dynamodb_table": {"name": name, "state": absent}} for name in TABLES.values()),
            *({"community.aws.sqs_queue": {"name": name, "state": absent}} for name in QUEUES.values()),
            {"amazon.aws.cloudwatchlogs_log_group": {"log_group_name": LOG_GROUP, "state": absent}},
            {"amazon.aws.iam_role": {"name": ROLE, "path": made["role path"], "state": absent, "delete_instance_profile": False}},
        ]
        facts = {"ansible_python_interpreter": "{{ ansible_playbook_python }}"}
        for file, list_ in (("apply.json", tasks), ("destroy.json", undone)):
            play = {"hosts": "localhost", "gather_facts": False, "vars": facts, "tasks": list_}
            (folder / file).write_text(json.dumps([play], indent=1))


class AwsCli(Generated):
    """A script of the AWS CLI. It makes and deletes what it names, and knows no plan."""

    name, program = "AWS CLI", "aws"

    def environment(self, url: str) -> dict[str, str]:
        return super().environment(url) | {"AWS_PAGER": "", "AWS_MAX_ATTEMPTS": "3"}

    def command(self, operation: str) -> list[str] | None:
        if "plan" in operation:
            return None
        scripts = {"first apply": "apply.sh", "one update": "update.sh", "destroy": "destroy.sh"}
        return ["bash", "-euo", "pipefail", scripts[operation]]

    def write(self, folder: pathlib.Path, memory: int) -> None:
        tags = ",".join(f"{key}={value}" for key, value in TAGS.items())
        update = self._aws("lambda update-function-configuration", function_name=FUNCTION, memory_size=memory)
        wait = self._aws("lambda wait function-updated-v2", function_name=FUNCTION)
        # For SQS, some versions do not read the variable.
        endpoint = 'aws() { command aws --endpoint-url "$AWS_ENDPOINT_URL" "$@"; }'
        scripts = {"apply.sh": self._apply(memory, tags), "update.sh": [update, wait], "destroy.sh": self._destroy()}
        for file, lines in scripts.items():
            (folder / file).write_text("\n".join([endpoint, *lines]))

    @staticmethod
    def _aws(command: str, **options: Json) -> str:
        words = ["aws", *command.split()]
        for key, value in options.items():
            words.append(f"--{key.replace('_', '-')}")
            if value is not True:
                words += value if isinstance(value, list) and value and isinstance(value[0], str) else [
                    value if isinstance(value, str) else json.dumps(value)
                ]
        return f"{shlex.join(words)} > answer"

    def _url(self, name: str) -> str:
        return f"url=$(aws sqs get-queue-url --queue-name {name} --query QueueUrl --output text)"

    def _apply(self, memory: int, tags: str) -> list[str]:
        made, aws = self.made, self._aws
        lines = [
            aws(
                "iam create-role",
                role_name=ROLE,
                path=made["role path"],
                assume_role_policy_document=policy_of(made["role trust"]),
                tags=PAIRS,
            ),
            aws(
                "iam put-role-policy",
                role_name=ROLE,
                policy_name="handler",
                policy_document=policy_of(made["role policy"]),
            ),
            aws("logs create-log-group", log_group_name=LOG_GROUP, tags=tags),
            aws("logs put-retention-policy", log_group_name=LOG_GROUP, retention_in_days=made["log group retention"]),
        ]
        for name in QUEUES.values():
            of = self.queue(name)
            attributes = {key: of[key] for key in ("VisibilityTimeout", "MessageRetentionPeriod")}
            attributes["SqsManagedSseEnabled"] = "true"
            if of["redrive"]:
                attributes["RedrivePolicy"] = json.dumps(of["redrive"])
                attributes["Policy"] = json.dumps(policy_of(of["policy"]))
            lines.append(aws("sqs create-queue", queue_name=name, attributes=attributes, tags=TAGS))
        for name, of in self.tables():
            options: dict[str, Json] = {"table_name": name, "key_schema": of["keys"]}
            options |= {"attribute_definitions": of["attributes"], "billing_mode": "PAY_PER_REQUEST", "tags": PAIRS}
            if of["indexes"]:
                options["global_secondary_indexes"] = of["indexes"]
            lines += [aws("dynamodb create-table", **options), aws("dynamodb wait table-exists", table_name=name)]
            recovery = {"PointInTimeRecoveryEnabled": True}
            lines.append(
                aws("dynamodb update-continuous-backups", table_name=name, point_in_time_recovery_specification=recovery)
            )
            if of["time to live"]:
                ttl = {"Enabled": True, "AttributeName": of["time to live"]}
                lines.append(aws("dynamodb update-time-to-live", table_name=name, time_to_live_specification=ttl))
        encryption = {"Rules": [{"ApplyServerSideEncryptionByDefault": one} for one in made["bucket encryption"]]}
        lines += [
            aws("s3api create-bucket", bucket=BUCKET),
            aws("s3api put-bucket-tagging", bucket=BUCKET, tagging={"TagSet": PAIRS}),
            aws(
                "s3api put-public-access-block",
                bucket=BUCKET,
                public_access_block_configuration=made["bucket public access block"],
            ),
            aws(
                "s3api put-bucket-ownership-controls",
                bucket=BUCKET,
                ownership_controls={"Rules": made["bucket ownership"]},
            ),
            aws("s3api put-bucket-encryption", bucket=BUCKET, server_side_encryption_configuration=encryption),
            aws(
                "lambda create-function",
                function_name=FUNCTION,
                description=made["function Description"],
                runtime=made["function Runtime"],
                handler=made["function Handler"],
                architectures=made["function Architectures"],
                role=made["function Role"],
                memory_size=memory,
                timeout=made["function Timeout"],
                environment=made["function Environment"],
                tags=TAGS,
                zip_file=f"fileb://{self.code}",
            ),
            aws("lambda wait function-active-v2", function_name=FUNCTION),
            aws(
                "lambda put-function-event-invoke-config",
                function_name=FUNCTION,
                maximum_retry_attempts=made["function retries"],
                maximum_event_age_in_seconds=made["function event age"],
                destination_config={"OnFailure": made["function failure queue"]},
            ),
            aws(
                "lambda add-permission",
                function_name=FUNCTION,
                statement_id=f"{NAME}-s3",
                action="lambda:InvokeFunction",
                principal="s3.amazonaws.com",
                source_arn=f"arn:aws:s3:::{BUCKET}",
                source_account=ACCOUNT,
            ),
            aws(
                "lambda create-event-source-mapping",
                function_name=FUNCTION,
                event_source_arn=made["mapping EventSourceArn"],
                batch_size=made["mapping BatchSize"],
                maximum_batching_window_in_seconds=made["mapping MaximumBatchingWindowInSeconds"],
                scaling_config=made["mapping ScalingConfig"],
                function_response_types=made["mapping FunctionResponseTypes"],
            ),
        ]
        one = made["notification"][0]
        rules = [{"Name": name, "Value": value} for name, value in one["filter"].items()]
        entry = {"Id": f"{NAME}-objects", "QueueArn": one["queue"], "Events": one["events"]}
        entries = {"QueueConfigurations": [entry | {"Filter": {"Key": {"FilterRules": rules}}}]}
        lines.append(
            aws(
                "s3api put-bucket-notification-configuration",
                bucket=BUCKET,
                notification_configuration=entries,
            )
        )
        return lines

    def _destroy(self) -> list[str]:
        aws = self._aws
        query = f"aws lambda list-event-source-mappings --function-name {FUNCTION}"
        lines = [
            f"id=$({query} --query 'EventSourceMappings[0].UUID' --output text)",
            'aws lambda delete-event-source-mapping --uuid "$id" > answer',
            aws("lambda delete-function", function_name=FUNCTION),
            aws("s3api delete-bucket", bucket=BUCKET),
            *(aws("dynamodb delete-table", table_name=name) for name in TABLES.values()),
            aws("logs delete-log-group", log_group_name=LOG_GROUP),
            aws("iam delete-role-policy", role_name=ROLE, policy_name="handler"),
            aws("iam delete-role", role_name=ROLE),
        ]
        for name in QUEUES.values():
            lines += [self._url(name), 'aws sqs delete-queue --queue-url "$url" > answer']
        return lines
