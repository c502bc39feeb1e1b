"""HTTP requests and answers as calls and results, by botocore's service models.

Only the direction that botocore lacks is written here: parsing of requests and serialising of answers. The other one,
and the signatures, are botocore's own.
"""

from __future__ import annotations

import base64
import binascii
import functools
import json
import re
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl, unquote
from xml.etree import ElementTree

from botocore.auth import S3SigV4Auth, SigV4Auth
from botocore.awsrequest import AWSRequest, create_request_object, prepare_request_dict
from botocore.credentials import Credentials
from botocore.exceptions import UnknownServiceError
from botocore.loaders import Loader
from botocore.model import OperationModel, ServiceModel, Shape
from botocore.parsers import create_parser
from botocore.serialize import create_serializer
from botocore.utils import get_md5, is_json_value_header, parse_timestamp
from multidict import CIMultiDict

from .registry import DEFAULT_ACCOUNT, DEFAULT_KEY, Answer, Call, HttpRequest

SECRET = "test"
# The services whose signatures have another name than botocore's models.
SCOPES = {"tagging": "resourcegroupstaggingapi", "monitoring": "cloudwatch"}
S3_CONTROL_PATH = "/v20180820/"
CBOR = "smithy-rpc-v2-cbor"
HOP_BY_HOP = frozenset(
    "connection expect keep-alive proxy-authenticate proxy-authorization te trailer transfer-encoding upgrade".split()
)
SIGNATURE_HEADERS = ("Authorization", "X-Amz-Date", "X-Amz-Security-Token", "Date")
UNSIGNED_TRAILER = "STREAMING-UNSIGNED-PAYLOAD-TRAILER"
XSI_TYPE = "{http://www.w3.org/2001/XMLSchema-instance}type"
S3_NAMESPACE = "http://s3.amazonaws.com/doc/2006-03-01/"
# Models of directory buckets and of old names have the same routes as the operations that are meant.
SHADOWED = frozenset({"ListDirectoryBuckets"})
# The root elements of S3's results, where botocore's models have no name for them (S3 API reference, response syntax).
S3_ROOTS = {
    "CompleteMultipartUpload": "CompleteMultipartUploadResult",
    "CreateMultipartUpload": "InitiateMultipartUploadResult",
    "CreateSession": "CreateSessionResult",
    "DeleteObjects": "DeleteResult",
    "GetBucketAccelerateConfiguration": "AccelerateConfiguration",
    "GetBucketAcl": "AccessControlPolicy",
    "GetBucketCors": "CORSConfiguration",
    "GetBucketLifecycleConfiguration": "LifecycleConfiguration",
    "GetBucketLogging": "BucketLoggingStatus",
    "GetBucketNotificationConfiguration": "NotificationConfiguration",
    "GetBucketRequestPayment": "RequestPaymentConfiguration",
    "GetBucketTagging": "Tagging",
    "GetBucketVersioning": "VersioningConfiguration",
    "GetBucketWebsite": "WebsiteConfiguration",
    "GetObjectAcl": "AccessControlPolicy",
    "GetObjectAttributes": "GetObjectAttributesResponse",
    "GetObjectTagging": "Tagging",
    "ListBuckets": "ListAllMyBucketsResult",
    "ListMultipartUploads": "ListMultipartUploadsResult",
    "ListObjectVersions": "ListVersionsResult",
    "ListObjects": "ListBucketResult",
    "ListObjectsV2": "ListBucketResult",
    "ListParts": "ListPartsResult",
}


class Malformed(Exception):
    """The body of a request is not what the protocol demands. Its operation is known."""

    def __init__(self, code: str, why: str) -> None:
        super().__init__(why)
        self.code, self.why = code, why


# -- models ------------------------------------------------------------------------------------------------------------


@functools.cache
def model(service: str) -> ServiceModel | None:
    """Returns botocore's model of the service, and None when there is none."""
    try:
        return ServiceModel(_loader().load_service_model(service, "service-2"), service)
    except UnknownServiceError:
        return None


def operation_model(call: Call) -> OperationModel:
    """Returns the model of the call's operation."""
    return _operation(call.service, call.operation)


@functools.cache
def _operation(service: str, operation: str) -> OperationModel:
    return model(service).operation_model(operation)


@functools.cache
def _loader() -> Loader:
    return Loader()


def protocol(service: str) -> str:
    """Returns the protocol of the service: query, rest-xml, rest-json, json or smithy-rpc-v2-cbor."""
    return model(service).metadata["protocol"]


