"""Pydantic models as output types; pydantic's own parsing is the reference."""

import json
import re
import subprocess
import sys
from collections.abc import Mapping, Sequence
from datetime import date, datetime, timedelta
from decimal import Decimal
from enum import Enum, IntEnum
from typing import Annotated, Any, Generic, Literal, NewType, Optional, TypeVar, Union
from uuid import UUID

import pydantic
import pytest
from annotated_types import Ge, Interval, Len, LowerCase, Predicate
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, Field
from typing_extensions import TypeAliasType

from spark_llm.errors import ConfigError
from spark_llm.protocol.structured.output import Mismatch, StructuredOutput
from spark_llm.protocol.structured.pydantic_models import is_model, shape_of_model
from spark_llm.protocol.structured.schema import Array, Enumeration, Map, Nullable, Number, Scalar, Shape, Struct
from spark_llm.protocol.structured.schema import Field as Part

T = TypeVar("T")


class Mood(Enum):
    """A docstring that is not sent."""

    GOOD = "good"
    BAD = "bad"
    FINE = "good"  # noqa: PIE796 -- an alias, which is no third value


class Stars(IntEnum):
    """Whole numbers."""

    ONE = 1
    TWO = 2


class Place(BaseModel):
    """A model inside a model."""

    city: str


class Box(BaseModel, Generic[T]):
    """A model of any type."""

    held: T


class Tree(BaseModel):
    """A model that contains itself."""

    children: "list[Tree]"


class Left(BaseModel):
    """A model that contains itself through another."""

    right: "Right | None"


class Right(BaseModel):
    """The other one."""

    left: Left


Score = NewType("Score", int)


def model(annotation: Any, field: Any = ...) -> type[BaseModel]:  # noqa: ANN401 -- any annotation, and a default
    """Return a model of one field `x`."""
    made: type[BaseModel] = pydantic.create_model("Model", x=(annotation, field))
    return made


def shape(annotation: Any, field: Any = ...) -> Shape:  # noqa: ANN401 -- as `model`
    """Return the shape of a field."""
    return shape_of_model(model(annotation, field)).fields[0].shape


TEXT, LONG = Scalar("string"), Scalar("long")


@pytest.mark.parametrize(
    ("annotation", "expected"),
    [
        (str, TEXT),
        (int, LONG),
        (float, Scalar("double")),
        (bool, Scalar("boolean")),
        (date, Scalar("date")),
        (datetime, Scalar("timestamp")),
        (pydantic.AwareDatetime, Scalar("timestamp")),
        (pydantic.NaiveDatetime, Scalar("timestamp_ntz")),
        (Decimal, Number(38, 18)),
        (Mood, Enumeration(("good", "bad"))),
        (Stars, Enumeration((1, 2))),
        (Literal["a", "b"], Enumeration(("a", "b"))),
        (Literal[2, 1], Enumeration((2, 1))),
        (Literal[Mood.BAD], Enumeration(("bad",))),
        (Literal["a", None], Nullable(Enumeration(("a",)))),  # noqa: PYI061 -- the other spelling is below
        (Literal["a"] | None, Nullable(Enumeration(("a",)))),
        (Optional[int], Nullable(LONG)),  # noqa: UP045 -- both spellings
        (int | None, Nullable(LONG)),
        (Optional[Annotated[int | None, "said beside it"]], Nullable(LONG)),  # noqa: UP045 -- both spellings
        (list[str], Array(TEXT)),
        (Sequence[str], Array(TEXT)),
        (set[int], Array(LONG)),
        (frozenset[int], Array(LONG)),
        (tuple[int, ...], Array(LONG)),
        (list[int | None], Array(Nullable(LONG))),
        (dict[str, int], Map(LONG)),
        (Mapping[Annotated[str, "a name"], list[int]], Map(Array(LONG))),
        (Place, Struct((Part("city", TEXT),))),
        (list[Place] | None, Nullable(Array(Struct((Part("city", TEXT),))))),
        (Box[int], Struct((Part("held", LONG),))),
        (Score, LONG),
        (TypeAliasType("Name", Annotated[str, Field(min_length=1)]), Scalar("string", (("min_length", 1),))),
        (pydantic.PositiveInt, Scalar("long", (("gt", 0),))),
        (pydantic.StrictStr, TEXT),
        (pydantic.FiniteFloat, Scalar("double")),
        (pydantic.constr(min_length=1, pattern="^a"), Scalar("string", (("min_length", 1), ("pattern", "^a")))),
        (pydantic.conint(ge=1, lt=5), Scalar("long", (("ge", 1), ("lt", 5)))),
        (pydantic.conlist(int, max_length=3), Array(LONG, (("max_length", 3),))),
        (pydantic.condecimal(max_digits=5, decimal_places=2), Number(5, 2)),
        (Annotated[int, Interval(ge=1, le=4)], Scalar("long", (("ge", 1), ("le", 4)))),
        (Annotated[list[int], Len(0, 2)], Array(LONG, (("max_length", 2),))),
        (list[Annotated[str, Field(min_length=2)]], Array(Scalar("string", (("min_length", 2),)))),
        (dict[str, Annotated[int, Ge(0)]], Map(Scalar("long", (("ge", 0),)))),
        (Annotated[int, pydantic.PlainSerializer(str)], LONG),
    ],
    ids=str,
)
def test_annotations_are_mapped_to_types(annotation: Any, expected: Shape) -> None:  # noqa: ANN401 -- any annotation
    """All spellings of a type that a column can hold are accepted."""
    assert expected == shape(annotation)


