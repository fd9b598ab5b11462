"""The page's form for models that take tables: made from the signature, asked through the gateway, answered by a replica."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import httpx
import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page, expect

from app.engines.engine import Score
from app.engines.signature import Column, Input, Scalar, Signature
from app.factory import create_app
from tests.browser.conftest import asked
from tests.templates.gateway_edge import Edge
from tests.unit.app.stub_api import SETTINGS, Client

OpenPage = Callable[..., Page]

COLUMNS = (
    Column("age <years>", "number", 29.5, range=(0.25, 1080.5), nullable=True),
    Column("parents", "integer", 0, range=(0, 6)),
    Column("alone", "boolean", True),
    Column("class", "category", 3, (1, 2, 3)),
    Column("port", "category", "S", ("C", "Q", "S"), nullable=True),
    Column("remark", "text", "none of it"),
)
CLASSES = Signature("titanic", "classes", COLUMNS, (False, True), probabilities=True)
BARE = Signature("digits", "classes", COLUMNS[1:2], (2019, 2020), probabilities=False)
NUMBER = Signature("prices", "number", COLUMNS[:2], (), probabilities=False, spread=True)


class Engine:
    """Answers every row alike."""

    name = "stub"
    slow = False
    model_version = "stub00000002"
    manifest: Mapping[str, Any] = {"baseline": {}}

    def __init__(self, signature: Signature) -> None:
        self.signature = signature

    def score(self, _: Input) -> Score:
        if self.signature.kind == "number":
            return Score(1234567.891, float("nan"), [], spread=12.5)
        label = self.signature.labels[1]
        return Score(label, 0.8, [0.2, 0.8]) if self.signature.probabilities else Score(label, float("nan"), [])

    def score_batch(self, inputs: Sequence[Input]) -> list[Score]:
        return [self.score(x) for x in inputs]

    def explain(self, _: Input, label: Scalar, top: int = 10) -> list[tuple[str, float]]:
        return [("class", -1.5), ("alone", 0.25)] if self.signature is CLASSES else []


@pytest.fixture
def serving(edge: Edge) -> Iterator[Callable[[Signature], None]]:
    """Every replica serves a model with this signature."""
    before = [replica.answer for replica in edge.replicas]

    def serve(signature: Signature) -> None:
        app = create_app(SETTINGS._replace(version="v2", instance="v2@8101"), Engine(signature))
        app.start()
        app.stop()
        for replica in edge.replicas:
            replica.answer = lambda seen: asked(Client(app), seen)
        # Made at the first request, which on a busy machine takes longer than nginx waits.
        httpx.get(f"http://127.0.0.1:{edge.replicas[0].port}/openapi.json", timeout=60).raise_for_status()

    yield serve
    for replica, answer in zip(edge.replicas, before, strict=True):
        replica.answer = answer


def sent(edge: Edge) -> Any:
    seen = edge.replicas[3].seen[-1]
    assert seen.path == "/predict"
    return json.loads(seen.body)


def ask(page: Page) -> None:
    expect(page.locator("#terminal")).to_be_visible()
    page.locator("button[type=submit]").click()
    expect(page.locator("#answer")).to_be_visible()


def test_a_field_for_each_column(edge: Edge, open_page: OpenPage, serving: Callable[[Signature], None]) -> None:
    serving(CLASSES)
    page = open_page()
    expect(page.get_by_role("heading", name="Ask the model “titanic”")).to_be_visible()
    ask(page)
    assert sent(edge) == {column.name: column.typical for column in COLUMNS}
    types = page.locator("#fields [id^=column]").evaluate_all("fields => fields.map(field => field.type)")
    assert types == ["number", "number", "select-one", "select-one", "select-one", "text"]
    assert page.get_by_label("class").locator("option").all_inner_texts() == ["1", "2", "3"]
    assert page.get_by_label("port").locator("option").all_inner_texts() == ["unknown", "C", "Q", "S"]
    expect(page.get_by_label("age <years>")).to_have_accessible_description(
        "0.25 to 1,080.5 in the data. May be left empty."
    )
    expect(page.get_by_label("parents")).to_have_accessible_description("0 to 6 in the data.")

    page.get_by_label("age <years>").fill("")
    page.get_by_label("parents").fill("4")
    page.get_by_label("alone").select_option("no")
    page.get_by_label("class").select_option("1")
    page.get_by_label("port").select_option("unknown")
    page.get_by_label("remark").fill("o'clock")
    command = page.locator("#curl").inner_text()
    ask(page)
    changed = {"age <years>": None, "parents": 4, "alone": False, "class": 1, "port": None, "remark": "o'clock"}
    assert sent(edge) == changed
    assert json.dumps(changed, separators=(",", ":")).replace("'", "'\\''") in command


def test_answers_of_classes(open_page: OpenPage, serving: Callable[[Signature], None]) -> None:
    serving(CLASSES)
    page = open_page()
    ask(page)
    expect(page.locator("#label")).to_have_text("true")
    assert [row.split("\t")[:2] for row in page.locator("#bars tr").all_inner_texts()] == [
        ["true", "80.0%"],
        ["false", "20.0%"],
    ]
    assert page.locator("#parts li").all_inner_texts() == ["class -1.50", "alone +0.25"]
    expect(page.locator("#spread")).to_be_hidden()


def test_answers_without_probabilities(open_page: OpenPage, serving: Callable[[Signature], None]) -> None:
    serving(BARE)
    page = open_page()
    ask(page)
    expect(page.locator("#label")).to_have_text("2020")  # a label that is a number has no thousands
    expect(page.locator("#probabilities")).to_be_hidden()
    expect(page.locator("#reasons")).to_be_hidden()


@pytest.mark.parametrize(
    ("language", "number", "spread"),
    [("en", "1,234,570", "± 12.5 (standard deviation)"), ("fr", "1\u202f234\u202f570", "± 12,5 (écart type)")],
)
def test_answers_of_numbers(
    open_page: OpenPage, serving: Callable[[Signature], None], language: str, number: str, spread: str
) -> None:
    serving(NUMBER)
    page = open_page(locale=language)
    ask(page)
    expect(page.locator("#label")).to_have_text(number)
    expect(page.locator("#spread")).to_have_text(spread)
    expect(page.locator("#said")).to_have_text(f"{number}, {spread}")
    expect(page.locator("#probabilities")).to_be_hidden()


@pytest.mark.parametrize("language", ["en", "fr"])
def test_a_refused_value_is_shown_at_its_field(
    open_page: OpenPage, serving: Callable[[Signature], None], language: str
) -> None:
    serving(CLASSES)
    page = open_page(locale=language)
    page.get_by_label("age <years>").fill("1e300")
    page.locator("button[type=submit]").click()
    expect(page.get_by_role("alert")).to_contain_text("age <years>" if language == "en" else "pas cette entrée")
    assert [field.get_attribute("name") for field in page.locator("[aria-invalid]").all()] == ["age <years>"]
    page.get_by_label("age <years>").fill("30")
    ask(page)
    expect(page.locator("[aria-invalid]")).to_have_count(0)


def test_a_form_that_was_not_to_be_had_is_asked_for_again(open_page: OpenPage, complaints: list[str]) -> None:
    page = open_page()
    page.route("**/openapi.json", lambda route: route.abort())
    page.reload()
    expect(page.get_by_role("alert")).to_contain_text("cannot be reached")
    expect(page.locator("#terminal")).to_be_hidden()
    complaints.clear()  # Chromium's, of a request that was cut off
    page.unroute("**/openapi.json")
    page.locator("button[type=submit]").click()
    expect(page.get_by_label("A text")).to_be_visible()
    expect(page.get_by_role("alert")).to_be_hidden()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 1100])
@pytest.mark.parametrize("language", ["en", "fr"])
def test_everybody_can_read_it(
    open_page: OpenPage, serving: Callable[[Signature], None], language: str, scheme: str, width: int
) -> None:
    """axe-core: contrast, names, roles, landmarks, order of headings."""
    serving(CLASSES)
    viewport = {"width": width, "height": 900}
    page = open_page(locale=language, color_scheme=scheme, viewport=viewport, reduced_motion="reduce")
    ask(page)
    report = Axe().run(page)
    print(report.generate_report())
    assert report.violations_count == 0
    assert page.evaluate("document.documentElement.scrollWidth") <= width, "it scrolls sideways"
