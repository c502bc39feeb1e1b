"""Runs the strict local AWS in front of MiniStack, as a child process that cannot outlive its parent.

    python tests/strict PORT UPSTREAM [--only NAMES | --off NAMES] [--record FILE]
    python tests/strict --table [DOCUMENT]

NAMES are names of behaviours, with commas between them; `--off` also takes the steps `validation` and `authorization`.
With `--only ""` no behaviour is on. `--record` appends a line of JSON for each call to a file. `--table` prints the
behaviours as a table in Markdown, or writes it between the marks of a document. The server stops when standard input ends, which happens when the parent ends for
whatever reason.
"""

from __future__ import annotations

import argparse
import asyncio
import pathlib
import sys
import threading
from collections.abc import Iterable

# The folder itself must not be on the path: its modules are parts of a package.
sys.path[0] = str(pathlib.Path(__file__).resolve().parent.parent)

from strict import server  # noqa: E402
from strict.registry import BEHAVIOURS  # noqa: E402

# The marks of the table in a document.
MARKS = ("<!-- behaviours of the strict local AWS -->", "<!-- end of behaviours -->")


def main() -> int:
    parser = argparse.ArgumentParser(prog="strict")
    parser.add_argument("port", type=int, nargs="?")
    parser.add_argument("upstream", nargs="?")
    switches = parser.add_mutually_exclusive_group()
    switches.add_argument("--only", type=_names)
    switches.add_argument("--off", type=_names, default=[])
    parser.add_argument("--record")
    parser.add_argument("--table", nargs="?", const="-", metavar="DOCUMENT")
    arguments = parser.parse_args()
    server.load_behaviours()
    if arguments.table == "-":
        print(_table())
        return 0
    if arguments.table:
        _write(_table(), pathlib.Path(arguments.table))
        return 0
    if arguments.upstream is None:
        parser.error("the port and the upstream are missing")
    try:
        chosen = server.Switches(arguments.only, arguments.off)
    except ValueError as error:
        parser.error(str(error))
    asyncio.run(_serve(arguments.port, arguments.upstream, chosen, arguments.record))
    return 0


async def _serve(port: int, upstream: str, chosen: server.Switches, record: str | None) -> None:
    over = asyncio.Event()
    loop = asyncio.get_running_loop()

    def watch_parent() -> None:
        while sys.stdin.buffer.raw.read(4096):
            pass
        loop.call_soon_threadsafe(over.set)

    threading.Thread(target=watch_parent, daemon=True).start()
    await server.serve(port, upstream, chosen, record, over)


def _names(text: str) -> list[str]:
    return [name.strip() for name in text.split(",") if name.strip()]


def _table() -> str:
    rows = ["| service | what AWS does | source | certainty |", "| --- | --- | --- | --- |"]
    for name in dict.fromkeys(known.name for known in BEHAVIOURS):
        same = [known for known in BEHAVIOURS if known.name == name]
        words = f"{same[0].words} *(some accounts)*" if same[0].optional else same[0].words
        cells = (
            _joined(known.service for known in same),
            words,
            _joined(known.source for known in same),
            _joined(known.certainty for known in same),
        )
        rows.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(rows)


def _write(table: str, document: pathlib.Path) -> None:
    text = document.read_text(encoding="utf-8")
    before, first, rest = text.partition(MARKS[0])
    _, last, after = rest.partition(MARKS[1])
    if not first or not last:
        sys.exit(f"{document} has no marks for the table: {MARKS[0]} and {MARKS[1]}")
    document.write_text(f"{before}{first}\n\n{table}\n\n{last}{after}", encoding="utf-8")


def _joined(texts: Iterable[str]) -> str:
    return "; ".join(dict.fromkeys(texts))


if __name__ == "__main__":
    sys.exit(main())
