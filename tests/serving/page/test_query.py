"""The view that sends requests, in a real browser."""

import asyncio
import json
from collections.abc import AsyncGenerator

import pytest
from playwright.sync_api import expect

from spark_llm.serving import (
    ChatRequest,
    CompletionRequest,
    Echo,
    Faults,
    LocalEndpoints,
    Piece,
    PredictFunction,
    ServingEndpoint,
    Texts,
    Usage,
)
from tests.support.browser import Tab
from tests.support.local_client import chat_body

HELLO = json.dumps(chat_body("hello big world"))


def test_endpoints_are_listed_with_task_and_state(tab: Tab, endpoints: LocalEndpoints) -> None:
    """The list has each endpoint, its task and its state, and changes when an endpoint stops or starts."""
    page = tab.open(endpoints)
    items = page.get_by_role("navigation", name="Endpoints").get_by_role("listitem")

    expect(items).to_have_text(["chatChatReady", "completeCompletionsReady", "embedEmbeddingsReady"])
    endpoints.set_ready("embed", False)
    expect(items.nth(2)).to_have_text("embedEmbeddingsStopped")
    endpoints.set_ready("embed", True)
    expect(items.nth(2)).to_have_text("embedEmbeddingsReady")


EXAMPLES = {
    "chat": ("Answer in one sentence.\nWhat is Apache Spark?", "16 (8 in, 8 out)"),
    "complete": ("Apache Spark is", "6 (3 in, 3 out)"),
    "embed": ("2 vectors of 8 numbers", "13"),
}


def test_each_example_is_answered(tab: Tab, endpoints: LocalEndpoints) -> None:
    """A task's example is sent as it stands; the page shows the text, the tokens, the latency and the whole body."""
    for name, (answer, tokens) in EXAMPLES.items():
        page = tab.open(endpoints, name)
        tab.send()
        body = json.loads(page.get_by_label("Response body", exact=True).inner_text())

        assert json.loads(page.get_by_label("Request body, in JSON").input_value()) == endpoints.requests[-1].body
        assert answer == page.locator(".reply p").inner_text()
        assert ("200 OK", tokens) == (tab.fact("Status"), tab.fact("Tokens"))
        assert endpoints.stats.endpoints[name].total_tokens == body["usage"]["total_tokens"]
        assert tab.fact("Latency").endswith(" ms")


def test_models_of_other_tasks_are_shown_too(tab: Tab) -> None:
    """A custom model, and one that takes no chat, have their label, an example, its answer, and code for it."""
    models: dict[str, PredictFunction | ServingEndpoint] = {
        "score": lambda table: table["age"].tolist(),
        "codex": ServingEndpoint(Echo(), tasks=["responses"]),
    }
    with LocalEndpoints(models) as endpoints:
        page = tab.open(endpoints, "score")
        items = page.get_by_role("navigation", name="Endpoints").get_by_role("listitem")
        expect(items).to_have_text(["scoreCustom modelReady", "codexResponsesReady"])
        expect(page.locator("#stream-option")).to_be_hidden()
        tab.send()
        assert ("200 OK", "1 prediction") == (tab.fact("Status"), page.locator(".reply p").inner_text())
        page.get_by_role("tab", name="Use in code").click()
        clients = page.locator("[data-client]")
        assert ["curl", "mlflow", "sdk"] == clients.evaluate_all("(all) => all.map((each) => each.dataset.client)")

        page = tab.open(endpoints, "codex")
        tab.send()
        assert "Answer in one sentence.\nWhat is Apache Spark?" == page.locator(".reply p").inner_text()
        assert ("200 OK", "16 (8 in, 8 out)") == (tab.fact("Status"), tab.fact("Tokens"))
        page.get_by_role("tab", name="Use in code").click()
        assert "client.responses.create" in page.locator("[data-client=openai]").inner_text()
        tab.close()


def test_calls_of_tools_are_shown(tab: Tab, endpoints: LocalEndpoints) -> None:
    """An answer that calls a tool shows the call."""
    tool = {"type": "function", "function": {"name": "add", "parameters": {"type": "object"}}}
    page = tab.open(endpoints)
    tab.send(json.dumps({**chat_body('call add {"a": 1}'), "tools": [tool]}))

    expect(page.locator(".reply p")).to_have_text('add({"a": 1})')
    expect(page.locator(".finish")).to_have_text("finish_reason: tool_calls")