# -- recognising requests ----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Signature:
    """The credential of a request's signature, and its scope."""

    access_key: str
    region: str
    service: str


CREDENTIAL = re.compile(r"^AWS4-HMAC-SHA256\s+.*?Credential=([^/\s,]+)/\d{8}/([^/\s,]+)/([^/\s,]+)/aws4_request")


def signature(request: HttpRequest) -> Signature | None:
    """Returns the signature of the request's headers, and None when it is not signed there."""
    found = CREDENTIAL.match(request.headers.get("Authorization", ""))
    return Signature(*found.groups()) if found else None


@dataclass(frozen=True)
class Route:
    """The HTTP side of an operation of a REST protocol."""

    operation: str
    method: str
    path: re.Pattern[str]
    literals: tuple[tuple[str, str | None], ...]
    query: frozenset[str]
    headers: frozenset[str]
    # The characters of the path that are no labels.
    fixed: int
    preferred: bool

    def rank(self, query: dict[str, list[str]], headers: CIMultiDict[str]) -> tuple[int, ...] | None:
        """Returns how well a request fits, and None when it does not."""
        for name, value in self.literals:
            if name not in query or value is not None and value not in query[name]:
                return None
        present = sum(name in query for name in self.query) + sum(name in headers for name in self.headers)
        complete = present == len(self.query) + len(self.headers)
        return self.fixed, len(self.literals), complete, present if complete else 0, self.preferred


@functools.cache
def _routes(service: str) -> list[Route]:
    routes = []
    for name in model(service).operation_names:
        operation = _operation(service, name)
        path, _, query = operation.http["requestUri"].partition("?")
        literals = tuple(
            (key, value if equals else None)
            for key, equals, value in (item.partition("=") for item in query.split("&") if item)
        )
        required = _required_locations(operation.input_shape)
        routes.append(
            Route(
                name,
                operation.http["method"],
                _template(path),
                literals,
                frozenset(key for location, key in required if location == "querystring"),
                frozenset(key for location, key in required if location == "header"),
                len(re.sub(r"\{[^}]+\}", "", path.rstrip("/"))),
                not operation.deprecated and name not in SHADOWED,
            )
        )
    return routes


def _required_locations(shape: Shape | None) -> list[tuple[str, str]]:
    if shape is None:
        return []
    members = ((name, shape.members[name].serialization) for name in shape.required_members)
    return [(how.get("location", "body"), how.get("name", name)) for name, how in members]


def _template(path: str) -> re.Pattern[str]:
    parts = re.split(r"\{([^}]+)\}", path.rstrip("/"))
    pattern = ""
    for index, part in enumerate(parts):
        if index % 2 == 0:
            pattern += re.escape(part)
        else:
            pattern += f"(?P<{part.rstrip('+')}>{'.+' if part.endswith('+') else '[^/]+'})"
    # A slash at the end says nothing, except that it belongs to a key of S3.
    return re.compile(pattern + ("" if path.endswith("+}") else "/?"), re.DOTALL)


def parse(request: HttpRequest, signed: Signature, account: str) -> Call | None:
    """Returns the call, and None when no model has it. Raises Malformed, with the call in `call`, for a wrong body."""
    service = SCOPES.get(signed.service, signed.service)
    if service == "s3" and request.path.startswith(S3_CONTROL_PATH):
        service = "s3control"
    if model(service) is None:
        return None
    recognise = {"json": _target, "query": _action, CBOR: _operation_path}.get(protocol(service), _route)
    found = recognise(service, request)
    if found is None:
        return None
    operation, uri = found
    call = Call(
        service,
        operation.name,
        {},
        account,
        signed.region,
        signed.access_key,
        request.headers.get("X-Amz-Security-Token"),
        request,
    )
    try:
        call.params = _params(operation, request, uri)
    except Malformed as malformed:
        malformed.call = call
        raise
    return call


Found = tuple[OperationModel, dict[str, str]]


def _target(service: str, request: HttpRequest) -> Found | None:
    prefix, _, name = request.headers.get("X-Amz-Target", "").rpartition(".")
    known = model(service)
    if prefix != known.metadata["targetPrefix"] or name not in known.operation_names:
        return None
    return _operation(service, name), {}


def _action(service: str, request: HttpRequest) -> Found | None:
    form = dict(_form(request))
    name = form.get("Action", "")
    return (_operation(service, name), {}) if name in model(service).operation_names else None


