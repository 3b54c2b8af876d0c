"""Scripts of faults: how they are read, what they say of each request, and what it then meets on the wire."""

from collections import Counter
from email.utils import parsedate_to_datetime

import pytest
import requests
from hypothesis import given
from hypothesis import strategies as st

from spark_llm.serving import Fault, Faults
from spark_llm.serving.faults import KINDS, MISBEHAVIOURS, REFUSALS
from tests.serving.client import Client, conversation

CHAT = conversation("hello big world")

_WAITS = st.sampled_from(["1", "1.5", "250ms", "+2", "soon"])
_FAULTS = st.builds(Fault, st.sampled_from(list(REFUSALS)), st.none() | _WAITS) | st.builds(
    Fault, st.sampled_from(["ok", *MISBEHAVIOURS])
)
_STEPS = st.lists(st.tuples(_FAULTS, st.integers(1, 4)), max_size=8)


@given(steps=_STEPS)
def test_a_script_says_what_it_was_written_for(steps: list[tuple[Fault, int]]) -> None:
    """Each request meets the fault of its place in the script, and the ones after it are answered."""
    faults = Faults(" ".join(f"{fault}*{count}" for fault, count in steps))
    expected = [fault for fault, count in steps for _ in range(count)]

    assert [*expected, Fault(), Fault()] == [faults.at(number) for number in range(len(expected) + 2)]


@given(steps=_STEPS)
def test_a_script_survives_being_written_down(steps: list[tuple[Fault, int]]) -> None:
    """A script's text, read again, is the same script."""
    faults = Faults(" ".join(f"{fault}*{count}" if count > 1 else f" {fault} " for fault, count in steps))

    assert faults == Faults(str(faults))


@given(steps=_STEPS.filter(bool), number=st.integers(0, 10**12))
def test_a_cycle_begins_again(steps: list[tuple[Fault, int]], number: int) -> None:
    """With `cycle`, a request meets what the one a whole script earlier met."""
    faults = Faults(" ".join(f"{fault}*{count}" for fault, count in steps), cycle=True)

    assert faults.at(number) == faults.at(number + sum(count for _, count in steps))


def test_a_script_has_one_shortest_form() -> None:
    """Neighbours that are equal are written as one, so scripts that do the same are equal."""
    assert "429*3 429@1*2 ok*1000000000" == str(Faults("429 429*2   429@1 429@1*1 ok*999999999 ok"))
    assert Faults("429*2") == Faults(" 429 429 ")


@pytest.mark.parametrize("word", ["429*0", "429*", "429@", "@1", "*2", "429@1@2", "429*2*3", "429@1*x", "429@a*b*1"])
def test_a_word_of_no_known_form_is_refused(word: str) -> None:
    """A step that cannot be read is named, with the forms that can."""
    with pytest.raises(ValueError, match="Hint: write it as 429"):
        Faults(f"ok {word}")


def test_an_unknown_kind_is_refused_with_the_known_ones() -> None:
    """A word that no fault has raises an error that lists them all."""
    with pytest.raises(ValueError, match=r"No fault is named 'hung'\. Hint: the known ones are ok, 400") as error:
        Faults("hung")

    assert all(kind in str(error.value) for kind in KINDS)


@pytest.mark.parametrize("script", ["ok@1", "hang@1", "cut@2"])
def test_only_a_refusal_tells_a_wait(script: str) -> None:
    """A Retry-After on what is no refusal is a mistake."""
    with pytest.raises(ValueError, match="tells no Retry-After"):
        Faults(script)


def test_dice_fall_the_same_for_the_same_seed() -> None:
    """Random faults depend on seed and number alone, and come as often as their rates say."""
    rates = {"503": 0.05, "429@1": 0.02, "cut": 0.01}
    drawn = [Faults.random(rates, seed=7).at(number) for number in range(10_000)]
    counts = Counter(str(fault) for fault in drawn)

    assert drawn == [Faults.random(rates, seed=7).at(number) for number in range(10_000)]
    assert drawn != [Faults.random(rates, seed=8).at(number) for number in range(10_000)]
    assert {"ok": 0.92, **rates} == {kind: pytest.approx(count / 10_000, abs=0.01) for kind, count in counts.items()}


@pytest.mark.parametrize(
    "rates", [{"503": 1.5}, {"503": -0.1}, {"503": 0.6, "cut": 0.6}, {"503*2": 0.1}, {"503 ok": 0.1}]
)
def test_rates_that_are_no_shares_are_refused(rates: dict[str, float]) -> None:
    """Rates are shares of 1, each for one word."""
    with pytest.raises(ValueError, match="Hint: "):
        Faults.random(rates, seed=1)


@pytest.mark.parametrize("options", [{"poison": ""}, {"poison": "x", "poison_as": "hang"}, {"poison_as": "40"}])
def test_a_poison_that_means_nothing_is_refused(options: dict[str, str]) -> None:
    """The poison is a word, and what it comes to is a refusal."""
    with pytest.raises(ValueError, match="Hint: "):
        Faults(**options)  # type: ignore[arg-type]


# --- On the wire ---


