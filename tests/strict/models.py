"""Validates calls against botocore's models: required and unknown members, types, lengths, ranges, enums, patterns."""

from __future__ import annotations

import datetime
import functools
import re
import sys
import unicodedata
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from botocore.model import Shape

from . import wire
from .registry import Answer, Call

SHOWN = 100
# The errors that the services answer when a member violates its constraints; the rest answer ValidationException.
CODES = {
    "cloudwatch": "ValidationError",
    "sns": "InvalidParameter",
    "s3": "InvalidArgument",
    "s3control": "InvalidRequest",
    "iam": "ValidationError",
    "sts": "ValidationError",
    "logs": "InvalidParameterException",
    "sqs": "InvalidParameterValue",
    "resourcegroupstaggingapi": "InvalidParameterException",
}
# Where the service takes what its model forbids: service, name of the shape, constraint; and the reason.
EXCEPTIONS: dict[tuple[str, str, str], str] = {}
TYPES: dict[str, tuple[type, ...]] = {
    "structure": (dict,),
    "list": (list,),
    "map": (dict,),
    "string": (str,),
    "character": (str,),
    "integer": (int,),
    "long": (int,),
    "float": (int, float),
    "double": (int, float),
    "boolean": (bool,),
    "timestamp": (datetime.datetime,),
    "blob": (bytes,),
}


@dataclass(frozen=True)
class Violation:
    """A member of a call that its model does not allow."""

    member: str
    why: str


def validate(call: Call) -> list[Violation]:
    """Returns what is wrong with the call."""
    shape = wire.operation_model(call).input_shape
    if shape is None:
        return [Violation(name, "the operation takes no members") for name in call.params]
    return list(_structure(call.service, shape, call.params, ""))


def refusal(call: Call, violations: list[Violation]) -> Answer:
    """Returns the answer to a call with violations."""
    count = len(violations)
    details = "; ".join(f"at '{item.member}': {item.why}" for item in violations)
    message = f"{count} validation error{'s' if count > 1 else ''} detected: {details}"
    code = CODES.get(call.service, "ValidationException")
    if call.service == "s3" and any(_in_body(call, item) for item in violations):
        code = "MalformedXML"
    return Answer.error(call, 400, code, message)


def _in_body(call: Call, violation: Violation) -> bool:
    members = wire.operation_model(call).input_shape.members
    first = members.get(re.split(r"[.\[ ]", violation.member, maxsplit=1)[0])
    return first is None or "location" not in first.serialization


def _value(service: str, shape: Shape, value: Any, path: str) -> Iterator[Violation]:
    if shape.type_name == "structure" and shape.is_document_type:
        return
    wanted = TYPES.get(shape.type_name, (object,))
    if not isinstance(value, wanted) or isinstance(value, bool) and bool not in wanted:
        yield Violation(path, f"Value {_shown(value)} is no {shape.type_name}")
        return
    match shape.type_name:
        case "structure":
            yield from _structure(service, shape, value, path)
        case "list":
            yield from _size(service, shape, len(value), path)
            for index, item in enumerate(value):
                yield from _value(service, shape.member, item, f"{path}[{index}]")
        case "map":
            yield from _size(service, shape, len(value), path)
            for key, item in value.items():
                yield from _value(service, shape.key, key, f"{path} (key)")
                yield from _value(service, shape.value, item, f"{path}[{_shown(key)}]")
        case "string" | "character":
            yield from _string(service, shape, value, path)
        case "blob":
            yield from _size(service, shape, len(value), path)
        case "integer" | "long" | "float" | "double":
            yield from _range(service, shape, value, path)


def _structure(service: str, shape: Shape, value: dict[str, Any], path: str) -> Iterator[Violation]:
    prefix = f"{path}." if path else ""
    for name in shape.required_members:
        if name not in value:
            yield Violation(prefix + name, "Member must not be null")
    if shape.is_tagged_union and len(value) != 1:
        yield Violation(path, f"A union has exactly one member, not {len(value)}")
    for name, item in value.items():
        if name in shape.members:
            yield from _value(service, shape.members[name], item, prefix + name)
        else:
            yield Violation(prefix + name, f"{shape.name} has no such member")