def _operation_path(service: str, request: HttpRequest) -> Found | None:
    known = model(service)
    prefix, _, name = request.path.rpartition("/")
    is_known = prefix == f"/service/{known.metadata['targetPrefix']}/operation" and name in known.operation_names
    return (_operation(service, name), {}) if is_known else None


def _form(request: HttpRequest) -> list[tuple[str, str]]:
    text = request.body.decode(errors="replace")
    return parse_qsl(request.query, keep_blank_values=True) + parse_qsl(text, keep_blank_values=True)


def _route(service: str, request: HttpRequest) -> Found | None:
    query = _query(request)
    best: tuple[Any, Route, re.Match[str]] | None = None
    for route in _routes(service):
        if route.method != request.method:
            continue
        match = route.path.fullmatch(request.path)
        rank = match and route.rank(query, request.headers)
        if rank and (best is None or rank > best[0]):
            best = rank, route, match
    if best is None:
        return None
    return _operation(service, best[1].operation), {key: unquote(text) for key, text in best[2].groupdict().items()}


def _query(request: HttpRequest) -> dict[str, list[str]]:
    query: dict[str, list[str]] = {}
    # S3 takes a plus sign in a query for a space, as a form does.
    for name, value in parse_qsl(request.query, keep_blank_values=True):
        query.setdefault(name, []).append(value)
    return query


# -- parsing requests --------------------------------------------------------------------------------------------------


def _params(operation: OperationModel, request: HttpRequest, uri: dict[str, str]) -> dict[str, Any]:
    shape = operation.input_shape
    kind = protocol(operation.service_model.service_name)
    if shape is None:
        return {}
    if kind == "query":
        return _query_params(shape, dict(_form(request)))
    if kind == "json":
        return _json_structure(shape, _json_body(request.body))
    if kind == CBOR:
        return _cbor_structure(shape, request.body)
    return _rest_params(shape, kind, request, uri)


def _cbor_structure(shape: Shape, body: bytes) -> dict[str, Any]:
    parser = create_parser(CBOR)
    try:
        return parser._parse_shape(shape, parser._initial_body_parse(body) or {})
    except Exception as error:
        raise Malformed("SerializationException", f"the body is not CBOR: {error}") from error


def _rest_params(shape: Shape, kind: str, request: HttpRequest, uri: dict[str, str]) -> dict[str, Any]:
    body, headers = decoded_body(request)
    query = _query(request)
    params: dict[str, Any] = {}
    for name, member in shape.members.items():
        key = member.serialization.get("name", name)
        match member.serialization.get("location"):
            case "uri" if key in uri:
                params[name] = scalar(member, uri[key], "iso8601")
            case "querystring" if key in query:
                params[name] = (
                    [scalar(member.member, text) for text in query[key]]
                    if member.type_name == "list"
                    else scalar(member, query[key][0])
                )
            case "header" if key in headers and key.lower() != "content-length":
                params[name] = _header(member, headers[key])
            case "headers":
                found = {h.lower()[len(key) :]: v for h, v in headers.items() if h.lower().startswith(key.lower())}
                if found:
                    params[name] = found
    params.update(_rest_body(shape, kind, body))
    return params


def _rest_body(shape: Shape, kind: str, body: bytes) -> dict[str, Any]:
    payload = shape.serialization.get("payload")
    if payload is None:
        inner = {name for name, member in shape.members.items() if "location" not in member.serialization}
        if not inner or not body.strip():
            return {}
        if kind == "rest-xml":
            return _xml_structure(shape, _xml_root(shape, "", body), inner)
        return _json_structure(shape, _json_body(body), inner)
    member = shape.members[payload]
    if member.type_name == "blob":
        return {payload: body} if body or member.serialization.get("streaming") else {}
    if member.type_name == "string":
        return {payload: body.decode(errors="replace")} if body else {}
    if not body.strip():
        return {}
    if kind == "rest-xml":
        return {payload: _xml_structure(member, _xml_root(member, payload, body))}
    return {payload: _json_structure(member, _json_body(body))}


