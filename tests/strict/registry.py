"""The types of the strict local AWS, and the list of its behaviours.

A module with behaviours registers them when it is imported:

    from .registry import Answer, Call, Proceed, World, behaviour

    @behaviour(service="s3", operations=["PutBucketTagging"], source="S3 API model", certainty="certain")
    async def abac_buckets_refuse_put_bucket_tagging(call: Call, proceed: Proceed, world: World) -> Answer:
        \"\"\"Buckets with attribute-based access control refuse PutBucketTagging; TagResource tags them.\"\"\"
        ...
        world.fired(call, abac_buckets_refuse_put_bucket_tagging)
        return Answer.error(call, 409, "OperationAborted", "...")
"""

from __future__ import annotations

import dataclasses
import re
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from multidict import CIMultiDict

ACCOUNT = re.compile(r"[0-9]{12}")
# MiniStack takes this access key for the root of its default account.
DEFAULT_KEY, DEFAULT_ACCOUNT = "test", "000000000000"
CERTAINTIES = ("certain", "seen", "likely")
# The modules of the package that register behaviours, in the order of the table.
BEHAVIOUR_MODULES = ("s3", "iam", "functions", "tables", "logs", "queues", "streams", "alarms")


@dataclass(frozen=True)
class HttpRequest:
    """A request as it came. `path` and `query` are as the client encoded them; the names of headers have no case."""

    method: str
    path: str
    query: str
    headers: CIMultiDict[str]
    body: bytes

    @property
    def target(self) -> str:
        """Returns the path with the query, as on the request line."""
        return f"{self.path}?{self.query}" if self.query else self.path


@dataclass
class Call:
    """A call of an AWS operation. `params` is what botocore's client takes; blobs and streaming bodies are bytes.

    Timestamps are datetimes, keys are percent-decoded, names of metadata are in lower case.
    """

    service: str
    operation: str
    params: dict[str, Any]
    account: str
    region: str
    access_key: str
    token: str | None
    request: HttpRequest
    changed: bool = False
    # The original bytes are signed anew as the account's root.
    resigned: bool = False
    # The behaviours that fired for this call; copies of the call share the list.
    fired: list[str] = field(default_factory=list, repr=False)

    @property
    def name(self) -> str:
        """Returns the name as in rights, for example "s3:PutBucketTagging"."""
        return f"{self.service}:{self.operation}"

    @property
    def caller(self) -> str:
        """Returns the kind of the caller: "root", "user" (of IAM) or "session" (of a role or a user)."""
        if self.token:
            return "session"
        return "root" if self.access_key == DEFAULT_KEY or ACCOUNT.fullmatch(self.access_key) else "user"

    def with_params(self, **changes: Any) -> Call:
        """Returns a changed call: it is serialised anew and signed as the account's root. None removes a member."""
        params = {**self.params, **changes}
        return dataclasses.replace(
            self, params={key: value for key, value in params.items() if value is not None}, changed=True
        )

    def as_root(self) -> Call:
        """Returns the same call, its bytes unchanged but signed anew as the account's root."""
        return dataclasses.replace(self, resigned=True)


@dataclass
class Answer:
    """An HTTP answer. The names of its headers have no case."""

    status: int
    headers: Mapping[str, str]
    body: bytes = b""

    def __post_init__(self) -> None:
        if not isinstance(self.headers, CIMultiDict):
            self.headers = CIMultiDict(self.headers)

    @property
    def ok(self) -> bool:
        """Returns whether the call succeeded."""
        return 200 <= self.status < 300

    def parsed(self, call: Call) -> dict[str, Any]:
        """Returns the result by the output shape, as botocore's client does; of an error, {"Error": {"Code", ...}}."""
        from . import wire

        return wire.parse_answer(call, self)

    def code(self, call: Call) -> str:
        """Returns the code of an error, and "" of a success."""
        return "" if self.ok else self.parsed(call).get("Error", {}).get("Code", "")

    @staticmethod
    def error(call: Call, status: int, code: str, message: str, **members: Any) -> Answer:
        """Returns an error in the protocol of the call's service. `members` are further ones of the error's shape."""
        from . import wire

        return wire.error_answer(call, status, code, message, members)

    @staticmethod
    def of(call: Call, result: dict[str, Any], status: int = 200) -> Answer:
        """Returns a result in the protocol of the call's service, by the output shape."""
        from . import wire

        return wire.result_answer(call, result, status)


