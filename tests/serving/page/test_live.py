"""The live view, in a real browser: charts of the last five minutes, and the counters."""

import json

import pytest
from playwright.sync_api import Page, expect

from spark_llm.serving import Faults, LocalEndpoints
from tests.support.browser import Tab
from tests.support.local_client import connected


def chart(page: Page, title: str) -> str:
    """Return what a chart says to a screen reader."""
    return page.locator(f".chart:has(h2:text-is('{title}')) svg").get_attribute("aria-label") or ""


def test_the_view_follows_what_the_endpoints_do(tab: Tab) -> None:
    """Requests in flight, tokens, errors by status and lost connections are on the page a second later."""
    endpoints = LocalEndpoints(faults=Faults("ok 429 503 429"))
    with connected(endpoints) as client:
        client.chat("a b c")
        for _ in range(3):
            client.chat("x")
        client.query("embed", {"input": ["a", "b"]})
        endpoints.hold("wait")
        held = [client.chat_in_background("wait") for _ in range(3)]
        endpoints.wait_for(lambda stats: stats.in_flight == 3)
        page = tab.open(endpoints)
        page.get_by_role("tab", name="Live").click()

        expect(page.locator(".in-flight .now")).to_have_text("3")
        expect(page.locator(".legend li")).to_have_text(["4292", "5031"])
        assert "Requests in flight, the last five minutes: now 3, at most 3" == chart(page, "Requests in flight")
        assert "Errors by status, the last five minutes: 2 × 429, 1 × 503" == chart(page, "Errors by status")
        expect(page.locator("#counters div")).to_have_text(
            [
                *("Requests7", "Rows answered1", "Tokens in3", "Tokens out3", "Most in flight3"),
                *("Status 2001", "Status 4292", "Status 5031", "No answer0"),
            ]
        )
        page.get_by_label("All endpoints").check()
        expect(page.locator("#counters div").first).to_have_text("Requests8")
        endpoints.release()
        assert [200, 200, 200] == [each.result().status_code for each in held]
        expect(page.locator(".in-flight .now")).to_have_text("0")
        assert not page.locator("[style]").count()
        tab.close()


@pytest.mark.slow
def test_an_endpoint_without_requests_has_empty_charts(tab: Tab, endpoints: LocalEndpoints) -> None:
    """Nothing is an error, and nothing is divided by zero."""
    page = tab.open(endpoints, "embed")
    page.get_by_role("tab", name="Live").click()

    expect(page.locator(".legend")).to_have_text("No errors in the last five minutes.")
    expect(page.locator(".now")).to_have_text(["0", "0", "0", "0"])
    assert "NaN" not in page.locator("#charts").inner_html()
    page.get_by_role("tab", name="Query").click()
    tab.send(json.dumps({"input": "a b"}))
    page.get_by_role("tab", name="Live").click()
    expect(page.locator("#counters div").first).to_have_text("Requests1")


def test_rates_are_means_of_five_seconds(tab: Tab, endpoints: LocalEndpoints) -> None:
    """A rate is the mean of a second and the four before it, without the second that still runs."""
    tab.page.goto(endpoints.url)
    rates = tab.page.evaluate("async () => (await import('/page/charts.js')).smooth([5, 0, 0, 0, 0, 10, 99])")

    assert [5, 2.5, 5 / 3, 1.25, 1, 2] == rates


@pytest.mark.slow
def test_a_hidden_tab_reads_nothing(tab: Tab, endpoints: LocalEndpoints) -> None:
    """Browsers open six connections to a server, so a tab that nobody sees gives its own back."""
    page = tab.open(endpoints)
    expect(page.locator("#connection")).to_have_text("Connected")
    page.evaluate("Object.defineProperty(document, 'hidden', {value: true, configurable: true})")
    with page.expect_event("requestfailed", lambda request: request.url.endswith("/stats")):
        page.evaluate("document.dispatchEvent(new Event('visibilitychange'))")
    page.evaluate("delete document.hidden")
    with page.expect_request("**/stats"):
        page.evaluate("document.dispatchEvent(new Event('visibilitychange'))")
    endpoints.set_ready("chat", ready=False)
    expect(page.locator("#endpoint-facts")).to_contain_text("Stopped")
