"""Scripts of faults: their syntax, and the fault of each request."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spark_llm.serving import Fault, Faults, Refused
from spark_llm.serving.http.responses import error_response
from spark_llm.serving.scenario.faults import KINDS, MISBEHAVIOURS, REFUSALS

_WAITS = st.sampled_from(["1", "1.5", "250ms", "+2", "soon"])
_IN_BODY = [kind for kind, refusal in REFUSALS.items() if refusal.has_wait_in_body]
_FAULTS = (
    st.builds(Fault, st.sampled_from([kind for kind in REFUSALS if kind not in _IN_BODY]), st.none() | _WAITS)
    | st.builds(Fault, st.sampled_from(_IN_BODY), st.none() | st.sampled_from(["1", "1.5"]))
    | st.builds(Fault, st.sampled_from(["ok", *MISBEHAVIOURS]))
)
_STEPS = st.lists(st.tuples(_FAULTS, st.integers(1, 4)), max_size=8)


@given(steps=_STEPS)
def test_a_script_gives_each_request_its_fault(steps: list[tuple[Fault, int]]) -> None:
    """Each request gets the fault of its place in the script, and later ones are answered."""
    faults = Faults(" ".join(f"{fault}*{count}" for fault, count in steps))
    expected = [fault for fault, count in steps for _ in range(count)]

    assert [*expected, Fault(), Fault()] == [faults.at(number) for number in range(len(expected) + 2)]


@given(steps=_STEPS)
def test_a_script_can_be_parsed_from_its_text(steps: list[tuple[Fault, int]]) -> None:
    """A script equals the one parsed from its text."""
    faults = Faults(" ".join(f"{fault}*{count}" if count > 1 else f" {fault} " for fault, count in steps))

    assert faults == Faults(str(faults))


@given(steps=_STEPS.filter(bool), number=st.integers(0, 10**12))
def test_a_cycle_begins_again(steps: list[tuple[Fault, int]], number: int) -> None:
    """With `cycle`, a request gets the fault of the request one script length earlier."""
    faults = Faults(" ".join(f"{fault}*{count}" for fault, count in steps), cycle=True)

    assert faults.at(number) == faults.at(number + sum(count for _, count in steps))


def test_a_script_has_one_shortest_form() -> None:
    """Equal neighbours become one step, so scripts with the same effect are equal."""
    assert "429*3 429@1*2 ok*1000000000" == str(Faults("429 429*2   429@1 429@1*1 ok*999999999 ok"))
    assert Faults("429*2") == Faults(" 429 429 ")


@pytest.mark.parametrize("step", ["429*0", "429*", "429@", "@1", "*2", "429@1@2", "429*2*3", "429@1*x", "429@a*b*1"])
def test_an_invalid_step_raises(step: str) -> None:
    """An invalid step is named, with the valid forms."""
    with pytest.raises(ValueError, match="Hint: write it as 429"):
        Faults(f"ok {step}")


def test_an_unknown_kind_raises_with_the_known_ones() -> None:
    """An unknown kind raises an error that lists all kinds."""
    with pytest.raises(ValueError, match=r"unknown fault 'hung'\. Hint: choose one of ok, 400") as error:
        Faults("hung")

    assert all(kind in str(error.value) for kind in KINDS)


@pytest.mark.parametrize("script", ["ok@1", "hang@1", "cut@2"])
def test_only_a_refusal_has_a_wait(script: str) -> None:
    """A Retry-After on any other fault raises."""
    with pytest.raises(ValueError, match="has no Retry-After"):
        Faults(script)


@pytest.mark.parametrize("step", ["429body@soon", "429body@250ms", "429body@nan", "429@+soon", "503@+inf", "503@+-5"])
def test_a_wait_that_must_be_a_number_is_one(step: str) -> None:
    """A wait in a body, or as a date, is checked when the script is built."""
    with pytest.raises(ValueError, match=r"is not a number of seconds\. Hint: "):
        Faults(f"ok {step}")


@given(wait=st.text() | st.floats().map(str) | st.floats().map("+{}".format))
def test_a_valid_wait_fits_into_a_header(wait: str) -> None:
    """A fault either raises for its wait, or has a response that can carry it."""
    for kind in ("429", "429body"):
        try:
            fault = Fault(kind, wait)
        except ValueError:
            continue
        assert fault.refusal is not None
        refused = error_response(Refused(fault.refusal, retry_after=fault.retry_after), "databricks")
        assert all(value.isprintable() and value.isascii() for value in refused.headers.values())
        assert b"null" not in refused.body


@pytest.mark.waits
def test_random_faults_repeat_with_the_seed() -> None:
    """Random faults depend on seed and number alone, and have the frequency of their rates."""
    rates = {"503": 0.05, "429@1": 0.02, "cut": 0.01}
    drawn = [Faults.random(rates, seed=7).at(number) for number in range(10_000)]
    counts = Counter(str(fault) for fault in drawn)

    assert drawn == [Faults.random(rates, seed=7).at(number) for number in range(10_000)]
    assert drawn != [Faults.random(rates, seed=8).at(number) for number in range(10_000)]
    assert {"ok": 0.92, **rates} == {kind: pytest.approx(count / 10_000, abs=0.01) for kind, count in counts.items()}


@pytest.mark.parametrize(
    "rates", [{"503": 1.5}, {"503": -0.1}, {"503": 0.6, "cut": 0.6}, {"503*2": 0.1}, {"503 ok": 0.1}]
)
def test_invalid_rates_raise(rates: dict[str, float]) -> None:
    """Rates are shares of 1, each for a single fault."""
    with pytest.raises(ValueError, match="Hint: "):
        Faults.random(rates, seed=1)


@pytest.mark.parametrize("options", [{"poison": ""}, {"poison": "x", "poison_as": "hang"}, {"poison_as": "40"}])
def test_an_invalid_poison_raises(options: dict[str, str]) -> None:
    """`poison` must not be empty, and `poison_as` must be a refusal."""
    with pytest.raises(ValueError, match="Hint: "):
        Faults(**options)  # type: ignore[arg-type]


@pytest.mark.parametrize("drip_s", [-0.1, float("inf"), float("nan")])
def test_drip_s_is_a_finite_time(drip_s: float) -> None:
    """A dripping answer ends, so its time must be finite and not negative."""
    with pytest.raises(ValueError, match="Hint: half a second"):
        Faults("drip", drip_s=drip_s)


@pytest.mark.parametrize("step", ["503*2", "429 503", "", "@1", "hung"])
def test_parse_takes_a_single_fault(step: str) -> None:
    """`Fault.parse` takes one known kind, with its wait and without a count."""
    assert Fault("429", "1.5") == Fault.parse("429@1.5")
    with pytest.raises(ValueError, match="Hint: "):
        Fault.parse(step)
