"""The page in the distribution's Chromium, headless, served by the rendered gateway in front of a stub of v2."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from functools import cache
from typing import Any

import pytest
from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Page, sync_playwright

from tests.templates.gateway_edge import Edge, running
from tests.templates.gateway_stub import Seen
from tests.unit.app.stub_api import Client, make_app

SHARES = {
    "happiness": 0.412,
    "enthusiasm": 0.181,
    "fun": 0.124,
    "love": 0.081,
    "surprise": 0.062,
    "relief": 0.041,
    "neutral": 0.032,
    "boredom": 0.021,
    "empty": 0.015,
    "worry": 0.012,
    "sadness": 0.009,
    "anger": 0.006,
    "hate": 0.004,
}
NGRAMS = [("soooo cool", 1.31), ("oh yeah", 0.84), ("that was", -0.22)]


def predict(seen: Seen) -> tuple[int, bytes]:
    """What v2 answers to any sentence, and the document that the form is made from."""
    if seen.path == "/openapi.json":
        return 200, document()
    answer = {
        "prediction": "happiness",
        "prediction_proba_dict": dict(sorted(SHARES.items())),
        "top_ngrams": [{"ngram": ngram, "weight": weight} for ngram, weight in NGRAMS],
        "model_version": "3f9c2a7be014",
        "engine": "compiled",
        "instance": "v2@8101",
        "elapsed_ms": 0.05,
    }
    return 200, json.dumps(answer).encode()


@cache
def document() -> bytes:
    return Client(make_app("v2")).get("/openapi.json").content


def asked(client: Client, seen: Seen) -> tuple[int, bytes]:
    """What a replica in this process answers."""
    headers = {"content-type": seen.headers.get("content-type", "")}
    answer = client.request(seen.method, seen.path, content=seen.body, headers=headers)
    return answer.status_code, answer.content


@pytest.fixture(scope="session")
def edge(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Edge]:
    document()
    limits = {"gateway_rate": 1000, "gateway_burst": 1000}
    with running(tmp_path_factory.mktemp("page"), **limits) as edge, edge.answering(predict):
        yield edge


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    chromium = shutil.which("chromium")
    assert chromium, "chromium is missing: `make test-browser` installs it"
    # Chromium's own sandbox refuses to run as root.
    arguments = ["--no-sandbox"] if os.geteuid() == 0 else []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=arguments)
        yield browser
        browser.close()


@pytest.fixture
def complaints() -> list[str]:
    """What the page's console and its requests reported. A test that expects some clears the list."""
    return []


@pytest.fixture
def open_page(edge: Edge, browser: Browser, complaints: list[str]) -> Iterator[Any]:
    """Open the page with options of a browser context. Fail afterwards if there were complaints."""
    contexts: list[BrowserContext] = []

    def note(message: ConsoleMessage) -> None:
        # Chromium reports every answer above 399; tests that provoke one look at the page instead.
        if "the server responded" not in message.text:
            complaints.append(message.text)

    def open_page(**options: Any) -> Page:
        options = {"http_credentials": {"username": "admin", "password": "admin"}} | options
        context = browser.new_context(ignore_https_errors=True, base_url=f"https://localhost:{edge.https}", **options)
        contexts.append(context)
        page = context.new_page()
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("console", note)
        page.goto("/")
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert complaints == []
