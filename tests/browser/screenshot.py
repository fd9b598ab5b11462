"""Pictures for the documentation, of the page as a running system serves it and of the consoles with made-up data:

python -m tests.browser.screenshot https://localhost docs/page.png
python -m tests.browser.screenshot consoles docs/consoles.png
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from pathlib import Path

from playwright.sync_api import expect, sync_playwright

from tests.browser.test_consoles import drawn, prometheus, samples


def main(url: str, path: str, user: str = "admin", password: str = "admin") -> None:
    with sync_playwright() as playwright:
        arguments = ["--no-sandbox"] if os.geteuid() == 0 else []
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=arguments)
        page = browser.new_page(
            base_url=url,
            ignore_https_errors=True,
            http_credentials={"username": user, "password": password},
            viewport={"width": 900, "height": 800},
            reduced_motion="reduce",
        )
        page.goto("/")
        expect(page.get_by_label("A text")).to_be_visible()
        page.get_by_role("button", name="Ask").click()
        expect(page.locator("#bars tr")).to_have_count(13)
        page.screenshot(path=path, full_page=True)
        browser.close()


def consoles(path: str) -> None:
    arguments = ["--no-sandbox"] if os.geteuid() == 0 else []
    with (
        tempfile.TemporaryDirectory() as directory,
        prometheus(Path(directory), samples()) as address,
        sync_playwright() as playwright,
    ):
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=arguments)
        page = browser.new_page(viewport={"width": 1100, "height": 800}, locale="en-GB")
        drawn(page, address, "vmlops")
        page.screenshot(path=path, full_page=True)
        browser.close()


if __name__ == "__main__":
    if sys.argv[1] == "consoles":
        consoles(*sys.argv[2:])
    else:
        main(*sys.argv[1:])