def decoded_body(request: HttpRequest) -> tuple[bytes, CIMultiDict[str]]:
    """Returns the body without the chunks of aws-chunked, and the headers with the trailers of the body."""
    headers = CIMultiDict(request.headers)
    codings = [item.strip() for item in headers.get("Content-Encoding", "").split(",") if item.strip()]
    chunked = "aws-chunked" in codings or headers.get("X-Amz-Content-Sha256", "").startswith("STREAMING-")
    if not chunked:
        return request.body, headers
    codings = [item for item in codings if item != "aws-chunked"]
    headers.popall("Content-Encoding", None)
    if codings:
        headers["Content-Encoding"] = ",".join(codings)
    body, trailers = _dechunked(request.body)
    for name, value in trailers:
        headers[name] = value
    return body, headers


def _dechunked(body: bytes) -> tuple[bytes, list[tuple[str, str]]]:
    chunks, position = [], 0
    while True:
        end = body.find(b"\r\n", position)
        try:
            size = int(body[position:end].split(b";", 1)[0], 16)
        except ValueError:
            size = -1
        if end < 0 or size < 0 or end + 2 + size > len(body):
            raise Malformed("IncompleteBody", "the body is not encoded as aws-chunked")
        position = end + 2
        if size == 0:
            break
        chunks.append(body[position : position + size])
        position += size + 2
    lines = (line.partition(":") for line in body[position:].decode(errors="replace").split("\r\n"))
    return b"".join(chunks), [(name.strip(), value.strip()) for name, colon, value in lines if colon]


def scalar(shape: Shape, text: str, timestamp: str | None = None) -> Any:
    """Returns the value of a text by its shape. A text that is no such value stays a text; models.py finds it."""
    try:
        match shape.type_name:
            case "integer" | "long":
                return int(text)
            case "float" | "double":
                return float(text)
            case "boolean":
                return {"true": True, "false": False}.get(text.lower(), text)
            case "timestamp":
                return parse_timestamp(text)
            case "blob":
                return base64.b64decode(text, validate=True)
    except (ValueError, binascii.Error, OverflowError):
        pass
    return text


def _header(shape: Shape, text: str) -> Any:
    if is_json_value_header(shape):
        try:
            return json.loads(base64.b64decode(text))
        except ValueError:
            return text
    if shape.type_name == "list":
        return [scalar(shape.member, item) for item in _header_items(text)]
    return scalar(shape, text)


def _header_items(text: str) -> list[str]:
    items = re.findall(r'\s*("(?:[^"\\]|\\.)*"|[^,]*)\s*(?:,|$)', text.strip())[:-1]
    return [item[1:-1].replace('\\"', '"') if item.startswith('"') else item.strip() for item in items]


def _json_body(body: bytes) -> dict[str, Any]:
    try:
        value = json.loads(body) if body.strip() else {}
    except ValueError as error:
        raise Malformed("SerializationException", f"the body is not JSON: {error}") from error
    if not isinstance(value, dict):
        raise Malformed("SerializationException", "the body is not a JSON object")
    return value


def _json_structure(shape: Shape, value: dict[str, Any], names: set[str] | None = None) -> dict[str, Any]:
    known = {shape.members[name].serialization.get("name", name): name for name in shape.members}
    found: dict[str, Any] = {}
    for key, item in value.items():
        name = known.get(key, key)
        if item is None:
            continue
        unknown = name not in shape.members or names is not None and name not in names
        found[name] = item if unknown else _json_value(shape.members[name], item)
    return found


def _json_value(shape: Shape, value: Any) -> Any:
    match shape.type_name:
        case "structure" if isinstance(value, dict) and not shape.is_document_type:
            return _json_structure(shape, value)
        case "list" if isinstance(value, list):
            return [_json_value(shape.member, item) for item in value]
        case "map" if isinstance(value, dict):
            return {key: _json_value(shape.value, item) for key, item in value.items()}
        case "blob" if isinstance(value, str):
            return scalar(shape, value)
        case "timestamp" if isinstance(value, (str, int, float)) and not isinstance(value, bool):
            try:
                return parse_timestamp(value)
            except (ValueError, OverflowError):
                return value
    return value


def _query_params(shape: Shape, form: dict[str, str]) -> dict[str, Any]:
    left = {key: value for key, value in form.items() if key not in ("Action", "Version")}
    params = _query_structure(shape, left, "")
    return {**params, **left}


def _query_structure(shape: Shape, form: dict[str, str], prefix: str) -> dict[str, Any]:
    found = {}
    for name, member in shape.members.items():
        value = _query_value(member, form, prefix + member.serialization.get("name", name))
        if value is not None:
            found[name] = value
    return found


