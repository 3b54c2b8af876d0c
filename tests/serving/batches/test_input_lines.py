"""What is wrong with the lines of an input file."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spark_llm.serving.batches.input_lines import MAX_ERRORS, BatchError, InputCheck, read_line
from tests.support.batch_files import CHAT, chat_line, jsonl, line

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda each: st.lists(each, max_size=3) | st.dictionaries(st.text(), each, max_size=3),
    max_leaves=8,
)
FIELDS = st.sampled_from(["custom_id", "method", "url", "body"])


def checked(content: bytes, *, max_requests: int = 50_000, endpoint: str = CHAT, is_azure: bool = False) -> InputCheck:
    """Return the check of a file for endpoints that serve "chat" and "other"."""
    check = InputCheck(endpoint, lambda name: name in ("chat", "other"), max_requests, is_azure)
    start = 0
    for raw in content.splitlines(keepends=True):
        check.add(raw, start)
        start += len(raw)
    return check


def errors(content: bytes, **options: Any) -> list[BatchError]:  # noqa: ANN401 -- of `checked`
    """Return what is wrong with a file."""
    return checked(content, **options).end()


@given(
    st.lists(
        st.tuples(st.text(min_size=1), st.dictionaries(st.text(), JSON)), min_size=1, unique_by=lambda each: each[0]
    ),
    st.lists(st.sampled_from([b"\n", b"  \n", b""]), min_size=1, max_size=8),
)
def test_every_line_that_passes_can_be_read_at_its_place(
    requests: list[tuple[str, dict[str, Any]]], blanks: list[bytes]
) -> None:
    """Whatever else stands in the bodies: the starts lead to the lines, over blank ones, and the last has no end."""
    lines = [line(custom_id, {**body, "model": "chat", "stream": False}) for custom_id, body in requests]
    pieces = [jsonl([each]) + blanks[number % len(blanks)] for number, each in enumerate(lines)]
    content = b"".join(pieces).rstrip()
    check = InputCheck(CHAT, lambda name: name == "chat", 50_000)
    start = 0
    for raw in content.split(b"\n"):
        check.add(raw + b"\n", start)
        start += len(raw) + 1

    assert [] == check.end()
    assert "chat" == check.model
    found = [read_line(content[at:].split(b"\n")[0]) for at in check.starts]
    assert [custom_id for custom_id, _ in requests] == [each.custom_id for each in found]
    assert [json.dumps(each["body"]) for each in lines] == [json.dumps(json.loads(bytes(each.body))) for each in found]


@given(st.binary(max_size=300))
def test_no_bytes_break_the_check(content: bytes) -> None:
    """Each line is one that is asked, or has an error with its number; nothing raises."""
    check = checked(content)
    numbers = [error.line for error in check.errors]

    assert len(check.starts) >= len(numbers)
    assert numbers == sorted({number for number in numbers if number is not None})


@given(JSON, st.lists(FIELDS, max_size=4), JSON)
def test_a_line_of_any_json_is_told_what_it_lacks(whole: object, absent: list[str], value: object) -> None:
    """A line that is no request has one error; an absent or null field is named."""
    request = {name: each for name, each in chat_line("a", "b").items() if name not in absent}
    wrong = {**request, **({absent[0]: value} if absent and value is not None else {})}
    lines = [json.dumps(whole).encode() + b"\n", json.dumps(request).encode() + b"\n", json.dumps(wrong).encode()]
    first, *_ = errors(lines[0])
    found = errors(lines[1])
    errors(lines[2])

    assert 1 == first.line
    missing = [name for name in ("custom_id", "method", "url", "body") if name in absent]
    assert [(each, 1) for each in missing[:1]] == [(error.param, error.line) for error in found]
    assert all(error.code == "missing_required_parameter" for error in found)


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"", ("empty_file", "input_file_id", None)),
        (b"\n  \n", ("empty_file", "input_file_id", None)),
        (jsonl([chat_line("a", "x")]) + b"{nonsense\n", ("invalid_json_line", None, 2)),
        (b"[1]\n", ("invalid_json_line", None, 1)),
        (b'{"custom_id": "\xff"}\n', ("invalid_json_line", None, 1)),
        (
            jsonl([chat_line("a", "x"), chat_line("b", "x"), chat_line("a", "y")]),
            ("duplicate_custom_id", "custom_id", 3),
        ),
        (jsonl([line("a", {"model": "chat"}, "/v1/embeddings")]), ("invalid_url", "url", 1)),
        (jsonl([line("a", {"model": "chat"}, "/chat/completions")]), ("invalid_url", "url", 1)),
        (jsonl([chat_line("a", "x", stream=True)]), ("streaming_unsupported", "body.stream", 1)),
        (jsonl([chat_line("a", "x", stream=1)]), ("invalid_request", "body.stream", 1)),
        (jsonl([chat_line("a", "x", model=None)]), ("invalid_request", "body.model", 1)),
        (jsonl([chat_line("a", "x", model=1)]), ("invalid_request", "body.model", 1)),
        (jsonl([chat_line("a", "x", model="nobody")]), ("model_not_found", "body.model", 1)),
        (jsonl([chat_line("a", "x"), chat_line("b", "x", model="other")]), ("mismatched_model", "body.model", 2)),
        (jsonl([{**chat_line("a", "x"), "method": "GET"}]), ("invalid_request", "method", 1)),
        (jsonl([{**chat_line("a", "x"), "custom_id": 1}]), ("invalid_request", "custom_id", 1)),
        (jsonl([{**chat_line("a", "x"), "body": []}]), ("invalid_request", "body", 1)),
        (jsonl([chat_line(str(number), "x") for number in range(4)]), ("too_many_tasks", None, None)),
    ],
)
def test_a_wrong_file_has_its_code(content: bytes, expected: tuple[str, str | None, int | None]) -> None:
    """The code, the field and the line are OpenAI's."""
    [error] = errors(content, max_requests=3)

    assert expected == (error.code, error.param, error.line)


