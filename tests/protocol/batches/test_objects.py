"""Batches and files as servers describe them: no document raises, and every field has its type."""

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from spark_llm.protocol.batches.objects import is_quota_message, read_batch, read_batches, read_file, read_files
from tests.support.strategies import REPLIES

FIELDS = (
    *("id", "status", "data", "value", "object", "has_more", "last_id", "job", "errors", "error", "code", "message"),
    *("input_file_id", "input_files", "output_file_id", "error_file_id", "metadata", "spark_llm_key", "line"),
    *("request_counts", "total", "completed", "failed", "created_at", "completed_at", "filename"),
)
NAMES = st.sampled_from(FIELDS)
DOCUMENTS = st.recursive(
    REPLIES | st.sampled_from(["completed", "SUCCESS", "2024-07-19T17:13:57.24+00:00", "9999-99-99T99:99:99Z", 1e300]),
    lambda inner: st.dictionaries(NAMES, inner, max_size=8) | st.lists(inner, max_size=3),
    max_leaves=20,
)


@given(DOCUMENTS)
def test_no_document_raises(document: Any) -> None:  # noqa: ANN401 -- any JSON
    """What is read has the types that it says."""
    body = json.dumps(document).encode("utf-8", "surrogatepass")
    batch, page, file, files = read_batch(body), read_batches(body), read_file(body), read_files(body)
    for each in (*([batch] if batch else ()), *(page.batches if page else ())):
        assert each.id
        assert isinstance(each.ended, bool)
        assert isinstance(each.is_quota, bool)
        assert all(isinstance(count, int) and count >= 0 for count in (each.total, each.completed, each.failed))
        assert all(isinstance(problem.code, str) and isinstance(problem.message, str) for problem in each.problems)
        assert each.created_at is None or isinstance(each.created_at, float)
        assert all(name is None or name for name in (each.key, each.input_file_id, each.output_file_id))
    for found in (*([file] if file else ()), *(files.files if files else ())):
        assert found.id
        assert isinstance(found.name, str)


@given(st.binary(max_size=100))
def test_other_bytes_are_nothing(body: bytes) -> None:
    """Neither do they raise."""
    assert [None] * 2 == [read_batch(body), read_file(body)]


def test_a_quota_is_known_by_its_message() -> None:
    """In the words of OpenAI, Azure and gateways; the quota of an account is another thing."""
    assert is_quota_message("token_limit_exceeded")
    assert is_quota_message("Enqueued token limit reached for gpt-5-mini")
    assert is_quota_message("Error code: batch_limit_exceeded")
    assert not is_quota_message("You exceeded your current quota, please check your plan and billing details.")
    assert not is_quota_message("This model's maximum context length is 8192 tokens")