def _query_value(shape: Shape, form: dict[str, str], key: str) -> Any:
    if shape.type_name not in ("structure", "list", "map"):
        return scalar(shape, form.pop(key)) if key in form else None
    if not any(name == key or name.startswith(f"{key}.") for name in form):
        return None
    if shape.type_name == "structure":
        return _query_structure(shape, form, f"{key}.")
    flat = shape.serialization.get("flattened")
    if shape.type_name == "list":
        if form.get(key) == "":
            del form[key]
            return []
        name = shape.member.serialization.get("name")
        if flat:
            base = ".".join([*key.split(".")[:-1], name]) if name else key
        else:
            base = f"{key}.{name or 'member'}"
        return list(_query_items(shape.member, form, base))
    base = key if flat else f"{key}.entry"
    key_name, value_name = shape.key.serialization.get("name", "key"), shape.value.serialization.get("name", "value")
    pairs = {}
    for number in _numbers(form, base):
        entry = _query_value(shape.key, form, f"{base}.{number}.{key_name}")
        pairs[entry] = _query_value(shape.value, form, f"{base}.{number}.{value_name}")
    return pairs


def _query_items(shape: Shape, form: dict[str, str], base: str) -> Iterator[Any]:
    for number in _numbers(form, base):
        value = _query_value(shape, form, f"{base}.{number}")
        if value is not None:
            yield value


def _numbers(form: dict[str, str], base: str) -> list[int]:
    texts = {name[len(base) + 1 :].split(".", 1)[0] for name in form if name.startswith(f"{base}.")}
    return sorted(int(text) for text in texts if text.isdigit())


def _xml_root(shape: Shape, name: str, body: bytes) -> ElementTree.Element:
    try:
        root = ElementTree.fromstring(body)
    except (ElementTree.ParseError, ValueError) as error:
        raise Malformed("MalformedXML", f"the body is not XML: {error}") from error
    wanted = shape.serialization.get("name", name)
    if wanted and _local(root.tag) != wanted:
        raise Malformed("MalformedXML", f"the root element is {_local(root.tag)}, not {wanted}")
    return root


def _local(tag: str) -> str:
    return tag.rpartition("}")[2]


def _xml_structure(shape: Shape, node: ElementTree.Element, names: set[str] | None = None) -> dict[str, Any]:
    children: dict[str, list[ElementTree.Element]] = {}
    for child in node:
        children.setdefault(_local(child.tag), []).append(child)
    found: dict[str, Any] = {}
    for name, member in shape.members.items():
        if names is not None and name not in names:
            continue
        key = member.serialization.get("name", name)
        if member.serialization.get("xmlAttribute"):
            text = node.get(XSI_TYPE if key == "xsi:type" else key)
            if text is not None:
                found[name] = text
            continue
        if member.type_name in ("list", "map") and member.serialization.get("flattened"):
            key = member.member.serialization.get("name", key) if member.type_name == "list" else key
        nodes = children.pop(key, None)
        if nodes is not None:
            found[name] = _xml_value(member, nodes)
    for key, nodes in children.items():
        found[key] = _xml_unknown(nodes[0])
    return found


def _xml_value(shape: Shape, nodes: list[ElementTree.Element]) -> Any:
    flat = shape.serialization.get("flattened")
    match shape.type_name:
        case "structure":
            return _xml_structure(shape, nodes[0])
        case "list":
            items = nodes if flat else list(nodes[0])
            return [_xml_value(shape.member, [item]) for item in items]
        case "map":
            key_name = shape.key.serialization.get("name", "key")
            value_name = shape.value.serialization.get("name", "value")
            pairs = {}
            for entry in nodes if flat else list(nodes[0]):
                parts = {_local(part.tag): part for part in entry}
                if key_name in parts and value_name in parts:
                    pairs[_xml_value(shape.key, [parts[key_name]])] = _xml_value(shape.value, [parts[value_name]])
            return pairs
    return scalar(shape, nodes[0].text or "")


def _xml_unknown(node: ElementTree.Element) -> Any:
    return {_local(child.tag): _xml_unknown(child) for child in node} if len(node) else node.text or ""


# -- requests to MiniStack ---------------------------------------------------------------------------------------------


def request_of(call: Call) -> HttpRequest:
    """Returns the request of the call: the original one, or one signed as the account's root."""
    if call.changed:
        return _signed(call, *_serialised(call))
    if not call.resigned:
        return call.request
    request = call.request
    streaming = request.headers.get("X-Amz-Content-Sha256", "")
    if streaming.startswith("STREAMING-") and streaming != UNSIGNED_TRAILER:
        # Each of the chunks is signed with the caller's key.
        return _signed(call, *_serialised(call))
    headers = [
        (name, value)
        for name, value in request.headers.items()
        if name.lower() not in HOP_BY_HOP and name.title() not in SIGNATURE_HEADERS
    ]
    return _signed(call, request.method, request.path, request.query, headers, request.body)


