"""A real browser for tests of the serving page: a Chromium of this machine, driven by playwright."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.resources import files
from types import TracebackType

import pytest
from playwright.sync_api import Browser, ConsoleMessage, Page, expect, sync_playwright

from spark_llm.serving import LocalEndpoints

NAMES = ("chromium", "chromium-browser", "google-chrome")
INSTALL = "apt-get install --yes --no-install-recommends chromium"
AXE = files("axe_playwright_python").joinpath("axe.min.js").read_text(encoding="utf-8")


@contextmanager
def browser() -> Iterator[Browser]:
    """Run a browser; without one skip the test, or fail it where SPARK_LLM_NEEDS_BROWSER is set."""
    path = next(filter(None, map(shutil.which, NAMES)), None)
    if path is None:
        message = f"No browser is on the PATH ({', '.join(NAMES)}). Hint: {INSTALL}"
        if os.environ.get("SPARK_LLM_NEEDS_BROWSER"):
            pytest.fail(message, pytrace=False)
        pytest.skip(message)
    with sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=path)
        yield running
        running.close()


class Tab:
    """The serving page in a tab of its own, without cookies or storage of others.

    Its end fails the test if the console has an error, such as a report of the page's policy. A test names the failed
    requests that it expects, which the browser reports there too.

    Attributes:
        page: The tab, as playwright drives it.
        errors: The errors of the console so far.
        expected: Parts of the errors that are expected.
    """

    def __init__(self, browser: Browser, **options: object) -> None:
        """Open an empty tab; the options are those of a browser's context."""
        self._context = browser.new_context(**{"viewport": {"width": 1280, "height": 900}, **options})  # type: ignore[arg-type]
        self.page: Page = self._context.new_page()
        self.page.set_default_timeout(10_000)
        self.errors: list[str] = []
        self.expected: list[str] = []
        self.page.on("console", self._hear)
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))

    def _hear(self, message: ConsoleMessage) -> None:
        if message.type in ("error", "warning"):
            self.errors.append(message.text)

    def __enter__(self) -> "Tab":  # noqa: PYI034 -- typing.Self came with Python 3.11
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
        if error is None:
            unexpected = [each for each in self.errors if not any(part in each for part in self.expected)]
            assert [] == unexpected, unexpected

    def close(self) -> None:
        """Close the tab, before its endpoints stop."""
        self._context.close()

    def open(self, endpoints: LocalEndpoints, name: str = "chat") -> Page:
        """Open the page with its token, show one endpoint, and return the tab."""
        self.page.goto(endpoints.page_url)
        self.page.locator(f"[data-endpoint={name}]").click()
        expect(self.page.get_by_role("heading", level=1)).to_have_text(name)
        return self.page

    def send(self, body: str | None = None) -> None:
        """Put a body into the editor, send it, and wait for the end of the answer."""
        if body is not None:
            self.page.get_by_label("Request body, in JSON").fill(body)
        self.page.get_by_role("button", name="Send request").click()
        expect(self.page.locator("#answer .facts")).to_contain_text("Latency")
        expect(self.page.locator("#answer")).to_have_attribute("aria-busy", "false")

    def fact(self, name: str) -> str:
        """Return a fact of the answer: its status, its latency, its tokens."""
        return self.page.locator(f"#answer .facts div:has(dt:text-is('{name}')) dd").inner_text()

    def complaints(self) -> list[str]:
        """Return what axe finds wrong with the page as it is now, and with its colours in the dark theme."""
        if self.page.evaluate("typeof axe") == "undefined":
            self.page.evaluate(AXE)
        found = []
        for theme, options in (("light", {}), ("dark", {"runOnly": ["color-contrast"]})):
            self.page.emulate_media(color_scheme=theme)  # type: ignore[arg-type]
            violations = self.page.evaluate("async (options) => (await axe.run(options)).violations", options)
            found += [f"{theme}: {each['help']}: {[node['target'] for node in each['nodes']]}" for each in violations]
        return found
