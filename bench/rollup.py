"""Benchmarks `provisioner rollup` against other programs with the same output, on one generated file.

    python rollup.py OURS SAMPLES BOOTSTRAP REPORT

OURS is the release build of the provisioner, SAMPLES the program that generates the file, BOOTSTRAP the function's
binary, whose start is timed too, and REPORT the Markdown file to write.
Each command is a whole process. The commands take turns: each runs once to warm up, then RUNS times. CPU time and peak
memory are the kernel's figures for the finished process. Programs that are not installed are listed and skipped.
"""

import io
import os
import pathlib
import shutil
import socket
import statistics
import subprocess
import sys
import time
import zipfile

import report

RUNS = 7
HERE = pathlib.Path(__file__).resolve().parent
FILE = HERE.parent / "target" / "bench" / "events.gz"

DUCKDB = """
import duckdb, sys
rows = duckdb.connect(config={'threads': 1}).execute('''
    SELECT event, strftime(date_trunc('hour', "timestamp"), '%Y-%m-%dT%H:%M:%SZ') AS hour, count(*)
    FROM read_ndjson(?, columns = {type: 'VARCHAR', event: 'VARCHAR', "timestamp": 'TIMESTAMP'})
    WHERE type = 'track' GROUP BY ALL''', [sys.argv[1]]).fetchall()
escape = lambda s: s.replace('\\\\', '\\\\\\\\').replace('\\t', '\\\\t').replace('\\n', '\\\\n')
for row in sorted((e.encode(), h, n) for e, h, n in rows):
    print(escape(row[0].decode()), row[1], row[2], sep='\\t')
"""

PYTHON = """
import collections, gzip, json, sys
counts = collections.Counter()
with gzip.open(sys.argv[1], 'rb') as file:
    for line in file:
        message = json.loads(line)
        if message['type'] == 'track':
            counts[message['event'].encode(), message['timestamp'][:13] + ':00:00Z'] += 1
escape = lambda s: s.replace('\\\\', '\\\\\\\\').replace('\\t', '\\\\t').replace('\\n', '\\\\n')
for (event, hour), count in sorted(counts.items()):
    print(escape(event.decode()), hour, count, sep='\\t')
"""

NODE = """
const counts = new Map();
const input = require('fs').createReadStream(process.argv[1]).pipe(require('zlib').createGunzip());
require('readline').createInterface({ input, crlfDelay: Infinity }).on('line', (line) => {
  const message = JSON.parse(line);
  if (message.type !== 'track') return;
  const key = message.event + '\\t' + message.timestamp.slice(0, 13) + ':00:00Z';
  counts.set(key, (counts.get(key) ?? 0) + 1);
}).on('close', () => {
  const escape = (s) => s.replaceAll('\\\\', '\\\\\\\\');
  const rows = [...counts].map(([key, count]) => Buffer.from(escape(key) + '\\t' + count));
  for (const row of rows.sort(Buffer.compare)) console.log(row.toString());
});
"""


def peers(ours: str) -> tuple[dict[str, list[str]], list[str]]:
    """Returns the commands by name, and the names of missing ones. Those that only decompress are in brackets."""
    file = str(FILE)
    wanted = {
        "this project": ([ours, "rollup", "--count", "track", file], True),
        "(igzip -dc)": (["igzip", "-dc", file], shutil.which("igzip")),
        "(gzip -dc)": (["gzip", "-dc", file], shutil.which("gzip")),
        "DuckDB, 1 thread": ([sys.executable, "-c", DUCKDB, file], has_module("duckdb")),
        "Python, json": ([sys.executable, "-c", PYTHON, file], True),
        "Node, JSON.parse": (["node", "-e", NODE, file], shutil.which("node")),
    }
    return (
        {name: command for name, (command, is_installed) in wanted.items() if is_installed},
        [name for name, (_, is_installed) in wanted.items() if not is_installed],
    )


def has_module(name: str) -> bool:
    import importlib.util

    return importlib.util.find_spec(name) is not None


def run(command: list[str], keep: bool) -> tuple[float, float, float, bytes]:
    """Returns CPU seconds, wall seconds, peak MiB and output of one run."""
    begin = time.perf_counter()
    child = subprocess.Popen(command, stdout=subprocess.PIPE if keep else subprocess.DEVNULL)
    output = child.stdout.read() if keep else b""
    _, status, usage = os.wait4(child.pid, 0)
    wall = time.perf_counter() - begin
    child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode != 0:
        sys.exit(f"{command[0]} exited with {child.returncode}")
    return usage.ru_utime + usage.ru_stime, wall, usage.ru_maxrss / 1024, output


