"""The arguments of a script of batches."""

from collections.abc import Callable

import pytest

from spark_llm.serving import Batches


@pytest.mark.parametrize(
    ("make", "hint"),
    [
        (lambda: Batches(requests_per_s=0), "give more than 0"),
        (lambda: Batches(requests_per_s=float("nan")), "give more than 0"),
        (lambda: Batches(start_after_s=-1), "give 0 or more"),
        (lambda: Batches(max_requests=0), "give 1 or more"),
        (lambda: Batches(enqueued_tokens=-1), "give 0 or more"),
        (lambda: Batches(expire_after={-1: 0}), "give 0 or more"),
        (lambda: Batches(stall_after={0: -1}), "give 0 or more"),
        (lambda: Batches(lose_after={0: -1}), "give 0 or more"),
        (lambda: Batches(fail={0: ""}), "write it as"),
        (lambda: Batches(fail={0: "code@x"}), "write it as"),
        (lambda: Batches(fail={-1: "code"}), "write it as"),
    ],
)
def test_invalid_scripts_raise(make: Callable[[], object], hint: str) -> None:
    """Numbers that are out of range, and errors that cannot be read, raise with a hint."""
    with pytest.raises(ValueError, match=f"Hint: .*{hint}"):
        make()


def test_a_failure_has_a_line_or_none() -> None:
    """`CODE@LINE` names a line."""
    script = Batches(fail={0: "invalid_json_line@3", 2: "token_limit_exceeded"})

    assert [("invalid_json_line", 3), None, ("token_limit_exceeded", None)] == [script.failure(n) for n in range(3)]