def test_the_body_of_an_error_is_shown_as_it_is(tab: Tab, endpoints: LocalEndpoints) -> None:
    """A refused request shows its status, and the bytes of the body unchanged."""
    tab.expected = ["status of 400"]
    page = tab.open(endpoints)
    tab.send('{"messages": 1}')

    assert "400 Bad Request" == tab.fact("Status")
    shown = page.get_by_label("Response body", exact=True)
    expect(shown).to_have_text(
        '{"error_code":"BAD_REQUEST","message":"Invalid request: Expected `array`, got `int` - at `$.messages`"}'
    )


MISTAKES = {
    '{\n  "messages": [\n    {"role": "user"},\n  ]\n}': (4, "column 3: No comma may stand before ]."),
    '{"messages": [\n{"role": \'user\'}]}': (2, "column 10: Strings have double quotes."),
    '{"a": 1\n "b": 2}': (2, "column 2: A comma or } is missing here."),
    '{"a": True}': (1, "column 7: True is no value"),
    "": (1, "column 1: The body is empty."),
    "\x00\x01\ufffd": (1, "column 1: A value is missing here."),
    "\n" * 200 + "{": (201, "column 2: The text ends before a closing }."),
}


def test_a_mistake_is_marked_at_its_line_and_nothing_is_sent(tab: Tab, endpoints: LocalEndpoints) -> None:
    """JSON that does not parse is marked before anything is sent, and the mark goes with the next change."""
    page = tab.open(endpoints)
    editor = page.get_by_label("Request body, in JSON")
    for text, (line, message) in MISTAKES.items():
        editor.fill(text)
        expect(page.locator(".number.mistaken")).to_have_count(0)
        page.get_by_role("button", name="Send request").click()

        expect(page.locator("#body-error")).to_contain_text(f"Line {line}, {message}")
        expect(page.locator(".number.mistaken")).to_have_text(str(line))
        expect(editor).to_have_attribute("aria-invalid", "true")
        expect(editor).to_be_focused()
    assert 0 == endpoints.stats.requests
    page.get_by_role("button", name="Show example").click()
    expect(page.locator("#body-error")).to_be_empty()


class Slow(Echo):
    """Streams two words, the second only when the test lets it."""

    async def stream(self, request: ChatRequest | CompletionRequest) -> AsyncGenerator[Piece, None]:
        """Yield the first word at once."""
        self.__dict__["gate"] = gate = asyncio.Event()
        self.__dict__["loop"] = asyncio.get_running_loop()
        yield Piece("first", Usage(1, 1))
        await gate.wait()
        yield Piece(" second", Usage(1, 2), finish_reason="stop")

    def let_go(self) -> None:
        """Let the second word come."""
        self.__dict__["loop"].call_soon_threadsafe(self.__dict__["gate"].set)


def test_a_stream_is_shown_as_it_comes(tab: Tab) -> None:
    """The first word is on the page before the model has made the second; screen readers get the whole at the end."""
    model = Slow()
    with LocalEndpoints({"chat": ServingEndpoint(model, tasks=["chat"])}) as endpoints:
        page = tab.open(endpoints)
        page.get_by_label("Stream the answer").check()
        assert json.loads(page.get_by_label("Request body, in JSON").input_value())["stream"] is True
        page.get_by_role("button", name="Send request").click()

        expect(page.locator(".reply")).to_have_text("first")
        expect(page.locator("#answer")).to_have_attribute("aria-busy", "true")
        model.let_go()
        expect(page.locator(".reply")).to_have_text("first second")
        expect(page.locator("#answer")).to_have_attribute("aria-busy", "false")
        assert "3 (1 in, 2 out)" == tab.fact("Tokens")
        assert tab.fact("First token").endswith(" ms")
        assert page.get_by_label("Response body", exact=True).inner_text().rstrip().endswith("data: [DONE]")
        tab.close()


