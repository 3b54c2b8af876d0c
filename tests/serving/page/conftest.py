"""Every test in this folder needs a browser, and is marked so: one for each file, and a new tab for each test."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser

from spark_llm.serving import LocalEndpoints
from tests.support.browser import Tab, browser


@pytest.hookimpl(tryfirst=True)  # before -m chooses
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark every test of this folder `browser`."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker("browser")


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