def _serialised(call: Call) -> tuple[str, str, str, list[tuple[str, str]], bytes]:
    operation = operation_model(call)
    params = _known_members(call, operation)
    serializer = create_serializer(protocol(call.service), include_validation=False)
    wanted = serializer.serialize_to_request(params, operation)
    wanted.pop("host_prefix", None)
    prepare_request_dict(wanted, "http://upstream")
    prepared = create_request_object(wanted).prepare()
    body = prepared.body or b""
    body = body if isinstance(body, bytes) else body.encode()
    headers = [(name, _text(value)) for name, value in prepared.headers.items() if name.lower() != "content-length"]
    if "requestChecksumRequired" in str(operation.http_checksum) or operation.http_checksum_required:
        if not any(name.lower() == "content-md5" or name.lower().startswith("x-amz-checksum-") for name, _ in headers):
            headers.append(("Content-MD5", base64.b64encode(get_md5(body).digest()).decode()))
    path, _, query = prepared.url.removeprefix("http://upstream").partition("?")
    return prepared.method, path, query, headers, body


def _known_members(call: Call, operation: OperationModel) -> dict[str, Any]:
    """Returns the members to serialise. Checksums of a body that is not a stream do not outlive a change of it."""
    shape = operation.input_shape
    if shape is None:
        return {}
    payload = shape.serialization.get("payload")
    stream = payload is not None and shape.members[payload].type_name == "blob"
    if stream and call.params.get(payload) == decoded_body(call.request)[0]:
        return {name: value for name, value in call.params.items() if name in shape.members}
    return {
        name: value
        for name, value in call.params.items()
        if name in shape.members and not (call.service.startswith("s3") and _is_checksum(shape.members[name]))
    }


def _is_checksum(shape: Shape) -> bool:
    name = shape.serialization.get("name", "").lower()
    return shape.serialization.get("location") == "header" and (
        name in ("content-md5", "x-amz-sdk-checksum-algorithm") or name.startswith("x-amz-checksum-")
    )


def _text(value: str | bytes) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


def _signed(
    call: Call, method: str, path: str, query: str, headers: list[tuple[str, str]], body: bytes
) -> HttpRequest:
    target = f"{path}?{query}" if query else path
    request = AWSRequest(method=method, url=f"http://upstream{target}", data=body)
    for name, value in headers:
        if name.lower() not in ("host", "content-length"):
            request.headers[name] = value
    request.headers["Host"] = call.request.headers["Host"]
    if request.headers.get("X-Amz-Content-Sha256") == UNSIGNED_TRAILER:
        request.context["checksum"] = {"request_algorithm": {"in": "trailer"}}
    root = DEFAULT_KEY if call.account == DEFAULT_ACCOUNT else call.account
    signer = S3SigV4Auth if call.service in ("s3", "s3control") else SigV4Auth
    scope = model(call.service).signing_name
    signer(Credentials(root, SECRET), scope, call.region).add_auth(request)
    signed = CIMultiDict((name, _text(value)) for name, value in request.headers.items())
    return HttpRequest(method, path, query, signed, body)


# -- answers -----------------------------------------------------------------------------------------------------------


def parse_answer(call: Call, answer: Answer) -> dict[str, Any]:
    """Returns the result of an answer by the output shape, or its error under "Error"."""
    operation = operation_model(call)
    shape = operation.output_shape
    response = {"status_code": answer.status, "headers": answer.headers, "body": answer.body, "context": {}}
    if answer.ok and shape is not None and call.name == "s3:GetBucketLocation":
        # The model lacks that the element is the root itself.
        text = ElementTree.fromstring(answer.body).text if answer.body.strip() else None
        return {"LocationConstraint": text} if text else {}
    if answer.ok and operation.has_event_stream_output:
        return {}
    parser = create_parser(protocol(call.service))
    parsed = parser.parse(response, shape)
    if "Error" in parsed:
        error = operation.service_model.shape_for_error_code(parsed["Error"].get("Code", ""))
        if error is not None and answer.body.strip():
            parsed.update({key: value for key, value in parser.parse(response, error).items() if key != "Error"})
    parsed.pop("ResponseMetadata", None)
    payload = shape.serialization.get("payload") if shape and answer.ok else None
    if payload is not None and shape.members[payload].type_name == "blob":
        # The parser makes a text of it.
        parsed[payload] = answer.body
    return parsed