@pytest.mark.parametrize(
    ("annotation", "field", "expected"),
    [
        (int, Field(ge=0, lt=5), Scalar("long", (("ge", 0), ("lt", 5)))),
        (int | None, Field(None, gt=0, multiple_of=2), Nullable(Scalar("long", (("gt", 0), ("multiple_of", 2))))),
        (Annotated[int, Field(ge=5)], Field(ge=1), Scalar("long", (("ge", 5),))),
        (Annotated[int, Field(gt=1)] | None, Field(lt=4), Nullable(Scalar("long", (("gt", 1), ("lt", 4))))),
        (str, Field("none", max_length=3), Scalar("string", (("max_length", 3),))),
        (str, Field(pattern=re.compile("^a")), Scalar("string", (("pattern", "^a"),))),
        (float, Field(gt=0.5, allow_inf_nan=False), Scalar("double", (("gt", 0.5),))),
        (list[int], Field(min_length=1), Array(LONG, (("min_length", 1),))),
        (dict[str, int], Field(max_length=9), Map(LONG, (("max_length", 9),))),
        (Decimal, Field(decimal_places=2), Number(38, 2)),
        (Decimal, Field(max_digits=9, decimal_places=9, ge=Decimal("0.1")), Number(9, 9, (("ge", "0.1"),))),
        (str, Field(alias="y", validation_alias="z"), TEXT),
        (int, 7, LONG),
    ],
    ids=str,
)
def test_constraints_of_a_field_are_kept(annotation: Any, field: Any, expected: Shape) -> None:  # noqa: ANN401 -- as `model`
    """Of two bounds the narrower counts; a default changes nothing."""
    [part] = shape_of_model(model(annotation, field)).fields

    assert ("x", expected) == (part.name, part.shape)


def test_descriptions_are_kept() -> None:
    """They come from the field and from inside its annotation; docstrings are ignored."""

    class Review(BaseModel):
        """Not sent."""

        mood: Mood = Field(description="How it sounds")
        stars: Annotated[int, Field(description="1 to 5")]
        topics: list[Annotated[str, Field(description="one word")]] = Field(description="What it is about")
        places: dict[str, list[Annotated[int, Field(description="a year")]]]
        where: Place | None
        when: Annotated[date, Field(description="The day")] | None = None

    assert {
        "mood": "How it sounds",
        "stars": "1 to 5",
        "topics": "What it is about; each: one word",
        "places": "each: each: a year",
        "where": None,
        "when": "The day",
    } == {field.name: field.description for field in shape_of_model(Review).fields}


def bad(annotation: Any, field: Any = ...) -> Any:  # noqa: ANN401 -- a row of the table below
    """Return a case of a refused annotation."""
    name = f"{annotation} {field if field is not ... else ''}"
    return pytest.param(annotation, field, id=re.sub(r" at 0x\w+", "", name))