def starts(bootstrap: str) -> list[tuple[float, float]]:
    """Returns the milliseconds from process start to the first request for an invocation, and the peak MiB."""
    found = []
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(30)
        environment = report.function_environment(f"127.0.0.1:{server.getsockname()[1]}")
        for _ in range(RUNS + 1):
            begin = time.perf_counter()
            child = subprocess.Popen([bootstrap], env=environment, stdout=subprocess.DEVNULL)
            try:
                connection, _ = server.accept()
                with connection:
                    connection.settimeout(30)
                    request = connection.recv(4096)
                    wall = (time.perf_counter() - begin) * 1000
                    if b"/invocation/next" not in request:
                        sys.exit(f"{bootstrap} sent an unexpected first request: {request!r}")
                    status = pathlib.Path(f"/proc/{child.pid}/status").read_text()
            finally:
                child.kill()
                child.wait()
            peak = next(line for line in status.splitlines() if line.startswith("VmHWM:"))
            found.append((wall, int(peak.split()[1]) / 1024))
    return found[1:]


def main() -> None:
    ours, samples, bootstrap, path = sys.argv[1:]
    FILE.parent.mkdir(parents=True, exist_ok=True)
    subprocess.run([samples, str(FILE)], check=True)
    raw = int(subprocess.run(["sh", "-c", f"gzip -dc '{FILE}' | wc -c"], check=True, capture_output=True).stdout)

    commands, absent = peers(ours)
    runs: dict[str, list[tuple[float, float, float]]] = {name: [] for name in commands}
    outputs: dict[str, bytes] = {}
    for turn in range(RUNS + 1):
        for name, command in commands.items():
            keep = not name.startswith("(")
            cpu, wall, memory, output = run(command, keep)
            if turn > 0:
                runs[name].append((cpu, wall, memory))
            if keep and outputs.setdefault(name, output) != output:
                sys.exit(f"the output of {name} differs between runs")
    expected = outputs["this project"]
    if differing := [name for name, output in outputs.items() if output != expected]:
        sys.exit(f"the output of these differs from this project's: {', '.join(differing)}")

    median = {name: [statistics.median(column) for column in zip(*of)] for name, of in runs.items()}
    spread = {name: (min(cpu for cpu, *_ in of), max(cpu for cpu, *_ in of)) for name, of in runs.items()}
    base = median["this project"][0]
    lines = [
        "Written by `make bench-rollup`. Each figure is the median of "
        f"{RUNS} whole processes; the programs take turns. Those in brackets only",
        "decompress the file. The output of all others was identical, byte for byte. "
        "Peaks below 13 MiB, the peak of the measuring program,",
        "cannot be measured.",
        "",
        f"The file: 300,000 messages, {raw / 1e6:.0f} MB, {FILE.stat().st_size / 1e6:.0f} MB gzipped, "
        f"{len(expected.splitlines())} pairs.",
        "",
        "| | CPU s | (min to max) | wall s | peak MiB | this project's CPU time |",
        "| --- | ---: | ---: | ---: | ---: | ---: |",
    ]
    for name, (cpu, wall, memory) in median.items():
        low, high = spread[name]
        ratio = "" if name == "this project" else f"{base / cpu:.2f} times"
        lines.append(f"| {name} | {cpu:.2f} | {low:.2f} to {high:.2f} | {wall:.2f} | {memory:.0f} | {ratio} |")
    if absent:
        lines += ["", f"Skipped because not installed: {', '.join(absent)}."]
    cold = starts(bootstrap)
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.write(bootstrap, "bootstrap")
    start = [
        "Written by `make bench-rollup`. Time from the start of the function's process to its first request for an invocation: median "
        f"{statistics.median(ms for ms, _ in cold):.1f} ms ({min(cold)[0]:.1f} to {max(cold)[0]:.1f}). "
        "Peak resident memory: "
        f"{statistics.median(mib for _, mib in cold):.1f} MiB. Size of the binary: "
        f"{os.path.getsize(bootstrap) / 1e6:.1f} MB, {len(packed.getvalue()) / 1e6:.1f} MB zipped.",
    ]
    print(report.write(path, "Rollup", lines))
    print(report.write(path, "Cold start", start))


if __name__ == "__main__":
    main()
