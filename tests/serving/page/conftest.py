"""One browser for each file of tests, and a new tab for each test."""

from collections.abc import Iterator

import pytest

pytest.importorskip("playwright", reason="The page's tests need playwright. Hint: pip install 'spark-llm-endpoints[dev]'")

from playwright.sync_api import Browser  # noqa: E402 -- after the check that it is there

from spark_llm.serving import LocalEndpoints  # noqa: E402
from tests.support.browser import Tab, browser  # noqa: E402


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    """A browser; each file has its own, for playwright holds an event loop in this thread while it runs."""
    with browser() as running:
        yield running


@pytest.fixture
def tab(chromium: Browser, endpoints: LocalEndpoints) -> Iterator[Tab]:
    """An empty tab; it closes before the endpoints of the test stop, so that its stream ends well."""
    with Tab(chromium) as opened:
        yield opened