@pytest.mark.parametrize(
    ("word", "status", "error_code", "code"),
    [
        ("400", 400, "INVALID_PARAMETER_VALUE", None),
        ("context", 400, "BAD_REQUEST", "context_length_exceeded"),
        ("guardrail", 400, "BAD_REQUEST", "content_filter"),
        ("401", 401, "UNAUTHENTICATED", "invalid_api_key"),
        ("403", 403, "PERMISSION_DENIED", None),
        ("403number", 403, 403, None),
        ("429", 429, "REQUEST_LIMIT_EXCEEDED", "rate_limit_exceeded"),
        ("quota", 429, "RESOURCE_EXHAUSTED", "insufficient_quota"),
        ("500", 500, "INTERNAL_ERROR", None),
        ("502", 502, "INTERNAL_ERROR", None),
        ("503", 503, "TEMPORARILY_UNAVAILABLE", None),
        ("504", 504, "TEMPORARILY_UNAVAILABLE", None),
    ],
)
def test_a_refusal_is_told_in_both_dialects(
    word: str, status: int, error_code: str | int, code: str | None, client: Client
) -> None:
    """A scripted refusal has its status and its code on either route, and costs no tokens."""
    client.endpoints.faults = Faults(f"{word}*2")
    databricks = client.say("a")
    openai = client.post("/v1/chat/completions", {**CHAT, "model": "chat"})

    assert (status, error_code) == (databricks.status_code, databricks.json()["error_code"])
    assert (status, code) == (openai.status_code, openai.json()["error"]["code"])
    assert databricks.json()["message"] == openai.json()["error"]["message"]
    assert "Retry-After" not in databricks.headers
    assert (2, 0, 0) == (
        client.endpoints.stats.requests,
        client.endpoints.stats.rows_answered,
        client.endpoints.stats.total_tokens,
    )


def test_the_wait_is_told_in_every_way_that_services_do(client: Client) -> None:
    """Retry-After comes as seconds, as milliseconds, as a date, or in the body."""
    client.endpoints.faults = Faults("429@1.5 503@250ms 429@+90 429body@15")
    seconds, milliseconds, date, body = (client.say("a") for _ in range(4))

    assert "1.5" == seconds.headers["Retry-After"]
    assert "250" == milliseconds.headers["retry-after-ms"]
    assert (
        0
        <= (parsedate_to_datetime(date.headers["Retry-After"]) - parsedate_to_datetime(date.headers["Date"])).seconds
        - 89
        <= 2
    )
    assert ("rate_limit_exceeded", 15.0) == (body.json()["error"]["type"], body.json()["error"]["retry_after"])


def test_a_cut_answer_ends_in_the_middle(client: Client) -> None:
    """A cut answer promises a length, brings half of it, and is no answered row."""
    client.endpoints.faults = Faults("cut")
    with pytest.raises((requests.ConnectionError, requests.exceptions.ChunkedEncodingError)):
        client.say("a b c")

    stats = client.endpoints.stats
    assert ({200: 1}, 0, 0, 0) == (stats.by_status, stats.rows_answered, stats.total_tokens, stats.disconnects)
    assert 200 == client.say("a").status_code


def test_garbage_and_pages_come_with_status_200(client: Client) -> None:
    """A 200 may hold bytes that are no JSON, or a proxy's page."""
    client.endpoints.faults = Faults("garbage html")
    garbage, page = client.say("a"), client.say("a")

    assert (200, "application/json") == (garbage.status_code, garbage.headers["Content-Type"])
    assert not garbage.content.isascii()
    assert (200, "text/html", "<!DOCTYPE") == (page.status_code, page.headers["Content-Type"], page.text[:9])
    assert (0, 0) == (client.endpoints.stats.rows_answered, client.endpoints.stats.total_tokens)


def test_an_empty_answer_is_billed(client: Client) -> None:
    """An empty text with finish_reason 'length' reports its tokens, and an empty list of vectors does too."""
    client.endpoints.faults = Faults("empty", cycle=True)
    chat = client.say("a b", n=2).json()
    text = client.ask("complete", {"prompt": "a"}).json()
    vectors = client.ask("embed", {"input": "a"}).json()

    assert [("", "length")] * 2 == [
        (choice["message"]["content"], choice["finish_reason"]) for choice in chat["choices"]
    ]
    assert [("", "length")] == [(choice["text"], choice["finish_reason"]) for choice in text["choices"]]
    assert [] == vectors["data"]
    assert 6 + 2 + 1 == client.endpoints.stats.total_tokens


def test_a_poisoned_input_spoils_its_request(client: Client) -> None:
    """One input with the word has the whole request refused, and only an input's word counts."""
    client.endpoints.faults = Faults(poison="cyanide", poison_as="context")

    clean, bad, alone = {"input": ["a", "b"]}, {"input": ["a", "some cyanide"]}, {"input": "cyanide"}
    elsewhere = {"input": "a", "user": "cyanide"}

    assert [200, 400, 400, 200] == [client.ask("embed", body).status_code for body in (clean, bad, alone, elsewhere)]
    assert 400 == client.ask("chat", conversation("a", "cyanide", "b")).status_code