def error_answer(call: Call, status: int, code: str, message: str, members: dict[str, Any]) -> Answer:
    """Returns an error as the service would answer it."""
    kind = protocol(call.service)
    request_id = str(uuid.uuid4())
    if kind == "query":
        return Answer(
            status,
            {"x-amzn-RequestId": request_id, "Content-Type": "text/xml"},
            _query_error(call, status, code, message, request_id),
        )
    if kind == "rest-xml":
        identifiers = {"x-amz-request-id": request_id, "x-amz-id-2": request_id, "Content-Type": "application/xml"}
        body = b"" if call.request.method == "HEAD" else _xml_error(call, code, message, members, request_id)
        return Answer(status, identifiers, body)
    if kind == CBOR:
        body = _cbor_texts({"__type": code, "message": message})
        return Answer(status, _cbor_headers(request_id), body)
    return _json_error(call, status, code, message, members, request_id)


def _cbor_headers(request_id: str) -> dict[str, str]:
    return {"x-amzn-RequestId": request_id, "Content-Type": "application/cbor", "smithy-protocol": "rpc-v2-cbor"}


def _cbor_texts(members: dict[str, str]) -> bytes:
    """Returns a map of texts as CBOR (RFC 8949, section 3)."""

    def head(major: int, length: int) -> bytes:
        return bytes([major << 5 | 25]) + length.to_bytes(2, "big")

    texts = [text.encode() for item in members.items() for text in item]
    return head(5, len(members)) + b"".join(head(3, len(text)) + text for text in texts)


def _query_error(call: Call, status: int, code: str, message: str, request_id: str) -> bytes:
    root = ElementTree.Element("ErrorResponse", xmlns=model(call.service).metadata.get("xmlNamespace", ""))
    error = ElementTree.SubElement(root, "Error")
    for name, text in (("Type", "Sender" if status < 500 else "Receiver"), ("Code", code), ("Message", message)):
        ElementTree.SubElement(error, name).text = text
    ElementTree.SubElement(root, "RequestId").text = request_id
    return _document(root)


def _xml_error(call: Call, code: str, message: str, members: dict[str, Any], request_id: str) -> bytes:
    root = error = ElementTree.Element("Error")
    if call.service != "s3":
        root = ElementTree.Element("ErrorResponse")
        root.append(error)
    for name, value in {"Code": code, "Message": message, **members}.items():
        ElementTree.SubElement(error, name).text = str(value)
    ElementTree.SubElement(root, "RequestId").text = request_id
    ElementTree.SubElement(root, "HostId").text = request_id
    return _document(root)


def _json_error(
    call: Call, status: int, code: str, message: str, members: dict[str, Any], request_id: str
) -> Answer:
    known = model(call.service)
    shape = next((s for s in known.error_shapes if code in (s.name, s.error_code)), None)
    name = next((name for name in shape.members if name.lower() == "message"), "message") if shape else "message"
    body: dict[str, Any] = {}
    headers = {"x-amzn-RequestId": request_id}
    if known.metadata["protocol"] == "json":
        body["__type"] = shape.name if shape else code
        headers["Content-Type"] = f"application/x-amz-json-{known.metadata['jsonVersion']}"
    else:
        headers |= {"Content-Type": "application/json", "x-amzn-ErrorType": code}
        if shape and "Type" in shape.members:
            body["Type"] = "User" if status < 500 else "Server"
    if known.is_query_compatible:
        fault = "Sender" if status < 500 else "Receiver"
        headers["x-amzn-query-error"] = f"{shape.error_code if shape else code};{fault}"
    body |= {name: message, **members}
    return Answer(status, headers, json.dumps(body).encode())


