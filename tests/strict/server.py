"""The server: it parses each request, validates and authorises the call, applies the behaviours, and forwards it."""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import json
import time
from collections.abc import Iterable
from typing import Any, TextIO

import aiohttp
from aiohttp import web
from multidict import CIMultiDict
from yarl import URL

from . import models, wire
from .registry import (
    ACCOUNT,
    BEHAVIOUR_MODULES,
    BEHAVIOURS,
    DEFAULT_ACCOUNT,
    DEFAULT_KEY,
    AccountState,
    Answer,
    AwsFailure,
    Behaviour,
    Call,
    HttpRequest,
    Proceed,
    World,
)

HOST = "127.0.0.1"
# Paths of MiniStack's own, and of this server.
UNPARSED = ("/_ministack", "/_localstack", "/health")
CONTROL = "/_strict/"
# The steps that can be switched off like behaviours.
STEPS = ("validation", "authorization")
# Functions may run for 15 minutes.
UPSTREAM_SECONDS = 1000.0
CONNECT_SECONDS = 10.0
# MiniStack closes idle connections after 5 seconds; a request on a closing one would fail.
UPSTREAM_IDLE_SECONDS = 2.0
HEADER_BYTES = 65536


def load_behaviours() -> None:
    """Imports the modules that register behaviours."""
    for name in BEHAVIOUR_MODULES:
        importlib.import_module(f".{name}", __package__)


class Switches:
    """Which behaviours are on, for all accounts and for one."""

    def __init__(self, only: Iterable[str] | None, off: Iterable[str]) -> None:
        """Takes the names on the command line. Raises ValueError when there is no behaviour of a name."""
        self._only = None if only is None else frozenset(only)
        self._off = frozenset(off)
        self.check((self._only or frozenset()) | self._off)

    @staticmethod
    def check(names: Iterable[str]) -> None:
        """Raises ValueError when there is no behaviour of one of the names."""
        unknown = set(names) - {known.name for known in BEHAVIOURS} - set(STEPS)
        if unknown:
            raise ValueError(f"no such behaviours: {', '.join(sorted(unknown))}")

    def step(self, state: AccountState, name: str) -> bool:
        """Returns whether a step is on for the account."""
        return name not in state.off and (name in state.on or name not in self._off)

    def behaviour(self, state: AccountState, known: Behaviour) -> bool:
        """Returns whether a behaviour is on for the account."""
        if known.name in state.off:
            return False
        if known.name in state.on:
            return True
        if self._only is not None:
            return known.name in self._only
        return not known.optional and known.name not in self._off


