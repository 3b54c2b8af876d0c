"""Where JSON is wrong: the page's own check against the browser's."""

import json
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from playwright.sync_api import Browser, Page

from spark_llm.serving import LocalEndpoints
from tests.support.browser import Tab

CHECK = """async (texts) => {
    const { findMistake } = await import("/page/json.js");
    const isJson = (text) => { try { JSON.parse(text); return true; } catch { return false; } };
    return texts.map((text) => {
        const mistake = findMistake(text);
        return [isJson(text), mistake, mistake && findMistake(text.slice(0, mistake.offset))];
    });
}"""
PIECES = st.sampled_from(
    [
        *'{}[],:" \n\t\\',
        '"a"',
        '"\\u00e9"',
        '"\\x"',
        "0",
        "-1.5e3",
        "01",
        "1.",
        "true",
        "nul",
        "'a'",
        "\x00",
        "{}",
        '{"a":1}',
    ]
)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=6,
)


@st.composite
def nearly_json(draw: st.DrawFn) -> str:
    """Return JSON with a piece put in, or cut out, at some place; or pieces of JSON in any order."""
    text = json.dumps(draw(VALUES), ensure_ascii=draw(st.booleans()), indent=draw(st.sampled_from([None, 2])))
    at, cut = draw(st.integers(0, len(text))), draw(st.integers(0, 2))
    changed = text[:at] + draw(st.just("") | PIECES) + text[at + cut :]
    return draw(st.sampled_from([text, changed, "".join(draw(st.lists(PIECES, max_size=6)))]))


@pytest.fixture(scope="module")
def page(chromium: Browser) -> Iterator[Page]:
    """A tab with the page's modules."""
    with LocalEndpoints() as endpoints, Tab(chromium) as tab:
        tab.page.goto(endpoints.url)
        yield tab.page


@settings(suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.large_base_example])
@given(texts=st.lists(nearly_json(), min_size=30, max_size=30))
def test_a_text_has_a_mistake_exactly_if_the_browser_cannot_parse_it(page: Page, texts: list[str]) -> None:
    """The mistake is the first one: what stands before its place is JSON, or the beginning of some."""
    for text, (is_json, mistake, earlier) in zip(texts, page.evaluate(CHECK, texts), strict=True):
        assert is_json == (mistake is None), text
        if mistake is not None:
            units = len(text.encode("utf-16-le", "surrogatepass")) // 2
            assert 0 <= mistake["offset"] <= units
            assert 1 <= mistake["line"] <= text.count("\n") + 1
            assert earlier is None or earlier["offset"] == mistake["offset"], text
