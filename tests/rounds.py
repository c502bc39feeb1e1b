"""A proxy in front of the local AWS that measures chains of calls, or delays each call.

    python rounds.py PORT UPSTREAM [--quiet SECONDS | --latency SECONDS]

With `--quiet`, it holds every call until the program has sent none for that time, and then passes on all that it holds:
a round. A call that needs the answer of another is thus in a later round, and the number of rounds is the length of the
longest chain, however long the server takes for a call. With `--latency`, each call is passed on after that time.

GET /_rounds returns the rounds as lists of calls, and how many calls there were, and begins anew. A read that repeats an
earlier one, with no change between the two, is a poll: it is passed on at once and is in no round.

Requests are passed on unchanged, with their `Host`, so their signatures stay valid. The proxy stops when standard input
ends, which happens when the parent ends for whatever reason.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import sys
import threading
import time
from urllib.parse import parse_qs

import aiohttp
from aiohttp import web
from yarl import URL

HOST = "127.0.0.1"
READS = ("Get", "List", "Describe", "Head", "Simulate")
# The server decides on these itself.
HOPS = ("connection", "content-length", "date", "keep-alive", "server", "transfer-encoding")
LARGEST = 1 << 28


class Rounds:
    """The calls of one program."""

    def __init__(self, upstream: str, quiet: float, latency: float) -> None:
        self.upstream, self.quiet, self.latency = upstream, quiet, latency
        self.client: aiohttp.ClientSession | None = None
        self.held: list[asyncio.Event] = []
        self.running, self.last = 0, 0.0
        self.reset()

    def reset(self) -> None:
        self.rounds: list[list[str]] = []
        self.next: list[str] = []
        self.asked: set[tuple[str, bytes]] = set()
        self.calls = 0

    async def start(self, _app: web.Application) -> None:
        connector = aiohttp.TCPConnector(limit=0)
        timeout = aiohttp.ClientTimeout(total=None)
        self.client = aiohttp.ClientSession(connector=connector, timeout=timeout, auto_decompress=False)
        if self.quiet:
            self.ticker = asyncio.create_task(self.tick())

    async def stop(self, _app: web.Application) -> None:
        assert self.client is not None
        await self.client.close()

    async def tick(self) -> None:
        """Passes on the calls that are held, whenever the program is quiet."""
        while True:
            await asyncio.sleep(self.quiet / 20)
            if self.held and not self.running and time.monotonic() - self.last >= self.quiet:
                self.rounds.append(sorted(self.next))
                self.next = []
                # Before any of them runs on, so that the round is complete.
                self.running += len(self.held)
                for event in self.held:
                    event.set()
                self.held = []

    async def take(self, _request: web.Request) -> web.Response:
        answer = {"rounds": self.rounds, "calls": self.calls}
        self.reset()
        return web.json_response(answer)

    async def call(self, request: web.Request) -> web.Response:
        body = await request.read()
        name, reads = name_of(request, body)
        self.calls += 1
        self.last = time.monotonic()
        identity = (name + request.path_qs, body)
        polls = reads and identity in self.asked
        if not reads:
            self.asked.clear()
        if self.latency:
            await asyncio.sleep(self.latency)
        if self.quiet and not polls:
            event = asyncio.Event()
            self.held.append(event)
            self.next.append(name)
            await event.wait()
        else:
            self.running += 1
        try:
            return await self.forward(request, body)
        finally:
            self.running -= 1
            self.last = time.monotonic()
            if reads:
                self.asked.add(identity)

    async def forward(self, request: web.Request, body: bytes) -> web.Response:
        assert self.client is not None
        url = URL(self.upstream + request.raw_path, encoded=True)
        headers = [(name, value) for name, value in request.headers.items() if name.lower() not in HOPS[:1] + HOPS[3:]]
        skipped = ("Accept", "Accept-Encoding", "User-Agent", "Content-Type")
        async with self.client.request(
            request.method, url, headers=headers, data=body, skip_auto_headers=skipped, allow_redirects=False
        ) as answer:
            content = await answer.read()
            kept = [(name, value) for name, value in answer.headers.items() if name.lower() not in HOPS]
            return web.Response(status=answer.status, headers=kept, body=content)


def name_of(request: web.Request, body: bytes) -> tuple[str, bool]:
    """Returns a name for the call, and whether it changes nothing."""
    target = request.headers.get("x-amz-target")
    if target:
        action = target.rpartition(".")[2]
        return action, action.startswith(READS)
    if request.method == "POST" and request.path == "/":
        with contextlib.suppress(UnicodeDecodeError):
            action = parse_qs(body.decode()).get("Action", [""])[0]
            if action:
                return action, action.startswith(READS)
    keys = "&".join(key for key in request.query if key != "x-id")
    return f"{request.method} {request.path}{'?' if keys else ''}{keys}", request.method in ("GET", "HEAD")


def watch_parent() -> None:
    while sys.stdin.buffer.raw.read(4096):
        pass
    os._exit(0)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("port", type=int)
    parser.add_argument("upstream")
    parser.add_argument("--quiet", type=float, default=0.0)
    parser.add_argument("--latency", type=float, default=0.0)
    arguments = parser.parse_args()
    rounds = Rounds(arguments.upstream, arguments.quiet, arguments.latency)
    app = web.Application(client_max_size=LARGEST)
    app.on_startup.append(rounds.start)
    app.on_cleanup.append(rounds.stop)
    app.router.add_get("/_rounds", rounds.take)
    app.router.add_route("*", "/{tail:.*}", rounds.call)
    threading.Thread(target=watch_parent, daemon=True).start()
    web.run_app(app, host=HOST, port=arguments.port, access_log=None, print=None)


if __name__ == "__main__":
    main()