@pytest.mark.parametrize(
    ("annotation", "field"),
    [
        bad(Any),
        bad(object),
        bad(bytes),
        bad(timedelta),
        bad(UUID),
        bad(complex),
        bad(list),
        bad(dict),
        bad(None),
        bad(T),
        bad(BaseModel),
        bad(int | str),
        bad(Union[int, str, None]),  # noqa: UP007 -- both spellings
        bad(Place | Stars),
        bad(tuple[int, str]),
        bad(tuple[int]),
        bad(dict[int, str]),
        bad(dict[Mood, str]),
        bad(dict[Annotated[str, Field(max_length=3)], int]),
        bad(Literal["a", 1]),
        bad(Literal[True]),
        bad(Literal[None]),  # noqa: PYI061 -- that it is spelt so is the point
        bad(Literal[2**63]),
        bad(Literal[b"a"]),
        bad(Enum("Mixed", {"A": 1, "B": "b"})),
        bad(Enum("Half", {"A": 0.5})),
        bad(Enum("Empty", {})),
        bad(pydantic.FutureDate),
        bad(pydantic.SecretStr),
        bad(pydantic.Json[list[int]]),
        bad(pydantic.FilePath),
        bad(Tree),
        bad(Left),
        bad(Box),
        bad(pydantic.RootModel[list[int]]),
        bad(Annotated[str, pydantic.AfterValidator(str.strip)]),
        bad(Annotated[str, pydantic.BeforeValidator(str)]),
        bad(Annotated[str, pydantic.PlainValidator(str)]),
        bad(Annotated[str, pydantic.WrapValidator(lambda value, _: value)]),
        bad(Annotated[str, pydantic.GetPydanticSchema(lambda _, handler: handler(str))]),
        bad(LowerCase[str]),
        bad(Annotated[int, Predicate(lambda value: value > 0)]),
        bad(list[Annotated[str, pydantic.AfterValidator(str.strip)]]),
        bad(pydantic.constr(strip_whitespace=True)),
        bad(pydantic.constr(to_lower=True)),
        bad(Decimal, Field(max_digits=5)),
        bad(Decimal, Field(max_digits=2, decimal_places=5)),
        bad(Decimal, Field(max_digits=39, decimal_places=2)),
        bad(Decimal, Field(ge=float("nan"))),
        bad(int, Field(ge=10**30)),
        bad(float, Field(ge=float("nan"))),
        bad(date, Field(ge=date(2020, 1, 1))),
        bad(str, Field(pattern=r"\p{L}")),
        bad(str, Field(pattern=re.compile("a", re.IGNORECASE))),
        bad(Annotated[str, Field(pattern="a")], Field(pattern="b")),
    ],
)
def test_unsupported_annotations_are_refused(annotation: Any, field: Any) -> None:  # noqa: ANN401 -- as `model`
    """The error has the path and a hint, and is raised when the UDF is built."""
    if annotation is Left:
        Left.model_rebuild()
    with pytest.raises(ConfigError, match=r"(?s)^Model\.x[\w.\[\]]* .+ Hint: .+\.$"):
        shape_of_model(model(annotation, field))


def test_the_error_has_the_path_at_any_depth() -> None:
    """`[]` is an element, `{}` a value."""

    class Inner(BaseModel):
        bad: list[dict[str, bytes]]

    with pytest.raises(ConfigError, match=r"^Model\.x\[\]\.bad\[\]\{\} is bytes"):
        shape_of_model(model(list[Inner] | None))


def test_field_names_that_are_equal_for_spark_are_refused() -> None:
    """Spark finds neither `a` nor `A` in such a column, unless case counts in the session."""

    class Inner(BaseModel):
        a: int
        A: str

    with pytest.raises(ConfigError, match=r"^Model\.x\[\] has two fields 'a' and 'A', .* Hint: rename one of them\."):
        shape_of_model(model(list[Inner]))


def test_an_undefined_name_is_refused() -> None:
    """The hint says what to call."""
    with pytest.raises(ConfigError, match=r"Model\.x\[\] is Later.* Hint: .*model_rebuild"):
        shape_of_model(model(list["Later"]))  # type: ignore[name-defined]  # noqa: F821 -- that it is not is the point


@pytest.mark.parametrize(
    "validator",
    [
        {"check": pydantic.field_validator("x")(lambda _, value: value)},
        {"check": pydantic.field_validator("*", mode="before")(lambda _, value: value)},
        {"check": pydantic.model_validator(mode="after")(lambda self: self)},
        {"check": pydantic.model_validator(mode="before")(lambda value: value)},
    ],
)
def test_validators_are_refused(validator: dict[str, Any]) -> None:
    """They may be the model's own or inherited, in it or in a model inside it."""
    made = pydantic.create_model("Checked", x=(int, ...), __validators__=validator)
    child = pydantic.create_model("Child", __base__=made, y=(int, ...))

    for refused, path in ((made, "Checked"), (child, "Child"), (model(list[made]), "Model.x[]")):  # type: ignore[valid-type]
        with pytest.raises(ConfigError, match=rf"^{re.escape(path)} has the validator check\(\).* Hint: .+\.$"):
            shape_of_model(refused)


