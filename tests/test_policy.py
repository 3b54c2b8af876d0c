"""The policy: which values are allowed, and which are refused when it is built."""

import math
import pickle
from dataclasses import FrozenInstanceError, replace
from pathlib import PurePosixPath
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spark_llm.errors import ConfigError
from spark_llm.policy import Policy


def test_the_defaults_are_the_documented_ones() -> None:
    """A policy without arguments has these values."""
    policy = Policy()

    assert (None, None, None, None, None, None, None, None, None) == (
        policy.timeout_s,
        policy.batch_size,
        policy.max_request_mb,
        policy.max_in_flight,
        policy.requests_per_minute,
        policy.tokens_per_minute,
        policy.max_failure_rate,
        policy.dedupe,
        policy.cache,
    )
    assert (1, 120, 4, 600, "row") == (
        policy.tasks,
        policy.attempt_s,
        policy.max_tries,
        policy.give_up_after_s,
        policy.on_error,
    )
    assert 512 == policy.ceiling


@given(st.integers(1, 100_000), st.integers(1, 100_000))
def test_tasks_that_cannot_share_a_limit_have_their_parts(max_in_flight: int, tasks: int) -> None:
    """All tasks together stay within `max_in_flight`, unless there are more of them: each may send one request."""
    assert max(1, max_in_flight // tasks) == Policy(max_in_flight=max_in_flight, tasks=tasks).ceiling


@pytest.mark.parametrize(
    "field",
    [
        {"max_in_flight": 1},
        {"tasks": 64},
        {"requests_per_minute": 1},
        {"requests_per_minute": 0.5e9},
        {"tokens_per_minute": 1.0},
        {"tokens_per_minute": 30_000_000},
        {"max_failure_rate": 0.001},
        {"max_failure_rate": 1},
        {"dedupe": True},
        {"dedupe": False},
        {"cache": "answers"},
        {"cache": "C:\\answers"},
        {"timeout_s": 0.001},
        {"timeout_s": 600},
        {"max_tries": 1},
        {"give_up_after_s": 0},
        {"batch_size": 100_000},
        {"max_request_mb": 0.001},
        {"max_request_mb": 16},
        {"on_error": "raise"},
    ],
)
def test_values_in_range_are_kept(field: dict[str, Any]) -> None:
    """The bounds themselves are allowed."""
    policy = Policy(**field)

    assert field == {name: getattr(policy, name) for name in field}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("max_in_flight", value) for value in (0, -1, 1.5, "8", True, math.inf)),
        *(("tasks", value) for value in (0, -1, 2.0, "8", True, None)),
        *(("requests_per_minute", value) for value in (0, 0.9, -1, math.nan, math.inf, "60", True)),
        *(("tokens_per_minute", value) for value in (0, 0.9, -1, math.nan, math.inf, "60", True)),
        *(("max_failure_rate", value) for value in (0, 0.0009, 1.1, 5, math.nan, "5 %", True)),
        *(("dedupe", value) for value in ("yes", "", 2, math.nan)),
        *(
            ("cache", value)
            for value in ("", " ", "a\0b", b"folder", True, 7, ["folder"], "dbfs:/answers", "s3://answers")
        ),
        *(("max_tries", value) for value in (0, -1, 4.0, "4", False, None)),
        *(("batch_size", value) for value in (0, -1, 100_001, 64.0, "64", True)),
        *(("max_request_mb", value) for value in (0, -1, math.nan, math.inf, "4", True)),
        *(("timeout_s", value) for value in (0, 0.0, -1, math.nan, math.inf, "120", True)),
        *(("give_up_after_s", value) for value in (-0.1, math.nan, math.inf, "600", False, None)),
        *(("on_error", value) for value in ("ignore", "", None, True, ["row"])),
    ],
)
def test_wrong_values_are_refused(name: str, value: object) -> None:
    """The error names the field and its value, and ends in a hint."""
    arguments: dict[str, Any] = {name: value}
    with pytest.raises(ConfigError, match=rf"{name}=.* Hint: .+\."):
        Policy(**arguments)


@pytest.mark.parametrize("value", [0, 1, 0.0, 1.0])
def test_dedupe_is_a_boolean_and_not_a_number(value: float) -> None:
    """0 and 1 are refused, as True is refused for a number."""
    arguments: dict[str, Any] = {"dedupe": value}
    with pytest.raises(ConfigError, match=r"dedupe=.* Hint: .+\."):
        Policy(**arguments)


@pytest.mark.parametrize(
    ("given", "tier", "seconds"),
    [
        *[(None, tier, 120) for tier in (None, "auto", "default", "priority", "Flex", 5, ["flex"])],
        (None, "flex", 900),
        *[(seconds, tier, seconds) for seconds in (120, 120.0, 30, 3_600) for tier in (None, "flex")],
    ],
)
def test_the_flex_tier_has_a_time_out_of_its_own_where_the_user_set_none(
    given: float | None, tier: object, seconds: float
) -> None:
    """120 s that the user wrote stay 120 s, and nothing else changes."""
    policy = Policy(timeout_s=given, max_tries=2)
    timed = policy.for_tier(tier)

    assert seconds == timed.attempt_s
    assert replace(policy, timeout_s=timed.timeout_s) == timed
    assert (given, Policy(timeout_s=120)) == (policy.timeout_s, Policy(timeout_s=120).for_tier("flex"))


def test_a_cache_folder_may_be_a_path() -> None:
    """It is kept as a string, so that both policies are equal; the disk is not read."""
    assert Policy(cache="/nowhere/answers") == Policy(cache=PurePosixPath("/nowhere/answers"))
    assert "/nowhere/answers" == Policy(cache=PurePosixPath("/nowhere/answers")).cache


def test_a_cache_needs_dedupe() -> None:
    """With a cache equal rows share an answer, so `dedupe=False` is refused."""
    with pytest.raises(ConfigError, match=r"cache=…, dedupe=False\).* Hint: .+\."):
        Policy(cache="answers", dedupe=False)
    assert "answers" == Policy(cache="answers", dedupe=True).cache


def test_an_unknown_argument_is_refused() -> None:
    """There is no `**kwargs`; the hint is the most similar name."""
    with pytest.raises(
        TypeError, match=r"^Policy has no argument 'max_inflight'\. Hint: did you mean 'max_in_flight'\?$"
    ):
        Policy(max_inflight=8)  # type: ignore[call-arg]


def test_a_policy_is_frozen_picklable_and_hashable() -> None:
    """Workers find their engine by an equal policy."""
    policy = Policy(max_in_flight=8, tasks=2, cache="answers")
    copy = pickle.loads(pickle.dumps(policy))  # noqa: S301 -- our own bytes

    assert policy == copy
    assert {policy: "engine"}[copy] == "engine"
    with pytest.raises(FrozenInstanceError):
        policy.tasks = 3  # type: ignore[misc]


def test_equal_limits_are_one_limit() -> None:
    """Workers share by the limits' text, so 60 and 60.0 have to be written alike."""
    whole, decimal = Policy(requests_per_minute=60, tokens_per_minute=900), Policy(requests_per_minute=60.0)

    assert repr(whole.requests_per_minute) == repr(decimal.requests_per_minute)
    assert isinstance(whole.tokens_per_minute, float)
