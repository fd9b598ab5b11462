"""A picture of the page as a running system serves it: python -m tests.browser.screenshot https://localhost docs/page.png"""

from __future__ import annotations

import os
import shutil
import sys

from playwright.sync_api import expect, sync_playwright


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
        page.get_by_role("button", name="Ask").click()
        expect(page.locator("#bars tr")).to_have_count(13)
        page.screenshot(path=path, full_page=True)
        browser.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
