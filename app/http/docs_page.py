"""/docs: Swagger UI from the package fastapi-offline, so that it works without the internet and under a strict policy.

FastAPI's own page loads scripts from a public server and has code in the HTML.
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

from app.http.answers import Answer
from app.http.problems import Problem

PAGE = b"""<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>vmlops: the API</title>
<link rel="icon" href="data:,">
<link rel="stylesheet" href="docs/swagger-ui.css">
<div id="swagger-ui"></div>
<script src="docs/swagger-ui-bundle.js"></script>
<script src="docs/start.js"></script>
</html>
"""
START = b'SwaggerUIBundle({url: "openapi.json", dom_id: "#swagger-ui", tryItOutEnabled: true, validatorUrl: null});\n'
# Swagger UI sets styles on its elements and has its icons as data.
POLICY = (
    b"default-src 'none'; connect-src 'self'; img-src 'self' data:; script-src 'self'; style-src 'self' 'unsafe-inline'"
)
_ASSETS = {
    "swagger-ui.css": b"text/css; charset=utf-8",
    "swagger-ui-bundle.js": b"text/javascript; charset=utf-8",
}


def page() -> Answer:
    return Answer.of(200, PAGE, b"text/html; charset=utf-8", ((b"content-security-policy", POLICY),))


def asset(name: str) -> Answer:
    """Raises Problem 404."""
    if name == "start.js":
        return Answer.of(200, START, _ASSETS["swagger-ui-bundle.js"])
    if name not in _ASSETS:
        raise Problem(404, "There is no such file.")
    # Read from the disk at each request: requests are rare, and the files would take memory in every replica.
    return Answer.of(200, (_directory() / name).read_bytes(), _ASSETS[name], ((b"cache-control", b"max-age=86400"),))


def _directory() -> Path:
    spec = find_spec("fastapi_offline")  # not imported: only its files are needed
    if not spec or not spec.origin:
        raise RuntimeError("fastapi-offline, which requirements/api.in names, is not installed")
    return Path(spec.origin).parent / "static"