class Strict:
    """The strict local AWS."""

    def __init__(self, port: int, upstream: str, switches: Switches, record: TextIO | None = None) -> None:
        """Takes the port to serve, the URL of MiniStack, the switches, and the file to record the calls in."""
        self._port, self._upstream = port, upstream.rstrip("/")
        self._switches, self._record = switches, record
        self._world = World(self._forward, f"{HOST}:{port}")
        self._accounts: dict[str, str] = {DEFAULT_KEY: DEFAULT_ACCOUNT}
        self._session: aiohttp.ClientSession | None = None

    async def run(self) -> None:
        """Serves until it is cancelled."""
        # Bodies are neither limited nor decompressed.
        server = web.Server(
            self._answer_http, auto_decompress=False, max_line_size=HEADER_BYTES, max_field_size=HEADER_BYTES
        )
        runner = web.ServerRunner(server, shutdown_timeout=0.1)
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=UPSTREAM_IDLE_SECONDS),
            timeout=aiohttp.ClientTimeout(total=UPSTREAM_SECONDS, sock_connect=CONNECT_SECONDS),
            auto_decompress=False,
            cookie_jar=aiohttp.DummyCookieJar(),
            skip_auto_headers=("User-Agent", "Accept", "Accept-Encoding", "Content-Type"),
            max_line_size=HEADER_BYTES,
            max_field_size=HEADER_BYTES,
        )
        try:
            await runner.setup()
            await web.TCPSite(runner, HOST, self._port, backlog=1024).start()
            await asyncio.Event().wait()
        finally:
            await runner.cleanup()
            await self._session.close()

    async def _answer_http(self, raw: web.BaseRequest) -> web.StreamResponse:
        path, _, query = raw.raw_path.partition("?")
        if raw.headers.get("Expect", "").lower() == "100-continue":
            await raw.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            # The answer itself has not begun.
            raw.writer.output_size = 0
        body = await raw.content.read()
        request = HttpRequest(raw.method, path, query, CIMultiDict(raw.headers), body)
        try:
            answer = await (self._control(request) if path.startswith(CONTROL) else self._answer(request))
        except aiohttp.ClientConnectorError as error:
            # Clients repeat a call after a 502; the local AWS may be on its way up.
            answer = _plain(502, f"the upstream is not there: {error}")
        except (aiohttp.ClientError, asyncio.TimeoutError) as error:
            answer = _plain(502, f"the upstream failed: {error!r}")
        headers = CIMultiDict(answer.headers)
        if raw.method != "HEAD":
            headers.popall("Content-Length", None)
        return web.Response(status=answer.status, headers=headers, body=answer.body or None)

    async def _answer(self, request: HttpRequest) -> Answer:
        signed = wire.signature(request)
        if signed is None or request.path.startswith(UNPARSED):
            return await self._forward(request)
        account = await self._account(signed.access_key)
        if account is None:
            return await self._forward(request)
        problem: wire.Malformed | None = None
        try:
            call = wire.parse(request, signed, account)
        except wire.Malformed as malformed:
            call, problem = malformed.call, malformed
        if call is None:
            return await self._unknown(request, signed, account)
        self._world.state(account).calls.append(call.name)
        answer = self._violation(call, problem)
        if answer is None:
            answer = await self._authorised(call)
        if answer is None:
            if call.caller == "user" and call.name != "sts:GetCallerIdentity":
                call = call.as_root()
            answer = await self._behave(call, self._chain(call))
        self._remember(call, answer)
        self._note(call, answer)
        return answer

    async def _unknown(self, request: HttpRequest, signed: wire.Signature, account: str) -> Answer:
        """Answers a request that no model has: users have no right to it, the rest goes upstream."""
        call = Call(
            signed.service,
            request.headers.get("X-Amz-Target") or f"{request.method} {request.path}",
            {},
            account,
            signed.region,
            signed.access_key,
            request.headers.get("X-Amz-Security-Token"),
            request,
        )
        if call.caller == "user":
            answer = _plain(403, f"AccessDenied: tests/strict/authorization.py knows no action for {call.name}")
        else:
            answer = await self._forward(request)
        self._note(call, answer)
        return answer

    def _violation(self, call: Call, problem: wire.Malformed | None) -> Answer | None:
        state = self._world.state(call.account)
        if not self._switches.step(state, "validation"):
            return None
        if problem is not None:
            state.violations.append({"call": call.name, "member": "", "why": problem.why})
            call.fired.append("validation")
            return Answer.error(call, 400, problem.code, problem.why)
        violations = models.validate(call)
        if not violations:
            return None
        state.violations.extend({"call": call.name, "member": v.member, "why": v.why} for v in violations)
        call.fired.append("validation")
        return models.refusal(call, violations)

    async def _authorised(self, call: Call) -> Answer | None:
        if not self._switches.step(self._world.state(call.account), "authorization"):
            return None
        from . import authorization

        answer = await authorization.authorise(call, self._world)
        if answer is not None:
            call.fired.append("authorization")
        return answer

    def _chain(self, call: Call) -> list[Behaviour]:
        state = self._world.state(call.account)
        return [known for known in BEHAVIOURS if known.concerns(call) and self._switches.behaviour(state, known)]

    async def _behave(self, call: Call, chain: list[Behaviour]) -> Answer:
        if not chain:
            return await self._forward(wire.request_of(call))
        first, rest = chain[0], chain[1:]
        proceed: Proceed = lambda changed: self._behave(changed, rest)  # noqa: E731
        return await first.function(call, proceed, self._world)

    async def _forward(self, request: HttpRequest) -> Answer:
        headers = CIMultiDict(
            (name, value)
            for name, value in request.headers.items()
            if name.lower() not in wire.HOP_BY_HOP and name.lower() != "content-length"
        )
        bodiless = not request.body and "Content-Length" not in request.headers
        async with self._session.request(
            request.method,
            URL(self._upstream + request.target, encoded=True),
            headers=headers,
            data=None if bodiless else request.body,
            allow_redirects=False,
        ) as response:
            body = await response.read()
            kept = CIMultiDict(
                (name, value) for name, value in response.headers.items() if name.lower() not in wire.HOP_BY_HOP
            )
            return Answer(response.status, kept, body)

    async def _account(self, access_key: str) -> str | None:
        """Returns the account of an access key, and None when MiniStack knows no such key."""
        if ACCOUNT.fullmatch(access_key):
            return access_key
        if access_key not in self._accounts:
            try:
                result = await self._world.send(DEFAULT_ACCOUNT, "sts", "GetAccessKeyInfo", {"AccessKeyId": access_key})
            except AwsFailure:
                return None
            self._accounts[access_key] = result["Account"]
        return self._accounts[access_key]

    def _remember(self, call: Call, answer: Answer) -> None:
        """Notes the access keys that MiniStack hands out."""
        if not answer.ok:
            return
        if call.name == "iam:CreateAccessKey":
            self._accounts[answer.parsed(call)["AccessKey"]["AccessKeyId"]] = call.account
        elif call.name == "sts:AssumeRole":
            self._accounts[answer.parsed(call)["Credentials"]["AccessKeyId"]] = call.params["RoleArn"].split(":")[4]

    def _note(self, call: Call, answer: Answer) -> None:
        if self._record is None:
            return
        entry = {
            "time": round(time.time(), 3),
            "account": call.account,
            "caller": call.caller,
            "service": call.service,
            "operation": call.operation,
            "params": wire.shortened(call.params),
            "status": answer.status,
            "fired": call.fired,
        }
        self._record.write(json.dumps(entry) + "\n")
        self._record.flush()

    async def _control(self, request: HttpRequest) -> Answer:
        rest = request.path.removeprefix(CONTROL)
        if rest == "health" and request.method == "GET":
            return _json(200, {"status": "ok"})
        kind, _, account = rest.partition("/")
        if kind != "accounts" or not ACCOUNT.fullmatch(account) or request.method not in ("GET", "PUT"):
            return _json(404, {"error": f"no such resource: {request.method} {request.path}"})
        state = self._world.state(account)
        if request.method == "PUT":
            try:
                _switch(state, json.loads(request.body or b"{}"))
            except (ValueError, TypeError) as error:
                return _json(400, {"error": str(error)})
        return _json(200, {"fired": state.fired, "calls": state.calls, "violations": state.violations})