def test_a_request_can_be_stopped(tab: Tab, endpoints: LocalEndpoints) -> None:
    """Stop ends a request that has no answer, the endpoint sees the client go, and Control+Enter sends the next."""
    endpoints.faults = Faults("hang ok")
    page = tab.open(endpoints)
    page.get_by_role("button", name="Send request").click()
    page.get_by_role("button", name="Stop").click()

    expect(page.locator("#answer")).to_have_text("Stopped.")
    endpoints.wait_for(lambda stats: stats.disconnects == 1)
    page.get_by_label("Request body, in JSON").press("Control+Enter")
    expect(page.locator("#answer .facts")).to_contain_text("200 OK")


def test_an_answer_that_comes_after_another_endpoint_is_shown_is_dropped(tab: Tab, endpoints: LocalEndpoints) -> None:
    """Another endpoint ends the request that runs, and its answer does not appear there."""
    endpoints.faults = Faults("drip", drip_s=30)
    page = tab.open(endpoints)
    page.get_by_role("button", name="Send request").click()
    expect(page.locator("#answer .facts")).to_contain_text("200 OK")
    page.locator("[data-endpoint=embed]").click()
    endpoints.wait_for(lambda stats: stats.disconnects == 1)

    expect(page.get_by_role("button", name="Send request")).to_be_enabled()
    expect(page.locator("#answer")).to_have_text("Send the request, and its answer appears here.")


def test_numbers_stay_as_they_were_written(tab: Tab, endpoints: LocalEndpoints) -> None:
    """Formatting and the option to stream keep every digit of a long seed, and the decimals of a number."""
    page = tab.open(endpoints)
    editor = page.get_by_label("Request body, in JSON")
    editor.fill('{"seed": 9007199254740993, "temperature": 1.0}')
    page.get_by_role("button", name="Format").click()
    page.get_by_label("Stream the answer").check()

    expect(editor).to_have_value('{\n  "seed": 9007199254740993,\n  "temperature": 1.0,\n  "stream": true\n}')
    editor.fill("[1]")
    expect(page.get_by_label("Stream the answer")).not_to_be_checked()


def test_each_endpoint_keeps_its_text(tab: Tab, endpoints: LocalEndpoints) -> None:
    """What was typed for an endpoint is there again when it is shown again; "Show example" replaces it."""
    page = tab.open(endpoints)
    editor = page.get_by_label("Request body, in JSON")
    editor.fill(HELLO)
    page.locator("[data-endpoint=embed]").click()
    expect(page.get_by_label("Stream the answer")).to_be_hidden()
    page.locator("[data-endpoint=chat]").click()

    expect(editor).to_have_value(HELLO)
    page.get_by_role("button", name="Show example").click()
    assert "What is Apache Spark?" in editor.input_value()


# --- Bad answers and bad requests ---


STRANGE = {
    "garbage": "\ufffd{not json",
    "html": "<h1>Bad Gateway</h1>",
    "errorbody": '"error_code": "INTERNAL_ERROR"',
    "empty": '"finish_reason": "length"',
}


def test_a_strange_answer_is_shown_as_text(tab: Tab, endpoints: LocalEndpoints) -> None:
    """A body that is no JSON, a page, or an answer without an answer is shown as text, with its status."""
    page = tab.open(endpoints)
    for fault, shown in STRANGE.items():
        endpoints.reset()
        endpoints.faults = Faults(fault)
        tab.send(HELLO)

        assert "200 OK" == tab.fact("Status")
        expect(page.get_by_label("Response body", exact=True)).to_contain_text(shown)
        expect(page.locator("#answer h1")).to_have_count(0)


def test_an_answer_that_breaks_off_is_not_taken_for_one(tab: Tab, endpoints: LocalEndpoints) -> None:
    """A cut answer shows its status, and that it is not whole."""
    tab.expected = ["ERR_CONTENT_LENGTH_MISMATCH", "ERR_CONNECTION_RESET"]
    endpoints.faults = Faults("cut")
    page = tab.open(endpoints)
    tab.send(HELLO)

    expect(page.locator("#answer .problem")).to_contain_text("No whole answer came")
    assert "200 OK" == tab.fact("Status")


def test_every_reply_is_shown_as_text_with_the_reason_of_its_end(tab: Tab, endpoints: LocalEndpoints) -> None:
    """With `n`, each reply is shown; one that was cut says so; markup in it becomes no part of the page."""
    page = tab.open(endpoints)
    tab.send(json.dumps(chat_body("<img src=x onerror=alert(1)> <b>bold</b>", n=2, max_tokens=2)))

    expect(page.locator(".reply")).to_have_text(["<img src=xfinish_reason: length"] * 2)
    expect(page.locator("#answer img, #answer b")).to_have_count(0)


