"""Measures plans and applies of the provisioner, of Terraform, of Ansible and of a script of the AWS CLI.

Each program makes the resources of one pipeline on a local AWS of its own, from a declaration that is generated from what
the provisioner made, and what each made is compared. Programs that are not installed are left out, and named. Terraform
needs its provider: where no registry is reached, TF_CLI_ARGS_init="-plugin-dir=FOLDER" names a folder that has it.
Usage: provision.py PROVISIONER BOOTSTRAP REPORT
"""

from __future__ import annotations

import os
import pathlib
import shlex
import statistics
import subprocess
import sys
import tempfile
import time
import zipfile
from contextlib import contextmanager
from typing import Any, Iterator

import report
from declarations import Ansible, AwsCli, Provisioner, Terraform, Tool, settings
from local import Endpoint, local_aws, proxy

LATENCIES = (0, 50)
# Seconds without a call after which a round of calls is complete. The programs compute for less between two calls.
QUIET = 0.5
# Runs of a command that changes nothing; the median counts.
RUNS = 3
OPERATIONS = ("first plan", "first apply", "plan, no change", "one update", "destroy")
OTHERS = 100


def run(command: list[str], folder: pathlib.Path, environment: dict[str, str]) -> float:
    """Runs a command, which must succeed, and returns the seconds that it took."""
    begun = time.monotonic()
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    seconds = time.monotonic() - begun
    if done.returncode:
        sys.exit(f"{shlex.join(command)} failed:\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}")
    return seconds


@contextmanager
def prepared(tool: Tool, endpoint: Endpoint) -> Iterator[tuple[pathlib.Path, dict[str, str]]]:
    """Yields a folder with the declaration, and the environment of the program."""
    with tempfile.TemporaryDirectory(prefix="bench-") as name:
        folder = pathlib.Path(name)
        environment = tool.environment(endpoint.url) | {"HOME": name}
        tool.write(folder, tool.memory)
        for command in tool.setup():
            run(command, folder, environment)
        yield folder, environment


def life(tool: Tool, folder: pathlib.Path, environment: dict[str, str]) -> Iterator[tuple[str, float]]:
    """Runs each operation once, and the plan without changes several times."""
    for operation in OPERATIONS:
        command = tool.command(operation)
        if command is None:
            continue
        if operation == "one update":
            tool.write(folder, 2 * tool.memory)
        repeats = RUNS if "no change" in operation else 1
        yield operation, statistics.median(run(command, folder, environment) for _ in range(repeats))


def times(tool: Tool, latency: int) -> dict[str, float]:
    """Returns the seconds of each operation on a fresh local AWS with this latency in milliseconds."""
    with local_aws() as aws, proxy(aws, "--latency", latency / 1000) as endpoint:
        with prepared(tool, endpoint) as (folder, environment):
            return dict(life(tool, folder, environment))


def chains(tool: Tool) -> tuple[dict[str, tuple[int, int]], dict[str, Any]]:
    """Returns the calls and the longest chain of each operation, and the settings after the apply."""
    with local_aws() as aws, proxy(aws, "--quiet", QUIET) as endpoint:
        with prepared(tool, endpoint) as (folder, environment):
            endpoint.rounds()
            found: dict[str, tuple[int, int]] = {}
            made: dict[str, Any] = {}
            for operation in OPERATIONS:
                command = tool.command(operation)
                if command is None:
                    continue
                if operation == "one update":
                    tool.write(folder, 2 * tool.memory)
                run(command, folder, environment)
                found[operation] = endpoint.rounds()
                if operation == "first apply":
                    made = settings(aws.url)
            return found, made


def crowded(tool: Tool) -> tuple[float, float]:
    """Returns the seconds of a plan without changes, alone in the account and beside many other pipelines."""
    with local_aws() as aws, prepared(tool, aws) as (folder, environment):
        run(tool.command("first apply") or [], folder, environment)
        plan = tool.command("plan, no change") or []

        def median() -> float:
            return statistics.median(run(plan, folder, environment) for _ in range(3 * RUNS))

        alone = median()
        aws.crowd(OTHERS)
        return alone, median()


def differences(reference: dict[str, Any], made: dict[str, Any]) -> list[str]:
    """Returns the names of the settings that differ from those that the provisioner made."""
    return sorted(key for key in reference.keys() | made.keys() if reference.get(key) != made.get(key))


def rows(tools: list[Tool], seconds: dict[tuple[str, int], dict[str, float]]) -> list[str]:
    lines = []
    for latency in LATENCIES:
        for operation in OPERATIONS:
            cells = [f"{latency} ms", operation]
            for tool in tools:
                taken = seconds[tool.name, latency].get(operation)
                cells.append("" if taken is None else f"{taken:.2f}")
            lines.append(f"| {' | '.join(cells)} |")
    return lines


def main() -> None:
    binary, bootstrap, path = sys.argv[1:]
    with tempfile.TemporaryDirectory(prefix="bench-") as name:
        code = pathlib.Path(name) / "function.zip"
        with zipfile.ZipFile(code, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.write(bootstrap, "bootstrap")
        provisioner = Provisioner(os.path.abspath(binary), os.path.abspath(bootstrap))
        counted = {provisioner.name: chains(provisioner)}
        reference = counted[provisioner.name][1]
        others = [kind(reference, code) for kind in (Terraform, Ansible, AwsCli)]
        tools: list[Tool] = [provisioner, *(tool for tool in others if tool.is_installed())]
        missing = [tool.name for tool in others if not tool.is_installed()]
        seconds = {}
        for tool in tools:
            print(tool.name, flush=True)
            if tool.name not in counted:
                counted[tool.name] = chains(tool)
            for latency in LATENCIES:
                seconds[tool.name, latency] = times(tool, latency)
        alone, beside = crowded(provisioner)
    lines = [
        f"Written by `make bench`. Each program makes the {len(reference)} settings of one pipeline on a fresh local AWS",
        "from a declaration of its own, and updates the function's memory. Seconds of wall time; of a plan without changes,",
        f"the median of {RUNS}. Every call is delayed by the latency. Terraform waits some 25 s for each queue by itself.",
        "",
        f"| latency | | {' | '.join(tool.name for tool in tools)} |",
        f"| --- | --- | {' | '.join('---:' for _ in tools)} |",
        *rows(tools, seconds),
        "",
        "The calls, and in brackets the longest chain of calls of which each needs the answer of the one before:",
        "",
        f"| | {' | '.join(tool.name for tool in tools)} |",
        f"| --- | {' | '.join('---:' for _ in tools)} |",
    ]
    for operation in OPERATIONS:
        found = [counted[tool.name][0].get(operation) for tool in tools]
        cells = [f"{pair[0]} ({pair[1]})" if pair else "" for pair in found]
        lines.append(f"| {operation} | {' | '.join(cells)} |")
    lines.append("")
    for tool in tools[1:]:
        differs = differences(reference, counted[tool.name][1])
        lines.append(f"{tool.name} made " + (f"other settings in: {', '.join(differs)}." if differs else "the same settings."))
    if missing:
        lines += ["", f"Skipped because not installed: {', '.join(missing)}."]
    lines += [
        "",
        f"A plan without changes takes {alone:.2f} s alone in an account, and {beside:.2f} s beside {OTHERS} other pipelines.",
    ]
    print(report.write(path, "Provisioning", lines))


if __name__ == "__main__":
    main()
