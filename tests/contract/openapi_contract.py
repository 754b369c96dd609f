"""Compare requests and answers with the OpenAPI file of the API.

The file follows OpenAPI 3.0, whose schemas are almost JSON Schema: ``nullable`` is rewritten, the rest is left to
``jsonschema``. Whatever the file does not list (a parameter, a status, a content type) is a violation.
"""

from __future__ import annotations

import json
import re
import uuid
from collections.abc import Callable, Mapping
from datetime import date, datetime
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import yaml
from jsonschema import Draft202012Validator, FormatChecker
from referencing import Registry
from referencing.jsonschema import DRAFT202012

_NAME = "openapi"
_FORMATS = FormatChecker(formats=())


def _text_format(name: str, parse: Callable[[str], object]) -> None:
    """Check strings of a format with ``parse``, which returns a false value or raises ValueError for a bad one."""
    _FORMATS.checks(name, raises=ValueError)(lambda value: not isinstance(value, str) or bool(parse(value)))


_text_format("uuid", uuid.UUID)
_text_format("date", lambda text: re.fullmatch(r"\d{4}-\d{2}-\d{2}", text) and date.fromisoformat(text))
# The documentation shows only UTC in whole seconds.
_text_format("date-time", lambda text: datetime.strptime(text, "%Y-%m-%dT%H:%M:%SZ"))  # noqa: DTZ007
_text_format("uri", lambda text: urlsplit(text).scheme and urlsplit(text).netloc)


def assert_request_valid(
    method: str,
    path: str,
    query: Mapping[str, str] | None = None,
    headers: Mapping[str, str] | None = None,
    json_body: Any = None,
) -> None:
    """Fail if the OpenAPI file does not allow this request.

    :param path: without host and query.
    :param query: the parameters as sent, decoded.
    :param json_body: the decoded body, None without one.
    :raises AssertionError: says what is wrong with which part.
    """
    where, operation, path_values = _find(method, path)
    sent = {name.lower(): value for name, value in (headers or {}).items()}
    known = {(parameter["in"], parameter["name"]): parameter for parameter in map(_resolve, operation["parameters"])}
    for name, value in path_values.items():
        _check_text(value, known["path", name]["schema"], f"{where}: path parameter {name}")
    for name, value in (query or {}).items():
        assert ("query", name) in known, f"{where}: query parameter {name} is not in the file"
        _check_text(value, known["query", name]["schema"], f"{where}: query parameter {name}")
    if ("query", "from") in known:
        assert ("from" in (query or {})) == ("to" in (query or {})), f"{where}: from and to belong together"
    allowed = {scheme for one in operation["security"] for scheme in one}
    presented = {"ApiKey"} & allowed if "x-api-key" in sent else set()
    if sent.get("authorization", "").startswith("Bearer "):
        presented |= {"BearerToken"} & allowed
    assert presented, f"{where}: needs one of {sorted(allowed)}"
    if "requestBody" not in operation:
        assert json_body is None, f"{where}: takes no body"
        return
    assert json_body is not None, f"{where}: needs a body"
    kind = sent.get("content-type", "").partition(";")[0]
    assert kind == "application/json", f"{where}: Content-Type is {kind!r}"
    _check(json_body, operation["requestBody"]["content"]["application/json"]["schema"], f"{where}: body")


