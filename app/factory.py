"""Builds the application of a replica from its settings."""

from __future__ import annotations

import logging

from app import __version__
from app.engines.engine import Engine
from app.http.asgi import Application, ASGIApp
from app.http.handlers import fast_routes, immediate_routes
from app.http.predictor import Predictor
from app.observed.metrics import Metrics
from app.settings import Settings

_log = logging.getLogger("vmlops.replica")


def create_app(settings: Settings, engine: Engine) -> Application:
    """Raises ArtifactError where the model's manifest has no baseline."""
    about = {
        "vmlops": __version__,
        "version": settings.version,
        "model_version": engine.model_version,
        "release": settings.release,
        "engine": engine.name,
        "instance": settings.instance,
    }
    feedback = None
    if settings.feedback and engine.signature.kind == "classes":
        from app.observed.feedback import Feedback  # imports SQLite, which is off by default

        feedback = Feedback(settings.feedback, settings.version, engine.model_version, engine.signature)
    metrics = Metrics(settings, engine, feedback)
    predictor = Predictor(settings, engine, metrics)
    fast = fast_routes(predictor, metrics)

    def make_framework() -> ASGIApp:
        from app.http.routes import framework  # the import is what costs: see asgi.py

        return framework(about, predictor, fast)

    def start() -> None:
        predictor.warm_up()
        if metrics.shadow:
            metrics.shadow.listen(settings.bind)
        if feedback:
            feedback.start()
        _log.info("started", extra={"fields": about})

    def stop() -> None:
        if metrics.shadow:
            metrics.shadow.close()
        if feedback:
            feedback.close()
        _log.info("stopped", extra={"fields": about})

    return Application(fast, immediate_routes(predictor, metrics), make_framework, metrics, start, stop)
