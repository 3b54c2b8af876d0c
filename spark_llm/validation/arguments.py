"""Arguments of public callables: an unknown one is an error that ends in the name which is most like it."""

from collections.abc import Callable, Mapping
from functools import wraps
from inspect import Signature, signature
from typing import Any, TypeVar, cast

from spark_llm.errors import ArgumentError
from spark_llm.validation.suggestion import did_you_mean

Call = TypeVar("Call", bound=Callable[..., Any])


def checks_arguments(call: Call) -> Call:
    """Decorate a function or a class: calls whose arguments do not fit its signature raise `ArgumentError`.

    Signature, type and pickling stay as they are. Arguments that fit are not looked at, so they cost nothing.

    >>> @checks_arguments
    ... def area(*, width: float, height: float) -> float: ...
    >>> area(widht=3, height=4)
    ArgumentError: area has no argument 'widht'. Hint: did you mean 'width'?
    """
    if isinstance(call, type):
        call.__init__ = checks_arguments(call.__init__)  # type: ignore[misc]  # of the class, not of an instance
        return call

    @wraps(call)
    def checked(*arguments: object, **named: object) -> object:
        try:
            return call(*arguments, **named)
        except TypeError:
            expected = signature(call)
            try:
                expected.bind(*arguments, **named)
            except TypeError as misfit:
                raise _error(_name(call), expected, named, misfit) from None
            raise  # it is not about these arguments

    return cast("Call", checked)


def _name(call: Callable[..., Any]) -> str:
    """Return the name of a function, or of the class whose constructor or instance is called."""
    return call.__qualname__.removesuffix(".__init__").removesuffix(".__call__")


def _error(name: str, expected: Signature, named: Mapping[str, object], misfit: TypeError) -> ArgumentError:
    known = [each for each in expected.parameters if each not in ("self", "cls")]
    listed = f"the arguments are {', '.join(known)}."
    for given in named:
        if given not in known:
            return ArgumentError(f"{name} has no argument {given!r}.", did_you_mean(given, known, otherwise=listed))
    return ArgumentError(f"{name}: {misfit}.", listed)