def _switch(state: AccountState, wanted: Any) -> None:
    """Replaces the switches of an account."""
    if not isinstance(wanted, dict) or not wanted.keys() <= {"on", "off", "settings"}:
        raise ValueError("the body is not an object with on, off and settings")
    on, off, settings = set(wanted.get("on", [])), set(wanted.get("off", [])), dict(wanted.get("settings", {}))
    Switches.check(on | off)
    state.on, state.off, state.settings = on, off, settings


def _plain(status: int, text: str) -> Answer:
    return Answer(status, {"Content-Type": "text/plain; charset=utf-8"}, text.encode())


def _json(status: int, value: Any) -> Answer:
    return Answer(status, {"Content-Type": "application/json"}, json.dumps(value).encode())


async def serve(port: int, upstream: str, switches: Switches, record: str | None, over: asyncio.Event) -> None:
    """Serves until the event is set."""
    with contextlib.ExitStack() as stack:
        file = stack.enter_context(open(record, "a", encoding="utf-8")) if record else None
        running = asyncio.ensure_future(Strict(port, upstream, switches, file).run())
        ending = asyncio.ensure_future(over.wait())
        done, _ = await asyncio.wait({running, ending}, return_when=asyncio.FIRST_COMPLETED)
        running.cancel()
        ending.cancel()
        await asyncio.gather(running, ending, return_exceptions=True)
        if running in done:
            # The server cannot listen.
            running.result()
