"""The page for everyone: axe finds nothing, the keyboard does everything, every width and theme works."""

import pytest
from playwright.sync_api import Browser, Page, expect

from spark_llm.serving import LocalEndpoints
from tests.support.browser import Tab


def states(tab: Tab, endpoints: LocalEndpoints) -> dict[str, list[str]]:
    """Bring the page into each of its states, and return what is wrong with it there."""
    found: dict[str, list[str]] = {}

    def look(state: str) -> None:
        overflow = page.evaluate("document.documentElement.scrollWidth - innerWidth")
        found[state] = [*tab.complaints(), *(["wider than the window"] if overflow > 0 else [])]

    page = tab.page
    page.goto(endpoints.url)
    expect(page.get_by_role("dialog")).to_be_visible()
    look("token")
    page.keyboard.press("Escape")
    look("no token")
    page.goto("about:blank")
    tab.open(endpoints)
    look("query")
    tab.send()
    look("answer")
    tab.send('{"messages": 1}')
    look("error")
    page.get_by_label("Request body, in JSON").fill("{")
    page.get_by_role("button", name="Send request").click()
    look("mistake")
    page.get_by_role("button", name="Show example").click()
    page.get_by_role("tab", name="Use in code").click()
    look("code")
    page.get_by_role("tab", name="Live").click()
    expect(page.locator(".legend b")).to_have_count(1)
    look("live")
    return found


@pytest.mark.parametrize("width", [360, 1600])
def test_axe_finds_nothing_in_any_state(chromium: Browser, endpoints: LocalEndpoints, width: int) -> None:
    """Names, roles, landmarks, contrast: every rule of axe holds in each state, theme and width."""
    # Without motion a colour has its final value at once.
    with Tab(chromium, reduced_motion="reduce", viewport={"width": width, "height": 900}) as tab:
        tab.expected = ["status of 4"]
        found = states(tab, endpoints)

    assert 8 == len(found)
    assert {} == {state: complaints for state, complaints in found.items() if complaints}


def focused(page: Page) -> str:
    """Return the id, or else the text, of the element that has the focus."""
    return str(page.evaluate("document.activeElement.id || document.activeElement.textContent"))


def test_the_keyboard_reaches_everything_in_order(tab: Tab, endpoints: LocalEndpoints) -> None:
    """Tab goes from top to bottom, one stop for a group of tabs; arrows move in it; focus is always visible."""
    page = tab.page
    page.goto(endpoints.page_url)
    expect(page.get_by_role("heading", level=1)).to_have_text("chat")
    stops = []
    for _ in range(11):
        page.keyboard.press("Tab")
        stops.append(focused(page))
        visible = "(e => getComputedStyle(e.closest('.editor') ?? e).outlineStyle)(document.activeElement)"
        assert "none" != page.evaluate(visible), stops[-1]
    assert [
        *("Skip to the endpoint", "change-token", "chatChatReady", "completeCompletionsReady", "embedEmbeddingsReady"),
        *("tab-query", "show-example", "format", "body", "stream", "send"),
    ] == stops

    page.locator("#tab-query").focus()
    for key, expected in {
        "ArrowRight": "tab-code",
        "End": "tab-live",
        "ArrowLeft": "tab-code",
        "Home": "tab-query",
    }.items():
        page.keyboard.press(key)
        assert expected == focused(page)
        expect(page.locator(f"#{expected}")).to_have_attribute("aria-selected", "true")
    page.locator("[data-endpoint=embed]").press("Enter")
    expect(page.get_by_role("heading", level=1)).to_have_text("embed")
    assert "embedEmbeddingsReady" == focused(page)
    page.locator(".skip").press("Enter")
    assert "main" == focused(page)


def test_the_landmarks_and_names_are_there(tab: Tab, endpoints: LocalEndpoints) -> None:
    """A screen reader finds the bar, the list, the main part, one heading of the first level, and the answer's end."""
    page = tab.open(endpoints)
    for role in ("banner", "main"):
        expect(page.get_by_role(role)).to_have_count(1)
    expect(page.get_by_role("heading", level=1)).to_have_count(1)
    expect(page.locator("[data-endpoint=chat]")).to_have_attribute("aria-current", "true")
    expect(page.locator("#answer")).to_have_attribute("aria-live", "polite")


def test_nothing_moves_where_motion_is_unwanted(chromium: Browser, endpoints: LocalEndpoints) -> None:
    """With reduced motion no element has a transition or an animation; without, some have."""
    with Tab(chromium) as tab:
        page = tab.open(endpoints)
        moving = """[...document.querySelectorAll("*")].map((element) => getComputedStyle(element)).filter(
            ({transitionDuration, animationName}) => transitionDuration !== "0s" || animationName !== "none").length"""

        assert page.evaluate(moving) > 0
        page.emulate_media(reduced_motion="reduce")
        assert 0 == page.evaluate(moving)
