"""IAM policies, evaluated as AWS does (IAM user guide: policy evaluation logic, policy elements).

Identity policies and permissions boundaries only. An operator or a key that this module does not know is an error of
the decision, so that nothing is allowed by mistake.
"""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any
from urllib.parse import unquote

ALLOWED, IMPLICIT_DENY, EXPLICIT_DENY = "allowed", "implicitDeny", "explicitDeny"
Context = Mapping[str, str | Sequence[str]]

# The condition keys, in lower case, that the authorisation of a call supplies where AWS does. Their absence means that
# the call does not have them. A key that ends with a slash stands for all keys that begin with it.
KNOWN_KEYS = frozenset(
    """
    aws:currenttime aws:epochtime aws:principalaccount aws:principalarn aws:principaltype aws:requestedregion
    aws:requesttag/ aws:resourceaccount aws:securetransport aws:tagkeys aws:userid aws:username aws:viaawsservice
    aws:multifactorauthpresent aws:principalorgid aws:principaltag/ aws:sourcevpce aws:sourcevpc
    iam:associatedresourcearn iam:passedtoservice iam:permissionsboundary iam:policyarn
    dynamodb:enclosingoperation kms:calleraccount kms:grantisforawsresource kms:requestalias kms:viaservice
    lambda:functionarn lambda:layer lambda:principal lambda:functionurlauthtype
    s3:delimiter s3:max-keys s3:prefix s3:resourceaccount s3:versionid s3:x-amz-acl s3:x-amz-server-side-encryption
    s3:x-amz-server-side-encryption-aws-kms-key-id s3:locationconstraint
    """.split()
)


class Unsupported(Exception):
    """A policy uses an element that this module does not evaluate."""


@dataclass(frozen=True)
class Request:
    """What a policy decides on. The resource of an action that supports no resource-level permissions is "*"."""

    action: str
    resource: str
    context: Context = field(default_factory=dict)

    def values(self, key: str) -> list[str] | None:
        """Returns the values of a context key, whose name has no case, or None if the request does not have it."""
        for name, value in self.context.items():
            if name.lower() == key.lower():
                return [value] if isinstance(value, str) else list(value)
        return None


@dataclass(frozen=True)
class Decision:
    """The outcome, the condition keys that relevant statements name and the request lacks, and any unknown element."""

    outcome: str
    missing: frozenset[str] = frozenset()
    unsupported: str = ""

    @property
    def allowed(self) -> bool:
        """Returns whether the request is allowed."""
        return self.outcome == ALLOWED


def document(text: str | Mapping[str, Any]) -> dict[str, Any]:
    """Returns a policy as IAM returns it, URL-encoded, or as JSON."""
    if not isinstance(text, str):
        return dict(text)
    return json.loads(text if text.lstrip().startswith("{") else unquote(text))


