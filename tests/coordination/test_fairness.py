"""Who gives back a permit that another worker needs."""

import pytest

from spark_llm.coordination.fairness import ROTATION_S, MemberState, Rotation
from spark_llm.flow.limiter import Permit

PERMIT = Permit(0.0, 1, 0, 0, False, 0, 0.0)


def members(*out: int) -> dict[int, MemberState]:
    """Return members that have so many permits; each was served as often as its key says."""
    return {key: MemberState(dict.fromkeys(range(count), PERMIT), key, 0.0) for key, count in enumerate(out)}


@pytest.mark.parametrize(
    ("out", "excess", "needy", "asked"),
    [
        ((5, 5), 0, [3], {0, 1}),  # each that has two more
        ((5, 3), 0, [2], {0}),
        ((5, 5), -1, [0], set()),  # there is room
        ((5, 5), 0, [], set()),  # nobody needs one
        ((1, 1), 0, [0], {0, 1}),  # who has none waits for nobody
        ((5, 5), 3, [], {0, 1}),
        ((1, 0), 9, [], {0}),
        ((), 2, [0], set()),
    ],
)
def test_members_that_have_more_are_asked(out: tuple[int, ...], excess: int, needy: list[int], asked: set[int]) -> None:
    """Permits come back where the window was cut, or where another worker has two fewer, or none."""
    assert asked == Rotation().ask_back(members(*out), excess, needy, 1.0)


def test_a_window_that_was_cut_takes_back_what_is_beyond_it_once() -> None:
    """Of 10 permits 4 are beyond the window: 4 are asked for, two of each member, and not again."""
    held, rotation = members(5, 5), Rotation()

    assert {0, 1} == rotation.ask_back(held, 4, [], 1.0)
    assert set() == rotation.ask_back(held, 4, [], 1.1)
    assert [2, 2] == [member.to_return for member in held.values()]


def test_a_member_is_asked_for_one_permit_at_a_time() -> None:
    """Its requests may take long; the others are asked as well."""
    held, rotation = members(9, 9), Rotation()
    rotation.ask_back(held, 0, [1], 1.0)
    held[1].out.popitem()
    held[1].returned += 1

    assert {1} == rotation.ask_back(held, 0, [1], 1.1)


def test_the_one_permit_more_goes_round() -> None:
    """Where 5 permits have 3 workers, the member that was served most gives one back from time to time."""
    held, rotation = members(2, 2), Rotation()

    assert {1} == rotation.ask_back(held, 0, [1], 1.0)
    assert set() == rotation.ask_back(held, 0, [1], 1.0 + ROTATION_S / 2)
    assert {0} == rotation.ask_back(held, 0, [1], 1.0 + ROTATION_S)
