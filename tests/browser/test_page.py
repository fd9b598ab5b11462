"""The page for people."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
from collections.abc import Callable
from urllib.parse import urlsplit

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page, expect

from tests.browser.conftest import NGRAMS, SHARES
from tests.paths import ROOT
from tests.templates.gateway_edge import Edge

OpenPage = Callable[..., Page]


def ask(page: Page, sentence: str = "Oh yeah, that was soooo cool!", label: str = "A text") -> None:
    page.get_by_label(label).fill(sentence)
    page.locator("button[type=submit]").click()


def test_a_sentence_and_its_emotion(edge: Edge, open_page: OpenPage) -> None:
    page = open_page()
    ask(page, "so 'cool' \"!\" 😀")
    expect(page.get_by_role("heading", name="happiness")).to_be_visible()
    rows = page.locator("#bars tr")
    expect(rows).to_have_count(13)
    assert [row.split("\t")[0] for row in rows.all_inner_texts()] == list(SHARES)  # the most probable first
    expect(rows.first).to_contain_text("41.2%")
    widths = [bar["width"] for bar in (bar.bounding_box() for bar in page.locator(".bar").all()) if bar]
    assert widths == sorted(widths, reverse=True)
    assert widths[0] / widths[1] == pytest.approx(0.412 / 0.181, rel=0.02)
    expect(page.locator("#parts li")).to_have_count(len(NGRAMS))
    expect(page.locator("#trace")).to_contain_text("v2@8101")
    seen = edge.replicas[3].seen[-1]
    assert json.loads(seen.body) == {"sentence": "so 'cool' \"!\" 😀"}
    assert seen.headers["x-experiment-group"] == "debug"
    assert seen.headers["x-request-id"] in page.locator("#trace").inner_text()


def test_the_command_does_the_same(edge: Edge, open_page: OpenPage) -> None:
    page = open_page()
    sentence = 'it\'s $HOME `id` \\ "quoted"\nand more'
    page.get_by_label("A text").fill(sentence)
    command = page.locator("#curl").inner_text()
    print(command)
    command = command.replace("certs/ca.crt", str(edge.directory / "server.crt")).replace("USER", "admin:admin")
    done = subprocess.run(["sh", "-c", command], capture_output=True, text=True, timeout=20, check=True)
    assert json.loads(done.stdout)["prediction"] == "happiness"
    assert json.loads(edge.replicas[3].seen[-1].body) == {"sentence": sentence}
    assert shlex.split(command)[0] == "curl"


def test_by_keyboard_alone(open_page: OpenPage) -> None:
    page = open_page()
    expect(page.get_by_label("A text")).to_be_focused()
    page.keyboard.press("Control+A")
    page.keyboard.type("soooo")
    page.keyboard.press("Shift+Enter")
    page.keyboard.type("cool")
    assert page.get_by_label("A text").input_value() == "soooo\ncool"
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", name="happiness")).to_be_visible()
    expect(page.get_by_label("A text")).to_be_focused()
    names = []
    for _ in range(3):
        page.keyboard.press("Tab")
        names.append(page.evaluate("document.activeElement.innerText.split(' ')[0]"))
        outline = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
        assert outline == "solid", f"the focus on {names[-1]} cannot be seen"
    assert names == ["Ask", "curl", "Copy"]


@pytest.mark.parametrize(
    ("status", "body", "words"),
    [
        (422, {"detail": "sentence: must have something other than white space.", "request_id": "abc"}, "white space"),
        (429, {"detail": "", "request_id": "abc"}, "Wait a second"),
        (
            503,
            {"detail": "No replica can answer now.", "request_id": "abc"},
            "No replica can answer now. (Request abc)",
        ),
    ],
)
def test_problems_are_said(edge: Edge, open_page: OpenPage, status: int, body: dict[str, str], words: str) -> None:
    page = open_page()
    page.route("**/predict", lambda route: route.fulfill(status=status, json=body))
    ask(page)
    expect(page.get_by_role("alert")).to_contain_text(words)
    expect(page.locator("#answer")).to_be_hidden()
    page.unroute("**/predict")
    ask(page)
    expect(page.get_by_role("alert")).to_be_hidden()
    expect(page.get_by_role("heading", name="happiness")).to_be_visible()


def test_with_a_wrong_password(open_page: OpenPage) -> None:
    page = open_page(http_credentials={"username": "admin", "password": "wrong"})
    expect(page.get_by_role("alert")).to_contain_text("password")
    expect(page.locator("#fields > *")).to_have_count(0)


def test_in_french(open_page: OpenPage) -> None:
    page = open_page(locale="fr-CA")
    expect(page.get_by_role("heading", name="Interroger le modèle « emotion »")).to_be_visible()
    assert page.title() == "vmlops: Interroger le modèle « emotion »"
    assert page.evaluate("document.documentElement.lang") == "fr"
    page.get_by_label("Un texte").fill("soooo cool")
    page.get_by_role("button", name="Demander").click()
    expect(page.locator("#bars tr").first).to_contain_text("41,2\u202f%")
    expect(page.locator("#trace")).to_contain_text("requête")
    said = page.inner_text("body")
    print(said)
    english = set(texts(page, "en")) - set(texts(page, "fr"))
    assert [text for text in english if re.search(rf"\b{re.escape(text)}\b", said)] == []


def texts(page: Page, language: str) -> list[str]:
    """What the page says in a language, without what it makes of an answer."""
    found: list[str] = page.evaluate(
        "language => Object.values(TEXTS[language]).filter(text => typeof text === 'string')", language
    )
    return found


@pytest.mark.parametrize(
    ("locale", "language"), [("fr-FR", "fr"), ("fr", "fr"), ("en-GB", "en"), ("de-DE", "en"), ("nl", "en")]
)
def test_the_language_is_the_browser_s(open_page: OpenPage, locale: str, language: str) -> None:
    page = open_page(locale=locale)
    assert page.evaluate("document.documentElement.lang") == language
    expect(page.get_by_role("heading", level=1)).to_have_text(page.evaluate("l => TEXTS[l].of('emotion')", language))


def test_both_languages_say_the_same_things(open_page: OpenPage) -> None:
    page = open_page()
    keys = page.evaluate("Object.values(TEXTS).map(text => Object.keys(text).sort())")
    assert keys[0] == keys[1]
    asked_for = page.evaluate(
        "[...document.querySelectorAll('[data-text], [data-label]')].map(part => part.dataset.text ?? part.dataset.label)"
    )
    assert set(asked_for) <= set(keys[0])
    assert page.evaluate("[...document.querySelectorAll('[data-text]')].every(part => part.textContent)")
    codes = page.evaluate("Object.values(TEXTS).map(text => Object.keys(text.problems))")
    assert set(codes[0]) <= set(codes[1]), "what English leaves to the answer's own words, French says itself"


@pytest.mark.parametrize("status", [0, 401, 413, 422, 429, 503, 504])
def test_problems_are_said_in_french(open_page: OpenPage, complaints: list[str], status: int) -> None:
    page = open_page(locale="fr-FR")
    body = {"detail": "English words of the service", "request_id": "abc"}
    page.route("**/predict", lambda route: route.fulfill(status=status, json=body) if status else route.abort())
    expect(page.get_by_label("Un texte")).to_be_visible()
    page.get_by_role("button", name="Demander").click()
    expect(page.get_by_role("alert")).to_contain_text(page.evaluate("status => TEXTS.fr.problems[status]", status))
    expect(page.get_by_role("alert")).not_to_contain_text("English")
    complaints.clear()  # Chromium's, of a request that was cut off


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 1100])
@pytest.mark.parametrize("language", ["en", "fr"])
def test_everybody_can_read_it(open_page: OpenPage, language: str, scheme: str, width: int) -> None:
    """axe-core: contrast, names, roles, landmarks, order of headings."""
    viewport = {"width": width, "height": 900}
    page = open_page(locale=language, color_scheme=scheme, viewport=viewport, reduced_motion="reduce")
    ask(page, label="Un texte" if language == "fr" else "A text")
    expect(page.get_by_role("heading", name="happiness")).to_be_visible()
    report = Axe().run(page)
    print(report.generate_report())
    assert report.violations_count == 0
    assert page.evaluate("document.documentElement.scrollWidth") <= width, "it scrolls sideways"
    background = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (sum(int(part) for part in background[4:-1].split(",")) < 200) is (scheme == "dark")
    (ROOT / "build").mkdir(exist_ok=True)
    page.screenshot(path=ROOT / f"build/page-{language}-{scheme}-{width}.png", full_page=True)


def test_nothing_comes_from_elsewhere(edge: Edge, open_page: OpenPage) -> None:
    page = open_page()
    requested = []
    page.on("request", lambda request: requested.append(request.url))
    page.reload()
    ask(page)
    expect(page.get_by_role("heading", name="happiness")).to_be_visible()
    print(requested)
    assert {urlsplit(url).netloc for url in requested} == {f"localhost:{edge.https}"}
    assert {urlsplit(url).path for url in requested} >= {
        "/",
        "/static/page.css",
        "/static/page.js",
        "/static/texts.js",
        "/openapi.json",
        "/predict",
    }


def test_the_policy_holds(open_page: OpenPage, complaints: list[str]) -> None:
    """What somebody might smuggle into the page neither runs nor leaves."""
    page = open_page()
    assert page.evaluate("""() => {
        const script = document.createElement('script');
        script.textContent = 'window.smuggled = true';
        document.body.append(script);
        return window.smuggled === undefined;
    }""")
    assert page.evaluate("fetch('https://127.0.0.1:1/').then(() => 'sent', () => 'blocked')") == "blocked"
    assert complaints
    assert all("Content Security Policy" in text for text in complaints), complaints
    complaints.clear()


def test_links(edge: Edge, open_page: OpenPage) -> None:
    page = open_page()
    paths = [link.get_attribute("href") for link in page.get_by_role("link").all()]
    print(paths)
    assert paths == ["docs", "grafana/", "prometheus/graph"]