def assert_response_valid(method: str, path: str, status: int, headers: Mapping[str, str], body: bytes | str) -> None:
    """Fail if the OpenAPI file does not allow this answer to the request.

    :param path: of the request, without host and query.
    :raises AssertionError: says what is wrong with which part.
    """
    where, operation, _ = _find(method, path)
    where = f"{where}: {status}"
    assert str(status) in operation["responses"], f"{where}: status is not in the file"
    response = _resolve(operation["responses"][str(status)])
    sent = {name.lower(): value for name, value in headers.items()}
    for name, reference in response.get("headers", {}).items():
        header = _resolve(reference)
        if name.lower() in sent:
            _check_text(sent[name.lower()], header["schema"], f"{where}: header {name}")
        else:
            assert not header.get("required"), f"{where}: header {name} is missing"
    raw = body.encode() if isinstance(body, str) else body
    if "content" not in response:
        assert not raw, f"{where}: takes no body"
        return
    kind = sent.get("content-type", "").partition(";")[0]
    schema = next(
        (
            media["schema"]
            for pattern, media in response["content"].items()
            if re.fullmatch(pattern.replace("*", "[^/]+"), kind)
        ),
        None,
    )
    assert schema is not None, f"{where}: Content-Type is {kind!r}"
    if schema.get("format") == "binary":
        return
    try:
        value = json.loads(raw)
    except ValueError:
        raise AssertionError(f"{where}: body is not JSON: {raw[:200]!r}") from None
    _check(value, schema, f"{where}: body")


def operations() -> list[tuple[str, str, str, set[int]]]:
    """Return (operationId, method, path template, statuses) of every operation in the file."""
    return [
        (operation["operationId"], method.upper(), template, set(map(int, operation["responses"])))
        for template, item in _document()["paths"].items()
        for method, operation in item.items()
        if method != "parameters"
    ]


@cache
def _document() -> dict[str, Any]:
    text = Path(__file__).with_name("openapi.yaml").read_text("utf-8")
    document = _as_json_schema(yaml.safe_load(text))
    assert isinstance(document, dict)
    return document


def _as_json_schema(node: Any) -> Any:
    """Translate ``nullable: true`` to JSON Schema, and add the name of the document to references."""
    if isinstance(node, list):
        return [_as_json_schema(item) for item in node]
    if not isinstance(node, dict):
        return node
    rewritten = {name: _as_json_schema(value) for name, value in node.items()}
    if "$ref" in rewritten:
        rewritten["$ref"] = _NAME + rewritten["$ref"]
    if rewritten.pop("nullable", None) is True:
        rewritten["type"] = [rewritten["type"], "null"]
        if "enum" in rewritten:
            rewritten["enum"] = [*rewritten["enum"], None]
    return rewritten


@cache
def _registry() -> Registry[Any]:
    registry: Registry[Any] = Registry()
    return registry.with_resource(_NAME, DRAFT202012.create_resource(_document()))


def _find(method: str, path: str) -> tuple[str, dict[str, Any], dict[str, str]]:
    document = _document()
    for template, item in document["paths"].items():
        pattern = re.sub(r"\{(\w+)\}", r"(?P<\1>[^/]+)", template)
        match = re.fullmatch(pattern, path)
        if match and method.lower() in item:
            operation = item[method.lower()]
            parameters = [*item.get("parameters", ()), *operation.get("parameters", ())]
            security = operation.get("security", document["security"])
            complete = operation | {"parameters": parameters, "security": security}
            return f"{method} {template}", complete, match.groupdict()
    raise AssertionError(f"{method} {path} is not in the file")


def _resolve(node: dict[str, Any]) -> dict[str, Any]:
    """Follow a reference to a parameter, header or response."""
    while "$ref" in node:
        target: Any = _document()
        for part in node["$ref"].removeprefix(f"{_NAME}#/").split("/"):
            target = target[part]
        node = target
    return node


def _check_text(text: str, schema: dict[str, Any], where: str) -> None:
    """Check a value that is sent as text: in a path, a query or a header."""
    value: Any = text
    if _resolve(schema).get("type") == "integer":
        assert re.fullmatch(r"-?\d+", text), f"{where}: {text!r} is not an integer"
        value = int(text)
    _check(value, schema, where)


def _check(value: Any, schema: dict[str, Any], where: str) -> None:
    validator = Draft202012Validator(schema, registry=_registry(), format_checker=_FORMATS)
    errors = [f"{'.'.join(map(str, error.absolute_path))} {error.message}" for error in validator.iter_errors(value)]
    assert not errors, f"{where}: " + "; ".join(errors[:5])
