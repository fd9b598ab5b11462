"""FastAPI, and its OpenAPI document, for routes that read and write their bodies themselves."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fastapi import FastAPI, Response
from fastapi.openapi.utils import get_openapi
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from app.engines.signature import Signature
from app.http.answers import Answer
from app.http.problems import MEDIA_TYPE, TITLES
from app.http.schemas import ProblemDocument

OPEN = "/health"  # at the gateway, which answers it itself
_COMPONENT = "#/components/schemas/{model}"


def respond(answer: Answer) -> Response:
    response = Response(answer.body, answer.status)
    response.raw_headers = list(answer.headers)
    return response


def takes(body: type[BaseModel], *statuses: int, problem: type[ProblemDocument] = ProblemDocument) -> dict[str, Any]:
    """Arguments of a POST route: its body, and the problems that any body can make, besides `statuses`."""
    content = {"application/json": {"schema": _reference(body)}}
    return {
        "openapi_extra": {"requestBody": {"required": True, "content": content}},
        "responses": problems(400, *statuses, 413, 415, 422, problem=problem),
    }


def problems(*statuses: int, problem: type[ProblemDocument] = ProblemDocument) -> dict[int | str, dict[str, Any]]:
    """The argument `responses` of a route."""
    content = {MEDIA_TYPE.decode(): {"schema": _reference(problem)}}
    return {status: {"description": TITLES[status], "content": content} for status in statuses}


def document(app: FastAPI, signature: Signature, models: Sequence[type[BaseModel]]) -> dict[str, Any]:
    """Return FastAPI's document with the models added that only `takes` and `problems` refer to, the gateway, and the
    signature, which the page for people is made from."""
    made = get_openapi(title=app.title, version=app.version, description=app.description, routes=app.routes)
    made["x-signature"] = signature.to_json()
    shapes: list[Any] = [(model, "validation") for model in (*models, ProblemDocument)]
    _, definitions = models_json_schema(shapes, ref_template=_COMPONENT)
    made["components"]["schemas"] |= definitions["$defs"]
    _remove_frameworks_errors(made)
    _add_gateway(made)
    return made


def _remove_frameworks_errors(made: dict[str, Any]) -> None:
    """FastAPI gives an answer 422 of its own to every route with a parameter; ours take any text."""
    schemas = made["components"]["schemas"]
    schemas.pop("HTTPValidationError", None)
    schemas.pop("ValidationError", None)
    for methods in made["paths"].values():
        if "get" in methods:
            methods["get"]["responses"].pop("422", None)


def _add_gateway(made: dict[str, Any]) -> None:
    """Add what the gateway in front asks and answers: a password for every route but one, and limits."""
    made["components"]["securitySchemes"] = {"password": {"type": "http", "scheme": "basic"}}
    made["security"] = [{"password": []}]
    refused, limited = ({str(status): answer for status, answer in problems(status).items()} for status in (401, 429))
    for path, methods in made["paths"].items():
        for operation in methods.values():
            operation["responses"] |= limited
            if path == OPEN:
                operation["security"] = []
            else:
                operation["responses"] |= refused


def _reference(model: type[BaseModel]) -> dict[str, str]:
    return {"$ref": _COMPONENT.format(model=model.__name__)}
