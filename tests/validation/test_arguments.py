"""Calls whose arguments do not fit: the error names the argument, and ends in a hint."""

import inspect
import pickle

import pytest

from spark_llm.errors import ArgumentError, InputTypeError
from spark_llm.validation.arguments import checks_arguments


@checks_arguments
def area(shape: object, *, width: float, height: float = 1.0) -> float:
    """Return an area."""
    if shape is None:
        raise InputTypeError("This is no shape.", "draw one.")
    return len(shape) * width * height  # type: ignore[arg-type]  # a mistake


@checks_arguments
class Shape:
    """A shape."""

    def __init__(self, name: str) -> None:
        """Name it."""
        self.name = name

    @checks_arguments
    def __call__(self, size: float) -> float:
        """Return the size."""
        return size


@pytest.mark.parametrize(
    ("call", "expected"),
    [
        (lambda: area("box", widht=3), "area has no argument 'widht'. Hint: did you mean 'width'?"),  # type: ignore[call-arg]
        (lambda: area(x=3), "area has no argument 'x'. Hint: the arguments are shape, width, height."),  # type: ignore[call-arg]
        (
            lambda: area("box"),  # type: ignore[call-arg]
            "area: missing a required argument: 'width'. Hint: the arguments are shape, width, height.",
        ),
        (
            lambda: area("box", 3),  # type: ignore[call-arg]
            "area: too many positional arguments. Hint: the arguments are shape, width, height.",
        ),
        (lambda: Shape(nam="box"), "Shape has no argument 'nam'. Hint: did you mean 'name'?"),  # type: ignore[call-arg]
        (lambda: Shape(), "Shape: missing a required argument: 'name'. Hint: the arguments are name."),  # type: ignore[call-arg]  # noqa: PLW0108 -- it is called later
        (
            Shape("box"),
            "Shape: missing a required argument: 'size'. Hint: the arguments are size.",
        ),
    ],
)
def test_arguments_that_do_not_fit_are_named(call: object, expected: str) -> None:
    """The most similar name is the hint; without one it lists them all."""
    assert callable(call)
    with pytest.raises(ArgumentError) as raised:
        call()

    assert expected == str(raised.value)


def test_other_errors_pass_through() -> None:
    """A `TypeError` in the function is not about its arguments' names."""
    with pytest.raises(TypeError, match="has no len"):
        area(7, width=3)
    with pytest.raises(InputTypeError, match="no shape"):
        area(None, width=3)


def test_nothing_else_changes() -> None:
    """Results, signatures, names and pickles are as without it."""
    assert 18 == area("box", width=3, height=2)
    assert ["shape", "width", "height"] == list(inspect.signature(area).parameters)
    assert ["name"] == list(inspect.signature(Shape).parameters)
    assert ("area", "Return an area.") == (area.__name__, area.__doc__)
    assert area is pickle.loads(pickle.dumps(area))  # noqa: S301 -- our own bytes
    assert "box" == pickle.loads(pickle.dumps(Shape("box"))).name  # noqa: S301 -- our own bytes
