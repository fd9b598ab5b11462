"""`python -m app.check DIRECTORY`: would this release serve this model?

Loads the model with every check, compares its answers with those that it gave when it was made, and has both versions
answer requests, without opening a socket. The deployment runs
it on the target, with the release's own interpreter, before any replica restarts. One line, and exit code 0 or 1.
"""

from __future__ import annotations

import asyncio
import importlib
import json
import logging
import sys
from pathlib import Path
from time import perf_counter
from typing import Any, get_args

from app.engines.artifact import ArtifactError
from app.engines.engine import Engine
from app.engines.loading import load_engine
from app.factory import create_app
from app.settings import SHARED_MEMORY, Settings, Version

# A replica imports FastAPI and the modules of SERVER only when it needs them, so a missing one would show after the
# rollout. These requests, and the import of SERVER, show it here.
REQUESTS = (("GET", "/openapi.json"), ("GET", "/docs/swagger-ui.css"), ("POST", "/predict"))
SERVER = ("app.worker", "uvloop", "httptools")


KNOWN_ANSWERS = "known_answers.json"  # among the artifacts: [{input, label, confidence}, …]
TOLERANCE = 1e-5  # of a probability, relative for a number: what another processor's arithmetic may change


def compare(engine: Engine, path: Path) -> int:
    """How many answers were compared. Raises ArtifactError at the first input that the model now judges differently."""
    try:
        known = [(one["input"], one["label"], one["confidence"]) for one in json.loads(path.read_bytes())]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ArtifactError(path, f"cannot be read ({error!r})", "make the model again") from None
    if not known:
        raise ArtifactError(path, "has no answers", "make the model again")
    for x, label, confidence in known:
        score = engine.score(tuple(x) if isinstance(x, list) else x)
        if not (_alike(score.label, label) and (confidence is None or _alike(score.confidence, confidence))):
            raise ArtifactError(
                path,
                f"says {x!r} is {label} at {confidence}; here it is {score.label} at {score.confidence}",
                "make the model again with the libraries of this release",
            )
    return len(known)


def _alike(found: object, known: object) -> bool:
    """Labels are the same, numbers are close; no number is close to NaN."""
    if isinstance(found, float) and isinstance(known, (int, float)):
        return abs(found - known) <= TOLERANCE * max(1.0, abs(known))
    return found == known


async def ask(settings: Settings, engine: Engine) -> object:
    """The prediction that the API gives for the signature's typical input. Raises RuntimeError where an answer is not 200."""
    signature = engine.signature
    names = [column.name for column in signature.columns]
    body = {"sentence": signature.typical} if signature.takes_text else dict(zip(names, signature.typical, strict=True))
    app = create_app(settings, engine)
    sent: list[Any] = []

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": json.dumps(body).encode()}

    async def send(message: Any) -> None:
        sent.append(message)

    for method, path in REQUESTS:
        sent.clear()
        headers = [(b"content-type", b"application/json")]
        scope = {"type": "http", "method": method, "path": path, "query_string": b"", "headers": headers}
        await app(scope, receive, send)
        if sent[0]["status"] != 200:
            raise RuntimeError(f"{method} {path} answered {sent[0]['status']}")
    return json.loads(sent[1]["body"])["prediction"]


def main(arguments: list[str]) -> int:
    if len(arguments) != 1:
        print("usage: python -m app.check DIRECTORY", file=sys.stderr)
        return 2
    started = perf_counter()
    directory = Path(arguments[0])
    logging.getLogger("vmlops").addHandler(logging.NullHandler())  # the output stays one line, whatever is logged
    try:
        for module in SERVER:
            importlib.import_module(module)
        engine = load_engine(directory)
        # Asked for directly first, because an error then keeps its own message; through the API it is only a 500.
        engine.score(engine.signature.typical)
        known = compare(engine, directory / KNOWN_ANSWERS)
        for version in get_args(Version):
            settings = Settings(version, "127.0.0.1:0", "check", directory, "check", "error", SHARED_MEMORY)
            label = asyncio.run(ask(settings, engine))
    except Exception as error:  # whatever the error is, the release must not be served
        print(f"{directory}: refused: {error if isinstance(error, ArtifactError) else repr(error)}", file=sys.stderr)
        return 1
    took = perf_counter() - started
    answers = f"answers {label!r}, and {known} texts as when it was made"
    print(f"{directory}: {engine.name} model {engine.model_version} {answers} ({took:.2f} s)")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
