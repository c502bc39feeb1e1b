"""What the benchmarks share: the sections of docs/benchmarks.md, of which each writes its own and leaves the others, and
the environment of the function."""

from __future__ import annotations

import datetime
import os
import pathlib
import platform
import re

INTRODUCTION = "# Benchmarks\n\nEach section names the command that writes it.\n"


def processor() -> str:
    """Returns the name of the processor."""
    for line in pathlib.Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def write(report: str, heading: str, lines: list[str]) -> str:
    """Replaces the section with this heading, or appends it, and returns its text."""
    path = pathlib.Path(report)
    text = path.read_text() if path.exists() else INTRODUCTION
    machine = f"{processor()}, {os.cpu_count()} cores, {platform.system()} {platform.machine()}"
    head = [f"## {heading}", "", f"{datetime.date.today().isoformat()}, {machine}.", ""]
    section = "\n".join(head + lines).rstrip() + "\n"
    old = re.search(rf"^## {re.escape(heading)}\n.*?(?=^## |\Z)", text, re.MULTILINE | re.DOTALL)
    if old:
        text = text[: old.start()] + section + ("\n" if text[old.end() :] else "") + text[old.end() :]
    else:
        text = text.rstrip() + "\n\n" + section
    path.write_text(text)
    return section


def function_environment(runtime_api: str) -> dict[str, str]:
    """Returns the environment of the function's process, with Lambda's runtime API at this host and port."""
    return {
        "AWS_LAMBDA_RUNTIME_API": runtime_api,
        "AWS_LAMBDA_FUNCTION_NAME": "events-handler",
        "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": "256",
        "AWS_LAMBDA_FUNCTION_VERSION": "1",
        "AWS_LAMBDA_LOG_GROUP_NAME": "group",
        "AWS_LAMBDA_LOG_STREAM_NAME": "stream",
        "AWS_REGION": "us-east-1",
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "BUCKET": "events",
        "BUCKET_OWNER": "123456789012",
        "COUNTS_TABLE": "counts",
        "DAILY_TABLE": "daily",
        "LEDGER_TABLE": "ledger",
        "COUNT_TYPES": "track",
    }