PASTE = """{{
    const clipboardData = new DataTransfer();
    clipboardData.setData("text/plain", {});
    const area = document.getElementById("body");
    area.select();
    area.dispatchEvent(new ClipboardEvent("paste", {{ clipboardData, cancelable: true }}));
}}"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("text", "status"),
    [
        ("'['.repeat(5e6) + ']'.repeat(5e6)", "400 Bad Request"),
        ("(' '.repeat(99) + '\\n').repeat(17e4) + '{}'", "413 Request Entity Too Large"),
    ],
    ids=["10 MB nested", "17 MB"],
)
def test_a_request_that_is_too_deep_or_too_large_is_refused_by_the_server(
    tab: Tab, endpoints: LocalEndpoints, text: str, status: str
) -> None:
    """The page sends it, shows the refusal, and stays usable; it is not shown as code."""
    tab.expected = ["status of 4"]
    page = tab.open(endpoints)
    page.evaluate(PASTE.format(text))
    expect(page.locator("#body-note")).to_contain_text("only the beginning is shown")
    tab.send()
    assert status == tab.fact("Status")
    page.get_by_role("tab", name="Use in code").click()
    expect(page.locator("#snippets")).to_have_text("The request is too long to be shown as code.")
    page.get_by_role("tab", name="Query").click()
    page.get_by_role("button", name="Show example").click()
    tab.send()
    assert "200 OK" == tab.fact("Status")


def test_an_endpoint_that_stops_is_shown(tab: Tab, endpoints: LocalEndpoints) -> None:
    """A request to an endpoint that stopped while the page was open shows the service's words."""
    tab.expected = ["status of 400"]
    page = tab.open(endpoints)
    endpoints.set_ready("chat", False)
    expect(page.locator("#endpoint-facts")).to_contain_text("Stopped")
    tab.send()

    assert "400 Bad Request" == tab.fact("Status")
    expect(page.get_by_label("Response body", exact=True)).to_contain_text("The given endpoint is stopped")


def test_a_server_that_stops_and_starts_again_is_shown(tab: Tab, endpoints: LocalEndpoints) -> None:
    """A request fails with a sentence, the bar says so, and the page connects by itself when the server is back."""
    tab.expected = ["ERR_CONNECTION", "ERR_INCOMPLETE_CHUNKED", "ERR_EMPTY_RESPONSE"]
    page = tab.open(endpoints)
    expect(page.locator("#connection")).to_have_text("Connected")
    endpoints.stop()
    page.get_by_role("button", name="Send request").click()

    expect(page.locator("#answer")).to_have_text("No whole answer came: the connection to the server broke.")
    expect(page.locator("#connection")).to_have_text("Not connected")
    endpoints.start()
    expect(page.locator("#connection")).to_have_text("Connected")
    tab.send()
    assert "200 OK" == tab.fact("Status")
    endpoints.stop()
    port = int(endpoints.url.rpartition(":")[2])
    with LocalEndpoints({"other": Echo()}, token=endpoints.token, port=port):
        expect(page.get_by_role("heading", level=1)).to_have_text("other")
        tab.close()


def test_a_stream_that_ends_with_an_error_says_so(tab: Tab) -> None:
    """An error in the middle of a stream is shown beside the text that came."""

    class Breaking(Echo):
        async def stream(self, request: ChatRequest | CompletionRequest) -> AsyncGenerator[Piece, None]:
            yield Piece("first", Usage(1, 1))
            raise RuntimeError("broken")

        async def chat(self, request: ChatRequest) -> Texts:
            raise NotImplementedError

    with LocalEndpoints({"chat": ServingEndpoint(Breaking(), tasks=["chat"])}) as endpoints:
        page = tab.open(endpoints)
        tab.send(json.dumps(chat_body("a", stream=True)))

        expect(page.locator(".reply")).to_have_text("first")
        expect(page.locator("#answer .problem")).to_have_text(
            "The stream ended with an error: The model failed on this request."
        )
        tab.close()
