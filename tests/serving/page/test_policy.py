"""What the page may load and do, in a real browser."""

from playwright.sync_api import expect

from spark_llm.serving import LocalEndpoints
from tests.support.browser import Tab


def test_the_policy_refuses_what_is_not_the_pages_own(tab: Tab, endpoints: LocalEndpoints) -> None:
    """An inline script, an inline style, a frame and another host are refused, and each is reported on the console."""
    tab.expected = ["Content Security Policy"]
    page = tab.open(endpoints)
    for source in (
        "const s = document.createElement('script'); s.textContent = 'window.hacked = 1'; document.body.append(s)",
        "const s = document.createElement('style'); s.textContent = 'body { color: red }'; document.body.append(s)",
        "document.body.setAttribute('style', 'color: red')",
        "const f = document.createElement('iframe'); f.src = '/'; document.body.append(f)",
        "fetch('http://127.0.0.2:1/').catch(() => {})",
        "const i = new Image(); i.src = 'http://127.0.0.2:1/x.png'; document.body.append(i)",
    ):
        before = len(tab.errors)
        page.evaluate(f"() => {{ {source} }}")
        page.wait_for_timeout(50)
        assert len(tab.errors) > before, source
    assert page.evaluate("window.hacked") is None


def test_the_page_asks_its_own_server_only(tab: Tab, endpoints: LocalEndpoints) -> None:
    """Everything comes from the server itself, and the page links to nothing."""
    asked: list[str] = []
    tab.page.on("request", lambda request: asked.append(request.url))
    page = tab.open(endpoints)
    for name in ("Use in code", "Live", "Query"):
        page.get_by_role("tab", name=name).click()
    tab.send()

    assert [] == [url for url in asked if not url.startswith(endpoints.url)]
    expect(page.locator("a[href]:not([href='#main'])")).to_have_count(0)
