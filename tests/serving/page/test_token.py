"""The page's token: where it comes from, where it is kept, and what happens when it ends."""

from urllib.parse import quote

import pytest
from playwright.sync_api import Browser, expect

from spark_llm.serving import Faults, LocalEndpoints
from tests.support.browser import Tab

EVERYWHERE = """async () => JSON.stringify([
    location.href, history.state, document.title, document.cookie, document.documentElement.outerHTML,
    {...localStorage}, {...sessionStorage}, await indexedDB.databases(), await caches.keys(), window.name,
    [...document.querySelectorAll("input, textarea")].map((each) => each.value),
    performance.getEntriesByType("resource").map((each) => each.name),
])"""


def test_the_token_leaves_the_address_at_once_and_is_kept_nowhere(tab: Tab, endpoints: LocalEndpoints) -> None:
    """A token with any characters works, and no place that outlives the page or can be seen has it."""
    endpoints.token = "a+b/c=%20&d#'e"
    tab.page.add_init_script(
        "const send = fetch; window.asking = [];"
        "window.fetch = (...request) => { asking.push(location.href); return send(...request); }"
    )
    page = tab.open(endpoints)
    tab.send()
    page.get_by_role("tab", name="Use in code").click()

    assert "200 OK" == tab.fact("Status")
    assert f"{endpoints.url}/?endpoint=chat" == page.url
    assert f"{endpoints.url}/" == page.evaluate("asking[0]")  # before the first request
    everywhere = page.evaluate(EVERYWHERE)
    assert "/page/app.js" in everywhere
    assert [] == [text for text in (endpoints.token, quote(endpoints.token, safe="")) if text in everywhere]
    page.go_back()
    assert "token" not in page.url


def test_a_token_is_entered_by_hand(tab: Tab, endpoints: LocalEndpoints) -> None:
    """Without a token the page asks; a text that cannot be one, and a wrong one, are said; the right one works."""
    tab.expected = ["status of 401"]
    page = tab.page
    page.goto(endpoints.url)
    dialog = page.get_by_role("dialog")
    field = page.get_by_label("Token", exact=True)
    expect(field).to_be_focused()
    assert "password" == field.get_attribute("type")
    for text, message in {
        "": "Paste the token.",
        "two words": "no blanks",
        "wrong": "The server refuses the token",
    }.items():
        field.fill(text)
        field.press("Enter")
        expect(dialog.get_by_role("alert")).to_contain_text(message)
        expect(field).to_be_focused()
    page.keyboard.press("Escape")
    page.get_by_role("button", name="Enter token").click()
    field.fill(endpoints.token)
    page.get_by_role("button", name="Use token").click()

    expect(dialog).to_be_hidden()
    expect(page.get_by_role("heading", level=1)).to_have_text("chat")
    assert "" == field.input_value()


def test_a_token_that_ended_is_asked_for_again(tab: Tab, endpoints: LocalEndpoints) -> None:
    """When the server refuses the token, the page asks for another; the editor and the endpoint stay as they are."""
    tab.expected = ["status of 401"]
    page = tab.open(endpoints, "complete")
    page.get_by_label("Request body, in JSON").fill('{"prompt": "mine"}')
    endpoints.revoke()

    expect(page.get_by_role("dialog")).to_contain_text("it is wrong, or it has ended")
    endpoints.token = "another"
    page.get_by_label("Token", exact=True).fill("another")
    page.get_by_role("button", name="Use token").click()
    tab.send()
    assert "200 OK" == tab.fact("Status")
    assert "mine" == page.locator(".reply p").inner_text()
    expect(page.locator("#connection")).to_have_text("Connected")


def test_a_new_address_in_an_open_tab_brings_its_token(tab: Tab, endpoints: LocalEndpoints) -> None:
    """A printed address that is opened in the page's own tab changes the token, and leaves the address bar."""
    tab.expected = ["status of 401"]
    page = tab.open(endpoints)
    endpoints.token = "new"
    expect(page.get_by_role("dialog")).to_be_visible()
    page.evaluate("location.hash = '#token=new'")

    expect(page.get_by_role("dialog")).to_be_hidden()
    expect(page.locator("#connection")).to_have_text("Connected")
    assert "token" not in page.url


def test_a_refusal_of_the_endpoint_is_no_end_of_the_token(tab: Tab, endpoints: LocalEndpoints) -> None:
    """A 403 for a request whose token is valid is shown as the answer, and asks for nothing."""
    tab.expected = ["status of 403"]
    endpoints.faults = Faults("403")
    page = tab.open(endpoints)
    tab.send()

    assert "403 Forbidden" == tab.fact("Status")
    expect(page.locator("#connection")).to_have_text("Connected")
    expect(page.get_by_role("dialog")).to_be_hidden()


@pytest.mark.slow
def test_two_tabs_have_their_own_tokens(chromium: Browser, tab: Tab, endpoints: LocalEndpoints) -> None:
    """A second tab knows nothing of the first one's token, and both show what either sends."""
    with Tab(chromium) as other:
        page, second = tab.open(endpoints), other.page
        second.goto(endpoints.url)
        expect(second.get_by_role("dialog")).to_be_visible()
        other.page.goto("about:blank")
        second = other.open(endpoints, "embed")
        other.send()
        tab.send()
        for each in (page, second):
            each.get_by_role("tab", name="Live").click()
            each.get_by_label("All endpoints").check()
            expect(each.locator("#counters div").first).to_have_text("Requests2")
