"""A local AWS for a benchmark, and the proxy that delays its calls or measures their chains."""

from __future__ import annotations

import io
import json
import pathlib
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
import zipfile
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Iterator

import botocore.session
from botocore.config import Config

TESTS = pathlib.Path(__file__).parent.parent / "tests"
ACCOUNT = "123456789012"
REGION = "us-east-1"
START_SECONDS = 60


def client(url: str, service: str) -> Any:
    """Returns a client of botocore as the account's root."""
    return botocore.session.Session().create_client(
        service,
        region_name=REGION,
        endpoint_url=url,
        aws_access_key_id=ACCOUNT,
        aws_secret_access_key="test",
        config=Config(s3={"addressing_style": "path"}),
    )


@dataclass(frozen=True)
class Endpoint:
    """The URL of a local AWS, or of a proxy in front of it."""

    url: str

    def rounds(self) -> tuple[int, int]:
        """Returns the number of calls since the last time, and the length of their longest chain."""
        with urllib.request.urlopen(f"{self.url}/_rounds") as answer:
            found = json.load(answer)
        return found["calls"], len(found["rounds"])

    def crowd(self, pipelines: int) -> None:
        """Makes resources of other pipelines."""
        names = ("sqs", "dynamodb", "iam", "lambda", "logs", "s3")
        sqs, dynamodb, iam, functions, logs, s3 = (client(self.url, name) for name in names)
        code = io.BytesIO()
        with zipfile.ZipFile(code, "w") as archive:
            archive.writestr("bootstrap", "#!/bin/sh\n")
        trust = {
            "Version": "2012-10-17",
            "Statement": [
                {"Effect": "Allow", "Principal": {"Service": "lambda.amazonaws.com"}, "Action": "sts:AssumeRole"}
            ],
        }
        for number in range(pipelines):
            name = f"other-{number}"
            tags = {"pipeline": name, "managed-by": "provisioner"}
            pairs = [{"Key": key, "Value": value} for key, value in tags.items()]
            s3.create_bucket(Bucket=name)
            s3.put_bucket_tagging(Bucket=name, Tagging={"TagSet": pairs})
            role = iam.create_role(
                RoleName=f"{name}-function",
                Path=f"/pipeline/{name}/",
                AssumeRolePolicyDocument=json.dumps(trust),
                Tags=pairs,
            )
            for table in ("counts", "daily", "ledger"):
                dynamodb.create_table(
                    TableName=f"{name}-{table}",
                    KeySchema=[{"AttributeName": "event", "KeyType": "HASH"}],
                    AttributeDefinitions=[{"AttributeName": "event", "AttributeType": "S"}],
                    BillingMode="PAY_PER_REQUEST",
                    Tags=pairs,
                )
            for queue in ("failures", "notifications"):
                sqs.create_queue(QueueName=f"{name}-{queue}", tags=tags)
            logs.create_log_group(logGroupName=f"/aws/lambda/{name}-handler", tags=tags)
            functions.create_function(
                FunctionName=f"{name}-handler",
                Runtime="provided.al2023",
                Handler="bootstrap",
                Role=role["Role"]["Arn"],
                Code={"ZipFile": code.getvalue()},
                Tags=tags,
            )


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def _started(command: list[str], port: int, health: str) -> Iterator[Endpoint]:
    # Closing standard input stops the program.
    nowhere = subprocess.DEVNULL
    child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=nowhere, stderr=nowhere)
    assert child.stdin is not None
    endpoint = Endpoint(f"http://127.0.0.1:{port}")
    try:
        begun = time.monotonic()
        while True:
            try:
                urllib.request.urlopen(endpoint.url + health, timeout=5).read()
                break
            except OSError:
                if child.poll() is not None or time.monotonic() - begun > START_SECONDS:
                    sys.exit(f"{command[1]} did not start")
                time.sleep(0.05)
        yield endpoint
    finally:
        child.stdin.close()
        child.wait()


@contextmanager
def local_aws() -> Iterator[Endpoint]:
    """Runs a local AWS without any resource."""
    port = _free_port()
    with tempfile.TemporaryDirectory(prefix="local-aws-", ignore_cleanup_errors=True) as folder:
        command = [sys.executable, str(TESTS / "local_aws.py"), str(port), folder]
        with _started(command, port, "/_ministack/health") as endpoint:
            yield endpoint


@contextmanager
def proxy(aws: Endpoint, option: str, seconds: float) -> Iterator[Endpoint]:
    """Runs a proxy in front of it, with an option of tests/rounds.py."""
    if not seconds:
        yield aws
        return
    port = _free_port()
    command = [sys.executable, str(TESTS / "rounds.py"), str(port), aws.url, option, str(seconds)]
    with _started(command, port, "/_rounds") as endpoint:
        yield endpoint