def result_answer(call: Call, result: dict[str, Any], status: int) -> Answer:
    """Returns a result as the service would answer it."""
    operation = operation_model(call)
    shape = operation.output_shape
    kind = protocol(call.service)
    request_id = str(uuid.uuid4())
    if kind == "json":
        version = model(call.service).metadata["jsonVersion"]
        headers = {"x-amzn-RequestId": request_id, "Content-Type": f"application/x-amz-json-{version}"}
        return Answer(status, headers, _json_text(shape, result) if shape else b"{}")
    if kind == CBOR:
        body = create_serializer(CBOR, include_validation=False)._serialize_body_params(result, shape) if shape else b""
        return Answer(status, _cbor_headers(request_id), body)
    if kind == "query":
        headers = {"x-amzn-RequestId": request_id, "Content-Type": "text/xml"}
        return Answer(status, headers, _query_result(call, shape, result, request_id))
    identifier = "x-amz-request-id" if kind == "rest-xml" else "x-amzn-RequestId"
    status = operation.http.get("responseCode", status) if status == 200 else status
    return _rest_result(call, shape, result, Answer(status, {identifier: request_id}))


def _json_text(shape: Shape, result: dict[str, Any]) -> bytes:
    serialised: dict[str, Any] = {}
    create_serializer("json", include_validation=False)._serialize(serialised, result, shape, "result")
    return json.dumps(serialised["result"]).encode()


def _query_result(call: Call, shape: Shape | None, result: dict[str, Any], request_id: str) -> bytes:
    namespace = model(call.service).metadata.get("xmlNamespace", "")
    root = ElementTree.Element(f"{call.operation}Response", xmlns=namespace)
    if shape is not None:
        _xml_element(shape, result, root, shape.serialization.get("resultWrapper", f"{call.operation}Result"))
    ElementTree.SubElement(ElementTree.SubElement(root, "ResponseMetadata"), "RequestId").text = request_id
    return _document(root)


def _xml_element(shape: Shape, value: Any, parent: ElementTree.Element, name: str) -> ElementTree.Element:
    create_serializer("rest-xml", include_validation=False)._serialize(shape, value, parent, name)
    return parent[-1]


def _document(root: ElementTree.Element) -> bytes:
    return b'<?xml version="1.0" encoding="UTF-8"?>\n' + ElementTree.tostring(root)


def _rest_result(call: Call, shape: Shape | None, result: dict[str, Any], answer: Answer) -> Answer:
    if shape is None:
        return answer
    converter = create_serializer("rest-xml", include_validation=False)
    inner: dict[str, Any] = {}
    for name, value in result.items():
        member = shape.members[name]
        key = member.serialization.get("name", name)
        match member.serialization.get("location"):
            case "header":
                answer.headers[key] = converter._convert_header_value(member, value)
            case "headers":
                answer.headers.update({f"{key}{suffix}": text for suffix, text in value.items()})
            case "statusCode":
                answer.status = value
            case _:
                inner[name] = value
    if call.request.method != "HEAD":
        answer.body, kind = _rest_result_body(call, shape, inner)
        if answer.body:
            answer.headers.setdefault("Content-Type", kind)
    return answer


def _rest_result_body(call: Call, shape: Shape, inner: dict[str, Any]) -> tuple[bytes, str]:
    payload = shape.serialization.get("payload")
    if payload is not None:
        member, value = shape.members[payload], inner.get(payload)
        if member.type_name in ("blob", "string"):
            value = value or b""
            return value if isinstance(value, bytes) else value.encode(), "application/octet-stream"
        if value is None:
            return b"", ""
        shape, inner = member, value
    elif all("location" in member.serialization for member in shape.members.values()):
        return b"", ""
    if protocol(call.service) == "rest-json":
        return _json_text(shape, inner), "application/json"
    if call.name == "s3:GetBucketLocation":
        root = ElementTree.Element("LocationConstraint")
        root.text = inner.get("LocationConstraint")
    else:
        name = shape.serialization.get("name") or payload or S3_ROOTS.get(call.operation, f"{call.operation}Result")
        root = _xml_element(shape, inner, ElementTree.Element("parent"), name)
    if call.service == "s3":
        root.set("xmlns", S3_NAMESPACE)
    return _document(root), "application/xml"


def shortened(value: Any, limit: int = 200) -> Any:
    """Returns a value for a record: JSON, with long blobs and texts cut."""
    if isinstance(value, dict):
        return {str(key): shortened(item, limit) for key, item in value.items()}
    if isinstance(value, list):
        return [shortened(item, limit) for item in value]
    if isinstance(value, bytes):
        text = value[:limit].decode(errors="replace")
        return text if len(value) <= limit else f"{text}... ({len(value)} bytes)"
    if isinstance(value, str) and len(value) > 10 * limit:
        return f"{value[: 10 * limit]}... ({len(value)} characters)"
    return value if isinstance(value, (str, int, float, bool)) or value is None else str(value)
