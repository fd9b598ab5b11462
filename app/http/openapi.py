"""FastAPI, and its OpenAPI document, for routes that read and write their bodies themselves."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fastapi import FastAPI, Response
from fastapi.openapi.utils import get_openapi
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from app.http.answers import Answer
from app.http.problems import MEDIA_TYPE, TITLES
from app.http.schemas import ProblemDocument

_COMPONENT = "#/components/schemas/{model}"


def respond(answer: Answer) -> Response:
    response = Response(answer.body, answer.status)
    response.raw_headers = list(answer.headers)
    return response


def takes(body: type[BaseModel], *statuses: int) -> dict[str, Any]:
    """Arguments of a POST route: its body, and the problems that any body can make, besides `statuses`."""
    content = {"application/json": {"schema": _reference(body)}}
    return {
        "openapi_extra": {"requestBody": {"required": True, "content": content}},
        "responses": problems(400, *statuses, 413, 415, 422),
    }


def problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The argument `responses` of a route."""
    content = {MEDIA_TYPE.decode(): {"schema": _reference(ProblemDocument)}}
    return {status: {"description": TITLES[status], "content": content} for status in statuses}


def document(app: FastAPI, bodies: Sequence[type[BaseModel]]) -> dict[str, Any]:
    """Return FastAPI's document, with the models added that only `takes` and `problems` refer to."""
    made = get_openapi(title=app.title, version=app.version, description=app.description, routes=app.routes)
    models: list[type[BaseModel]] = [*bodies, ProblemDocument]
    _, definitions = models_json_schema([(model, "validation") for model in models], ref_template=_COMPONENT)
    made["components"]["schemas"] |= definitions["$defs"]
    # What the gateway in front answers: every route wants a password, and predictions are limited by client.
    made["components"]["securitySchemes"] = {"password": {"type": "http", "scheme": "basic"}}
    made["security"] = [{"password": []}]
    refused, limited = ({str(status): answer for status, answer in problems(status).items()} for status in (401, 429))
    for methods in made["paths"].values():
        for method, operation in methods.items():
            operation["responses"] |= refused | (limited if method == "post" else {})
    return made


def _reference(model: type[BaseModel]) -> dict[str, str]:
    return {"$ref": _COMPONENT.format(model=model.__name__)}