def _string(service: str, shape: Shape, value: str, path: str) -> Iterator[Violation]:
    yield from _size(service, shape, len(value), path)
    enum = getattr(shape, "enum", None) or shape.metadata.get("enum")
    if enum and value not in enum and not _excepted(service, shape, "enum"):
        yield Violation(path, f"Value {_shown(value)}: Member must satisfy enum value set: [{', '.join(enum)}]")
    pattern = shape.metadata.get("pattern")
    if pattern and not _excepted(service, shape, "pattern"):
        compiled = compiled_pattern(pattern)
        if compiled is not None and not compiled.fullmatch(value):
            yield Violation(path, f"Value {_shown(value)}: Member must satisfy regular expression pattern: {pattern}")


def _size(service: str, shape: Shape, size: int, path: str) -> Iterator[Violation]:
    least, most = shape.metadata.get("min"), shape.metadata.get("max")
    if least is not None and size < least and not _excepted(service, shape, "min"):
        yield Violation(path, f"Member must have length greater than or equal to {least}, not {size}")
    if most is not None and size > most and not _excepted(service, shape, "max"):
        yield Violation(path, f"Member must have length less than or equal to {most}, not {size}")


def _range(service: str, shape: Shape, value: float, path: str) -> Iterator[Violation]:
    least, most = shape.metadata.get("min"), shape.metadata.get("max")
    if least is not None and value < least and not _excepted(service, shape, "min"):
        yield Violation(path, f"Member must have value greater than or equal to {least}, not {value}")
    if most is not None and value > most and not _excepted(service, shape, "max"):
        yield Violation(path, f"Member must have value less than or equal to {most}, not {value}")


def _excepted(service: str, shape: Shape, constraint: str) -> bool:
    return (service, shape.name, constraint) in EXCEPTIONS


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}..."


@functools.cache
def compiled_pattern(pattern: str) -> re.Pattern[str] | None:
    """Returns a pattern of the models, in Java's dialect, and None when Python cannot express it."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            # The classes \w, \d and \s are those of ASCII in Java.
            return re.compile(_translated(pattern), re.ASCII)
    except (re.error, ValueError, Warning, OverflowError):
        return None


# Notations of Java, and what means the same here.
NOTATIONS = {
    r"\Z": "$",
    r"\z": "$",
    r"\p{Print}": r"[\x20-\x7e]",
    r"\uD800\uDC00-\uDBFF\uDFFF": r"\U00010000-\U0010ffff",
    r"[\w-_]": r"[\w\-_]",
}


def _translated(pattern: str) -> str:
    for notation, meaning in NOTATIONS.items():
        pattern = pattern.replace(notation, meaning)
    result, position, in_class = "", 0, False
    while position < len(pattern):
        character = pattern[position]
        if character == "\\":
            category = re.match(r"\\([pP])\{(?:Is)?(\w+)\}", pattern[position:])
            if category:
                ranges = _category(category[2])
                if category[1] == "P":
                    if in_class:
                        raise ValueError("a negated category in a class")
                    result += f"[^{ranges}]"
                else:
                    result += ranges if in_class else f"[{ranges}]"
                position += category.end()
                continue
            result += pattern[position : position + 2]
            position += 2
            continue
        if in_class and character == "[":
            # An opening bracket within a class is a union in Java, and a plain character in ECMAScript.
            result += "\\"
        elif character == "[":
            in_class = True
            negated = re.match(r"\[\^?", pattern[position:])[0]
            result += negated
            position += len(negated)
            continue
        elif character == "]":
            in_class = False
        result += character
        position += 1
    return result


@functools.cache
def _category(name: str) -> str:
    """Returns the characters of a category of Unicode as the inside of a class."""
    known = {unicodedata.category(chr(code)) for code in range(0x3000)}
    if name not in known and not any(category[0] == name for category in known):
        raise ValueError(f"no such category: {name}")
    ranges: list[list[int]] = []
    for code in range(sys.maxunicode + 1):
        if unicodedata.category(chr(code)).startswith(name):
            if ranges and ranges[-1][1] == code - 1:
                ranges[-1][1] = code
            else:
                ranges.append([code, code])
    return "".join(f"\\U{first:08x}-\\U{last:08x}" for first, last in ranges)
