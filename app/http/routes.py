"""The FastAPI application: its routes, its OpenAPI document and /docs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fastapi import FastAPI, Request, Response
from pydantic import BaseModel
from starlette.exceptions import HTTPException

from app.http import docs_page, oip, openapi, schemas
from app.http.asgi import Routes, failure
from app.http.oip_schemas import InferProblem
from app.http.openapi import respond
from app.http.predictor import Predictor
from app.http.problems import Problem
from app.http.sentences import BATCH_SENTENCES

DESCRIPTION = "The model {model}. Every answer carries `X-Request-ID`; errors are problem documents."
NO_PATH = "There is nothing at this path."
NO_METHOD = "This path does not take this method."


def framework(about: Mapping[str, str], predictor: Predictor, fast: Routes) -> FastAPI:
    """`about` is the document of /version; `fast` are the routes that asgi.Application answers before this is asked."""
    app = FastAPI(
        title="vmlops",
        version=about["version"],
        description=DESCRIPTION.format(model=predictor.engine.signature.model),
        docs_url=None,  # docs_page loads nothing from elsewhere
        redoc_url=None,
        generate_unique_id_function=lambda route: route.name,  # the names of a generated client's functions
        redirect_slashes=False,  # behind the gateway a redirect would name the wrong scheme and port
        telemetry={"auto_configure": False, "tracing": False, "metrics": False, "logs": False},
    )
    app.exception_handler(Problem)(_problem)
    app.exception_handler(HTTPException)(_http_exception)
    app.exception_handler(Exception)(_failure)

    signature = predictor.engine.signature
    forms = schemas.forms_of(signature)
    inference = oip.Inference(signature)

    models: list[type[BaseModel]] = [forms.one, forms.many, inference.Request, InferProblem]
    if ("POST", "/feedback") in fast:
        models.append(schemas.LabelledRequest)

    def document() -> dict[str, Any]:
        app.openapi_schema = app.openapi_schema or openapi.document(app, signature, models)
        return app.openapi_schema

    app.openapi = document  # type: ignore[method-assign]
    _add_fast_routes(app, about["version"] == "v2", forms, fast)

    @app.get("/version", summary="What runs here", response_model=schemas.VersionDocument)
    async def version() -> Mapping[str, str]:
        return about

    @app.get("/docs", include_in_schema=False)
    async def docs() -> Response:
        return respond(docs_page.page())

    @app.get("/docs/{name}", include_in_schema=False)
    async def asset(name: str) -> Response:
        return respond(docs_page.asset(name))

    oip.add_routes(app, predictor, inference)
    return app


def _add_fast_routes(app: FastAPI, debug: bool, forms: schemas.Forms, fast: Routes) -> None:
    documented: dict[tuple[str, str], dict[str, Any]] = {
        ("POST", "/predict"): {
            "summary": "Predict for one input",
            "response_model": forms.debug if debug else forms.prediction,
            **openapi.takes(forms.one),
        },
        ("POST", "/predict/batch"): {
            "summary": f"Predict for up to {BATCH_SENTENCES} inputs, in order",
            "response_model": forms.debug_predictions if debug else forms.predictions,
            **openapi.takes(forms.many),
        },
        ("GET", "/health"): {"summary": "The process lives", "response_model": schemas.Health},
        ("GET", "/ready"): {
            "summary": "The model is loaded, verified and has made a prediction",
            "response_model": schemas.Health,
            "responses": openapi.problems(503),
        },
        ("GET", "/metrics"): {"include_in_schema": False},
        ("POST", "/feedback"): {
            "summary": "Say which label an earlier prediction should have had",
            "status_code": 204,
            **openapi.takes(schemas.LabelledRequest, 404, 503),
        },
    }

    async def answer(request: Request) -> Response:
        return respond(await fast[request.method, request.url.path](request.scope, request.receive))

    for method, path in fast:
        name = path.strip("/").replace("/", "_")
        app.add_api_route(path, answer, methods=[method], name=name, **documented[method, path])


async def _problem(request: Request, problem: Problem) -> Response:
    # The Open Inference Protocol has its clients look for the reason under `error`.
    members = {"error": problem.detail} if request.url.path.startswith(oip.PREFIX) else {}
    return respond(problem.answer(request.state.request_id, **members))


async def _http_exception(request: Request, error: HTTPException) -> Response:
    """The router's 404 and 405."""
    headers = tuple((name.lower().encode(), value.encode()) for name, value in (error.headers or {}).items())
    detail = NO_PATH if error.status_code == 404 else NO_METHOD
    return await _problem(request, Problem(error.status_code, detail, headers=headers))


async def _failure(request: Request, _: Exception) -> Response:
    return respond(failure(request.state.request_id))