def test_azure_has_codes_and_paths_of_its_own() -> None:
    """Its older paths leave out the version, and two codes have other names."""
    good = jsonl([line("a", {"model": "chat"}, "/chat/completions"), line("b", {"model": "chat"})])
    bad = jsonl(
        [line("a", {"model": "chat"}, "/embeddings"), line("b", {"model": "chat"}), chat_line("c", "", model="other")]
    )

    assert [] == errors(good, is_azure=True)
    assert [("url_mismatch", 1), ("model_mismatch", 3)] == [
        (each.code, each.line) for each in errors(bad, is_azure=True)
    ]


@pytest.mark.parametrize(("size", "codes"), [(3, []), (4, ["too_many_tasks"])])
def test_inputs_of_embeddings_are_counted(size: int, codes: list[str]) -> None:
    """Each input of each request counts; for other paths only the requests do."""
    inputs: list[object] = ["a", ["b"] * (size - 1)]
    lines = [
        line(str(number), {"model": "chat", "input": each}, "/v1/embeddings") for number, each in enumerate(inputs)
    ]
    others = [
        line(str(number), {"model": "chat", "input": each}, "/v1/responses") for number, each in enumerate(inputs)
    ]

    assert codes == [each.code for each in errors(jsonl(lines), max_requests=3, endpoint="/v1/embeddings")]
    assert [] == errors(jsonl(others), max_requests=3, endpoint="/v1/responses")


def test_a_check_ends_early_where_more_changes_nothing() -> None:
    """After 100 errors, or one request too many, the rest of the file need not be read."""
    many = checked(b"x\n" * (MAX_ERRORS + 1))
    long = checked(jsonl([chat_line(str(number), "x") for number in range(4)]), max_requests=3)

    assert (True, MAX_ERRORS) == (many.is_over, len(many.end()))
    assert long.is_over
    assert not checked(jsonl([chat_line("a", "x")])).is_over