@pytest.mark.parametrize(
    "setting", [{"str_to_lower": True}, {"str_strip_whitespace": True}, {"str_max_length": 3}, {"str_min_length": 1}]
)
def test_settings_that_change_texts_are_refused(setting: Any) -> None:  # noqa: ANN401 -- a ConfigDict
    """They are Python code, as validators are."""
    with pytest.raises(ConfigError, match=rf"the setting {next(iter(setting))}.* Hint: .+\.$"):
        shape_of_model(pydantic.create_model("Set", x=(str, ...), __config__=setting))


def test_values_that_are_no_model_class_are_refused() -> None:
    """An instance, a list of models and another class each get their own hint."""
    for returns, hint in ((Place(city="Bonn"), "Place"), (list[Place], "BaseModel"), (dict, "BaseModel"), (7, "Base")):
        assert not is_model(returns)
        with pytest.raises(ConfigError, match=rf"is not the class of a pydantic model. Hint: .*{hint}.*\.$"):
            shape_of_model(returns)  # type: ignore[arg-type]  # that it is wrong is the point
    with pytest.raises(ConfigError, match=r"without fields. Hint: .+\.$"):
        shape_of_model(BaseModel)
    assert is_model(Place)


class Ticket(BaseModel):
    """All kinds of fields and constraints, for the comparison below."""

    title: str = Field(min_length=1, max_length=5, pattern="^[a-z ]*$")
    stars: int = Field(ge=1, le=5)
    share: float = Field(gt=0, lt=1)
    price: Decimal = Field(max_digits=5, decimal_places=2, ge=0)
    mood: Mood
    size: Literal[1, 2]
    paid: bool
    tags: list[Annotated[str, Field(max_length=3)]] = Field(max_length=2)
    counts: dict[str, pydantic.PositiveInt]
    place: Place | None


TITLES, NUMBERS = st.sampled_from(["", "a", "a b", "A", "abcdef"]), st.sampled_from([-1, 0, 1, 2, 5, 6, 2**31])
TICKETS = st.fixed_dictionaries(
    {
        "title": TITLES,
        "stars": NUMBERS,
        "share": st.sampled_from([0.0, 0.25, 0.5, 1.0, -0.5]),
        "price": st.sampled_from([0, 1.25, 999.99, 1000, 0.125, -1]),
        "mood": st.sampled_from(["good", "bad", "fine", "GOOD"]),
        "size": st.sampled_from([1, 2, 3]),
        "paid": st.booleans(),
        "tags": st.lists(st.sampled_from(["a", "abc", "abcd"]), max_size=3),
        "counts": st.dictionaries(st.sampled_from(["a", "b"]), NUMBERS, max_size=2),
        "place": st.none() | st.fixed_dictionaries({"city": TITLES}) | st.just({}),
    }
)
RIGHT: dict[str, Any] = {
    "title": "a",
    "stars": 1,
    "share": 0.5,
    "price": 1.25,
    "mood": "good",
    "size": 1,
    "paid": True,
    "tags": ["abc"],
    "counts": {"a": 1},
    "place": None,
}


@pytest.mark.waits
@given(st.sets(st.sampled_from(list(RIGHT)), max_size=3), TICKETS)
def test_answers_are_parsed_as_pydantic_does(changed: set[str], drawn: dict[str, Any]) -> None:
    """Pydantic's strict mode accepts and refuses the same answers."""
    text = json.dumps(RIGHT | {name: drawn[name] for name in changed})
    found = StructuredOutput("ticket", shape_of_model(Ticket)).parse(text)
    try:
        expected = Ticket.model_validate_json(text, strict=True).model_dump()
    except pydantic.ValidationError:
        assert isinstance(found, Mismatch)
    else:
        assert expected | {"mood": expected["mood"].value} == found


def test_pydantic_is_not_imported() -> None:
    """The module works where pydantic is not installed."""
    code = (
        "import sys; sys.modules['pydantic'] = None; "
        "from spark_llm.protocol.structured.pydantic_models import is_model; "
        "print(is_model(int), is_model(type('M', (), {'model_fields': {}})), "
        "any(name.startswith('pydantic_core') for name in sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert "False False False" == done.stdout.strip()