class AwsFailure(Exception):
    """An error that MiniStack answered."""

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(f"{status} {code}: {message}")
        self.status, self.code, self.message = status, code, message


@dataclass
class AccountState:
    """What the proxy knows of an account."""

    # Behaviours keep what they need here, under keys that begin with their name.
    memory: dict[str, Any] = field(default_factory=dict)
    settings: dict[str, Any] = field(default_factory=dict)
    on: set[str] = field(default_factory=set)
    off: set[str] = field(default_factory=set)
    fired: dict[str, int] = field(default_factory=dict)
    calls: list[str] = field(default_factory=list)
    violations: list[dict[str, str]] = field(default_factory=list)


Proceed = Callable[[Call], Awaitable[Answer]]
Function = Callable[[Call, Proceed, "World"], Awaitable[Answer]]


@dataclass(frozen=True)
class Behaviour:
    """A behaviour of AWS that MiniStack lacks."""

    name: str
    words: str
    service: str
    operations: frozenset[str]
    source: str
    certainty: str
    optional: bool
    function: Function

    def concerns(self, call: Call) -> bool:
        """Returns whether the behaviour is about this operation. No operations named means all of the service."""
        return call.service == self.service and (not self.operations or call.operation in self.operations)


class World:
    """What behaviours can see and do beside their call. There is one of a server."""

    def __init__(self, transport: Callable[[HttpRequest], Awaitable[Answer]], host: str) -> None:
        """Takes the function that sends a request to MiniStack, and the Host header of `send`."""
        self._transport = transport
        self._host = host
        self._accounts: dict[str, AccountState] = {}

    async def send(
        self, account: str, service: str, operation: str, params: dict[str, Any], region: str = "us-east-1"
    ) -> dict[str, Any]:
        """Calls MiniStack as the account's root. Raises AwsFailure when the answer is an error.

        The result is what the protocol carries. What botocore's client adds is missing: it asks S3 for url-encoded
        keys and decodes them, and it decodes the URL-encoded JSON of IAM's policy documents.
        """
        from . import wire

        request = HttpRequest("POST", "/", "", CIMultiDict(Host=self._host), b"")
        call = Call(service, operation, params, account, region, account, None, request, changed=True)
        answer = await self._transport(wire.request_of(call))
        result = wire.parse_answer(call, answer)
        if answer.status >= 300:
            error = result.get("Error", {})
            raise AwsFailure(answer.status, error.get("Code", ""), error.get("Message", ""))
        return result

    def state(self, account: str) -> AccountState:
        """Returns the state of the account."""
        return self._accounts.setdefault(account, AccountState())

    def now(self) -> float:
        """Returns the time in seconds of a clock that never goes back."""
        return time.monotonic()

    def fired(self, call: Call, name: str | Callable[..., Any]) -> None:
        """Notes that a behaviour changed the answer of the call. Takes the behaviour or its name."""
        name = name if isinstance(name, str) else name.__name__
        counts = self.state(call.account).fired
        counts[name] = counts.get(name, 0) + 1
        call.fired.append(name)


BEHAVIOURS: list[Behaviour] = []


def behaviour(
    *, service: str, operations: Iterable[str], source: str, certainty: str, optional: bool = False
) -> Callable[[Function], Function]:
    """Registers a behaviour. An optional one is off until the settings of an account switch it on.

    No operations means all of the service. Several registrations of the same name are one behaviour to the switches.
    """
    if certainty not in CERTAINTIES:
        raise ValueError(f"certainty {certainty!r} is none of {CERTAINTIES}")

    def register(function: Function) -> Function:
        words = (function.__doc__ or "").strip().split("\n", 1)[0]
        if not words:
            raise ValueError(f"{function.__name__} has no docstring")
        BEHAVIOURS.append(
            Behaviour(
                function.__name__, words, service, frozenset(operations), source, certainty, optional, function
            )
        )
        return function

    return register