def statements(policy: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Returns the statements of a policy, also of one with a single statement instead of a list."""
    return _list(policy.get("Statement", []))


def evaluate(policies: Iterable[Mapping[str, Any]], request: Request) -> Decision:
    """Decides on a request by the policies together: an explicit deny wins, then an allow, then the implicit deny."""
    outcome, missing = IMPLICIT_DENY, set()
    for policy in policies:
        for statement in statements(policy):
            try:
                if not _concerns(statement, request):
                    continue
                missing.update(key for key in _keys(statement) if request.values(key) is None)
                if not _holds(statement.get("Condition", {}), request):
                    continue
            except Unsupported as reason:
                return Decision(IMPLICIT_DENY, frozenset(missing), str(reason))
            if statement.get("Effect") == "Deny":
                return Decision(EXPLICIT_DENY, frozenset(missing))
            outcome = ALLOWED
    return Decision(outcome, frozenset(missing))


def within(identity: Decision, boundary: Decision) -> Decision:
    """Returns the decision of identity policies within a permissions boundary: both must allow."""
    if not identity.allowed:
        return identity
    return replace(boundary, missing=identity.missing | boundary.missing)


def matches(pattern: str, text: str, *, ignore_case: bool = False) -> bool:
    """Returns whether a text matches a pattern with the wildcards * and ?."""
    return _expression(pattern, ignore_case).fullmatch(text) is not None


def matches_arn(pattern: str, arn: str) -> bool:
    """Returns whether an ARN matches a pattern. Each of the six parts matches alone; the last may contain colons."""
    parts, patterns = arn.split(":", 5), pattern.split(":", 5)
    if len(parts) < 6 or len(patterns) < 6:
        return matches(pattern, arn)
    return all(matches(one, part) for one, part in zip(patterns, parts, strict=True))


@functools.lru_cache(maxsize=4096)
def _expression(pattern: str, ignore_case: bool) -> re.Pattern[str]:
    text = "".join({"*": ".*", "?": "."}.get(letter, re.escape(letter)) for letter in pattern)
    return re.compile(text, re.DOTALL | (re.IGNORECASE if ignore_case else 0))


def _list(value: Any) -> list[Any]:
    return list(value) if isinstance(value, (list, tuple)) else [value]


def _concerns(statement: Mapping[str, Any], request: Request) -> bool:
    """Returns whether the action and the resource of a statement are those of the request."""
    if "NotAction" in statement:
        actions = not _any_action(statement["NotAction"], request)
    else:
        actions = _any_action(statement.get("Action", []), request)
    if not actions:
        return False
    if "NotResource" in statement:
        return not _any_resource(statement["NotResource"], request)
    return _any_resource(statement.get("Resource", []), request)


def _any_action(patterns: Any, request: Request) -> bool:
    # Actions have no case (IAM user guide, Action element).
    return any(matches(pattern, request.action, ignore_case=True) for pattern in _list(patterns))


def _any_resource(patterns: Any, request: Request) -> bool:
    for pattern in _list(patterns):
        pattern = _substituted(pattern, request)
        if pattern is not None and matches_arn(pattern, request.resource):
            return True
    return False


VARIABLE = re.compile(r"\$\{([^}]*)\}")


def _substituted(text: str, request: Request) -> str | None:
    """Replaces the policy variables, or returns None if the request lacks one (IAM user guide, policy variables)."""

    def value(match: re.Match[str]) -> str:
        name, _, default = (part.strip() for part in match.group(1).partition(","))
        if name in ("*", "?", "$"):
            # These stand for the letters themselves, which the patterns of this module cannot express.
            raise Unsupported(f"the policy variable ${{{name}}}")
        found = request.values(name)
        if found is None or len(found) != 1:
            if not default:
                raise LookupError
            return default.strip("'")
        return found[0]

    try:
        return VARIABLE.sub(value, text)
    except LookupError:
        return None


def _keys(statement: Mapping[str, Any]) -> list[str]:
    return [key for values in statement.get("Condition", {}).values() for key in values]


def _holds(condition: Mapping[str, Mapping[str, Any]], request: Request) -> bool:
    """Returns whether a condition holds: every key of every operator."""
    # Each is evaluated, so that an unknown operator or key is found whatever the others say.
    results = [_key_holds(operator, key, _list(values), request) for operator, keys in condition.items()
               for key, values in keys.items()]
    return all(results)


def _key_holds(operator: str, key: str, wanted: list[Any], request: Request) -> bool:
    name = key.lower()
    if name not in KNOWN_KEYS and not any(known.endswith("/") and name.startswith(known) for known in KNOWN_KEYS):
        raise Unsupported(f"the condition key {key}")
    quantifier, _, rest = operator.rpartition(":")
    base = rest.removesuffix("IfExists")
    found = request.values(key)
    texts = [_text(value) for value in wanted]
    if base == "Null":
        return any((found is None) == (text == "true") for text in texts)
    negated = base.startswith(("StringNot", "ArnNot"))
    compare = _comparison(base.replace("Not", "", 1) if negated else base)

    def one(value: str) -> bool:
        substituted = (_substituted(text, request) for text in texts)
        return any(text is not None and compare(text, value) for text in substituted) != negated

    if quantifier not in ("", "ForAnyValue", "ForAllValues"):
        raise Unsupported(f"the condition operator {operator}")
    if quantifier == "ForAllValues":
        # True of no values, too (IAM user guide, multivalued context keys).
        return all(one(value) for value in found or [])
    if found is None:
        return rest.endswith("IfExists") or (negated and quantifier == "")
    # A negated operator must hold of every value, unless it asks for any.
    return all(one(value) for value in found) if negated and not quantifier else any(one(value) for value in found)


def _comparison(operator: str) -> Any:
    comparisons = {
        "StringEquals": lambda wanted, found: wanted == found,
        "StringEqualsIgnoreCase": lambda wanted, found: wanted.lower() == found.lower(),
        "StringLike": matches,
        # Both ARN operators behave identically (IAM user guide, ARN condition operators).
        "ArnEquals": matches_arn,
        "ArnLike": matches_arn,
        "Bool": lambda wanted, found: wanted.lower() == found.lower(),
    }
    if operator not in comparisons:
        raise Unsupported(f"the condition operator {operator}")
    return comparisons[operator]


def _text(value: Any) -> str:
    return json.dumps(value) if isinstance(value, (bool, int, float)) else str(value)
