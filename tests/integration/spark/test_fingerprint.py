"""Fingerprints of rows on real Spark: golden values, the same in plain Python, and nulls where nothing is asked."""

import hashlib
import random
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from typing import Any, NamedTuple, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F
from pyspark.sql.types import DataType, DoubleType

from spark_llm import Endpoint, Policy, by_url, chat_udf, complete_udf, embed_udf, predict_udf, rerank_udf
from spark_llm.ai.udf import chat_function, known_endpoints, query_function, similarity_function
from spark_llm.auth.credentials import Bearer
from spark_llm.endpoint.route import Route
from spark_llm.engine.request_spec import RequestSpec
from spark_llm.enrich.fingerprints.fingerprint import fingerprint
from spark_llm.errors import InputTypeError
from spark_llm.protocol.canonical import spec_digest
from spark_llm.protocol.chat.task import Chat
from spark_llm.udf.lazy_udf import LazyUDF, is_at_least
from spark_llm.udf.model_udf import ModelUDF

pytestmark = pytest.mark.one_kind

MODELS = "https://models.example/v1"
SCHEMA = """
    text STRING, other STRING, labels ARRAY<STRING>, most SMALLINT, talk ARRAY<STRUCT<content:STRING,role:STRING>>,
    photo BINARY,
    shown ARRAY<STRUCT<content:STRING,parts:ARRAY<STRUCT<url:STRING,data:BINARY,type:STRING,text:STRING>>,role:STRING>>
"""


Part = tuple[str | None, bytes | None, str | None, str | None]  # URL, bytes, type, text


class Values(NamedTuple):
    """A row of the table that is asked about; a message is its content and its role, in `shown` with parts between."""

    text: str | None = None
    other: str | None = None
    labels: list[str | None] | None = None
    most: int | None = None
    talk: list[tuple[str | None, str | None] | None] | None = None
    photo: bytes | None = None
    shown: list[tuple[str | None, list[Part | None] | None, str | None] | None] | None = None


PIECES = ["", "a", "B", "é", "\U0001f642", "\0", "n", "t1:", "l0:", "i5:", "\t", "\u2003", "{b}", "`", "'", "\\"]


def random_values(dice: random.Random) -> Values:
    """Draw a row of pieces that mean something to the form, some of them null."""

    def words() -> str | None:
        return "".join(dice.choices(PIECES, k=dice.randint(0, 4))) if dice.random() < 0.9 else None

    return Values(
        words(),
        words(),
        [words() for _ in range(dice.randint(0, 3))],
        dice.randint(-(2**15), 2**15 - 1),
        [None if dice.random() < 0.1 else (words(), words()) for _ in range(dice.randint(0, 3))],
    )


DICE = random.Random(7)
ROWS = [
    Values(
        text="Dune",
        other="Sand.",
        labels=["good", "bad"],
        most=7,
        talk=[("Hello?", "user"), ("Hi.", "assistant")],
        photo=b"\x89PNG\xff",
        shown=[
            ("Hello?", [("https://a/b", None, None, None), (None, b"\xff", "image", None), None], "user"),
            ("Hi.", [], "user"),
        ],
    ),
    Values("", "", [], 0, [], b"", [(None, None, None), None]),
    Values("é\U0001f642\0", "t1:a", [None, ""], -32768, [(None, "user"), None, ("n", None)]),
    Values(" \t\u3000\u2028\x1c", "x", ["n", None, "t1:n"], 32767, [(None, None)]),
    Values(text="a"),
    Values(other="a", labels=["a"], most=1),
    Values(),
    *(random_values(DICE) for _ in range(60)),
]
BROKEN = b"caf\xe9"  # Latin-1, and no UTF-8


SMALL = Endpoint(MODELS, model="small", token="secret")  # nobody asks it
CHAT, EMBED = chat_udf(SMALL), embed_udf(SMALL)
BRIEF = chat_udf(SMALL, template="{b}: {A}", system="Be {a}.")  # `a` and `A` are two fields
SCORE = predict_udf(f"{MODELS}/invocations", returns=DoubleType())
TURNS = chat_udf(SMALL, template="{turns}")
LOOK = chat_udf(SMALL, template="{what} {photo}")
CLASSIFY, SUMMARIZE = chat_function("classify", CHAT), chat_function("summarize", CHAT)
QUERY = query_function(known_endpoints({"small": CHAT}), None, raises=False)


def text(value: bytes | str | None) -> bytes:
    """Write a text as the form has it."""
    if value is None:
        return b"n"
    octets = value if isinstance(value, bytes) else value.encode()
    return b"t%d:%b" % (len(octets), octets)


def whole(value: int) -> bytes:
    """Write a whole number as the form has it."""
    return b"i%d:" % value


def texts(values: Sequence[str | None]) -> bytes:
    """Write a list of texts as the form has it."""
    return b"l%d:" % len(values) + b"".join(map(text, values))


def talk(messages: Sequence[tuple[str | None, str | None] | None]) -> bytes:
    """Write a conversation, of contents and roles, as the form has it."""
    written = (b"n" if message is None else b"m" + text(message[1]) + text(message[0]) for message in messages)
    return b"c%d:" % len(messages) + b"".join(written)


def array(values: Sequence[str | None]) -> bytes:
    """Write an array of texts as the form of a model's columns has it."""
    return b"a%d:" % len(values) + b"".join(map(text, values))


def model_row(**fields: tuple[Callable[[Any], bytes], Any]) -> bytes | None:
    """Write a struct of named values; a row of nothing but nulls asks nothing."""
    if all(value is None for _, value in fields.values()):
        return None
    parts = (text(name) + (b"n" if value is None else write(value)) for name, (write, value) in fields.items())
    return b"s%d:" % len(fields) + b"".join(parts)


def media(value: bytes | None) -> bytes:
    """Write bytes as the form has them."""
    return b"n" if value is None else b"b%d:%b" % (len(value), hashlib.sha256(value).hexdigest().encode())


def shown(messages: Sequence[tuple[str | None, list[Part | None] | None, str | None] | None]) -> bytes:
    """Write a conversation with parts as the form has it; without parts a message is as in `talk`."""
    written = []
    for message in messages:
        if message is None:
            written.append(b"n")
            continue
        content, parts, role = message
        written.append(b"m" + text(role) + text(content))
        if parts:
            written.append(b"p%d:" % len(parts))
            for url, data, kind, said in (part or (None,) * 4 for part in parts):
                written.append(text(kind) + text(said) + media(data) + text(url))
    return b"c%d:" % len(messages) + b"".join(written)


def columns(udf: ModelUDF, **named: str) -> list[Column]:
    """Return the argument of a UDF with a template: the struct of these columns."""
    return [cast("Column", udf.argument(**named))]


Form = Callable[[Values], bytes | None]


class Case(NamedTuple):
    """A UDF, its arguments, the canonical form of a row's input, and the digits of the first row's."""

    udf: LazyUDF
    arguments: Callable[[], list[Column]]
    form: Form
    golden: str | None


def of(write: Callable[[Any], bytes], *names: str) -> Form:
    """Return the form of these values, one after the other; of a row with a null in one there is none."""

    def form(row: Values) -> bytes | None:
        found = [getattr(row, name) for name in names]
        return None if None in found else b"".join(map(write, found))

    return form


def then(one: Form, other: Form) -> Form:
    """Return two forms one after the other."""

    def form(row: Values) -> bytes | None:
        parts = one(row), other(row)
        return None if None in parts else b"".join(part for part in parts if part)

    return form


def unless_blank(name: str) -> Form:
    """Return the form of a text that says something."""
    return lambda row: of(text, name)(row) if (getattr(row, name) or "").strip() else None


def book() -> list[Column]:
    """Return a struct with the template's fields and one more, in another order; null where there are no labels."""
    named = {"b": "text", "labels": "labels", "A": "text", "a": "other"}
    struct = F.struct(*(F.col(column).alias(name) for name, column in named.items()))
    return [F.when(F.col("labels").isNotNull(), struct)]


CASES = {
    "a text": Case(CHAT, lambda: [F.col("text")], of(text, "text"), "fbb7f9bfcb8b36878f13e9bd6945131a"),
    "a prompt": Case(
        complete_udf(SMALL), lambda: [F.col("text")], of(text, "text"), "fbb7f9bfcb8b36878f13e9bd6945131a"
    ),
    "a text to embed": Case(EMBED, lambda: [F.col("text")], unless_blank("text"), "fbb7f9bfcb8b36878f13e9bd6945131a"),
    "a conversation": Case(CHAT, lambda: [F.col("talk")], of(talk, "talk"), "9154aa85b239e4099ab448f4ecde66e1"),
    "fields by name": Case(
        BRIEF,
        lambda: columns(BRIEF, a="text", A="other", b="most"),
        then(of(text, "other", "text"), of(lambda most: text(str(most)), "most")),
        "1b38e81eea0db91074f6f023863273ed",
    ),
    "a struct": Case(
        BRIEF,
        book,
        lambda row: of(text, "text", "other", "text")(row) if row.labels is not None else None,
        "90c6755fed6ad99e737d9c166679301a",
    ),
    "a conversation by name": Case(
        TURNS, lambda: columns(TURNS, turns="talk"), of(talk, "talk"), "9154aa85b239e4099ab448f4ecde66e1"
    ),
    "a conversation in a struct": Case(
        TURNS, lambda: [F.struct(F.col("talk").alias("turns"))], of(talk, "talk"), "9154aa85b239e4099ab448f4ecde66e1"
    ),
    "a conversation with parts": Case(
        CHAT, lambda: [F.col("shown")], of(shown, "shown"), "3cd97ee34d98219416cfa160dc0823b7"
    ),
    "parts by name": Case(
        TURNS, lambda: columns(TURNS, turns="shown"), of(shown, "shown"), "3cd97ee34d98219416cfa160dc0823b7"
    ),
    "an image by name": Case(
        TURNS, lambda: columns(TURNS, turns="photo"), of(media, "photo"), "939074c8c3bde1888ca37b02ff8d0f11"
    ),
    "an image in a struct": Case(
        TURNS, lambda: [F.struct(F.col("photo").alias("turns"))], of(media, "photo"), "939074c8c3bde1888ca37b02ff8d0f11"
    ),
    "an image beside texts": Case(
        LOOK,
        lambda: columns(LOOK, photo="photo", what="text"),
        then(of(media, "photo"), of(text, "text")),
        "33fe607acccbe3c9ef562414788b54d6",
    ),
    "an image by its URL": Case(
        TURNS,
        lambda: [cast("Column", TURNS.argument(turns=by_url("text")))],
        lambda row: None if row.text is None else b"u" + text(row.text)[1:],
        "a887e9233ad2d866db7ec7861a2dcf53",
    ),
    "a text by name": Case(
        TURNS, lambda: columns(TURNS, turns="text"), of(text, "text"), "fbb7f9bfcb8b36878f13e9bd6945131a"
    ),
    "labels": Case(
        CLASSIFY,
        lambda: [F.col("text"), F.col("labels")],
        then(of(text, "text"), of(texts, "labels")),
        "47c3ffd5d2a15e3b191db0fee6b76749",
    ),
    "a number": Case(
        SUMMARIZE,
        lambda: [F.col("text"), F.col("most")],
        then(of(text, "text"), of(whole, "most")),
        "d5a699b953e56835c02f0327e625a8c5",
    ),
    "a default": Case(
        SUMMARIZE,
        lambda: [F.col("text")],
        then(of(text, "text"), lambda _: whole(50)),
        "57a38c3c7407b5c308d18608e744c225",
    ),
    "two texts": Case(
        similarity_function(EMBED),
        lambda: [F.col("text"), F.col("other")],
        then(unless_blank("text"), unless_blank("other")),
        "59203caeece5bc6bd78f54b227d75c07",
    ),
    "a query and its documents": Case(
        rerank_udf("https://host/v1/rerank"),
        lambda: [F.col("text"), F.col("labels")],
        then(unless_blank("text"), of(texts, "labels")),
        "47c3ffd5d2a15e3b191db0fee6b76749",
    ),
    "a request": Case(
        QUERY,
        lambda: [F.col("text"), F.col("other")],
        then(lambda row: text(row.text), of(text, "other")),
        "59203caeece5bc6bd78f54b227d75c07",
    ),
    "a request with a file": Case(
        QUERY,
        lambda: [F.col("text"), F.col("other"), F.col("photo")],
        then(then(lambda row: text(row.text), of(text, "other")), of(media, "photo")),
        "c2d495053cd8311fae6dc2e6f40e5d65",
    ),
    "one column of a model": Case(
        SCORE, lambda: [F.col("most")], of(whole, "most"), "075cfd6d8ce247e5db86ba069d0a3752"
    ),
    "columns of a model": Case(
        SCORE,
        lambda: columns(SCORE, b="text", A="most", a="labels"),
        lambda row: model_row(b=(text, row.text), A=(whole, row.most), a=(array, row.labels)),
        "2e4745a07843e1704ce3a346d8821d8c",
    ),
    "a struct of a model": Case(
        SCORE,
        lambda: [F.struct(F.col("text").alias("b"), F.col("most").alias("A"), F.col("labels").alias("a"))],
        lambda row: model_row(b=(text, row.text), A=(whole, row.most), a=(array, row.labels)),
        "2e4745a07843e1704ce3a346d8821d8c",
    ),
    "bytes": Case(
        CHAT,
        lambda: [F.expr("CAST(X'636166E9' AS STRING)")],
        lambda _: text(BROKEN),
        "5d28ba51ae8c49f4e3308e210276503a",
    ),
    "a null": Case(CHAT, lambda: [F.lit(None)], lambda _: None, None),
    "a null for a struct": Case(BRIEF, lambda: [F.lit(None)], lambda _: None, None),
}
OTHER_SETTINGS = {
    "spark.sql.ansi.enabled": "false",
    "spark.sql.caseSensitive": "true",
    "spark.sql.function.concatBinaryAsString": "true",
    "spark.sql.legacy.sizeOfNull": "true",
    "spark.sql.session.timeZone": "Asia/Tokyo",
}


def typed(frame: DataFrame, arguments: Sequence[Column]) -> list[tuple[Column, DataType]]:
    """Return columns with the types that they have in a frame."""
    return [(column, field.dataType) for column, field in zip(arguments, frame.select(*arguments).schema, strict=True)]


def rows(spark: SparkSession) -> DataFrame:
    """Return `ROWS` in one partition; on a Spark that has collations their texts have one."""
    frame = spark.createDataFrame(ROWS, SCHEMA).coalesce(1)
    if is_at_least(spark.version, 4, 0):
        messages = "ARRAY<STRUCT<content:STRING COLLATE UNICODE,role:STRING>>"
        frame = frame.withColumn("text", F.expr("collate(text, 'UTF8_LCASE')"))
        frame = frame.withColumn("labels", F.expr("CAST(labels AS ARRAY<STRING COLLATE UNICODE_CI>)"))
        frame = frame.withColumn("talk", F.expr(f"CAST(talk AS {messages})"))
    return frame


def spark_fingerprints(spark: SparkSession) -> list[list[str | None]]:
    """Return the fingerprints of all rows, case by case."""
    frame = rows(spark)
    arguments = {name: case.arguments() for name, case in CASES.items()}
    types = iter(typed(frame, [column for columns in arguments.values() for column in columns]))
    asked = [fingerprint(case.udf.plan(), list(islice(types, len(arguments[name])))) for name, case in CASES.items()]
    answers = frame.select(*(column.alias(f"f{place}") for place, column in enumerate(asked))).collect()
    return [list(column) for column in zip(*answers, strict=True)]


@pytest.fixture
def other_settings(spark: SparkSession) -> Iterator[None]:
    """Set other sizes, casts and concatenations of Spark, for one test."""
    before = {name: spark.conf.get(name) or "" for name in OTHER_SETTINGS}
    for name, value in OTHER_SETTINGS.items():
        spark.conf.set(name, value)
    yield
    for name, value in before.items():
        spark.conf.set(name, value)


def python_fingerprints() -> list[list[str | None]]:
    """Return the fingerprints of all cases and rows, by Python."""
    return [[python_fingerprint(case, row) for row in ROWS] for case in CASES.values()]


def python_fingerprint(case: Case, row: Values) -> str | None:
    """Return the fingerprint of a row's input by Python; None where it asks nothing."""
    form = case.form(row)
    if form is None:
        return None
    return f"1-{spec_digest(case.udf.plan().canonical)}-{hashlib.sha256(form).hexdigest()[:32]}"


def test_fingerprints_are_the_same_in_every_version(spark: SparkSession) -> None:
    """The first row of each case has its golden digits, and every row has the digits of its canonical form, or null."""
    fingerprints = spark_fingerprints(spark)

    assert dict(zip(CASES, python_fingerprints(), strict=True)) == dict(zip(CASES, fingerprints, strict=True))
    assert {name: case.golden for name, case in CASES.items()} == {
        name: first and first.rpartition("-")[2] for name, (first, *_) in zip(CASES, fingerprints, strict=True)
    }


TOOL_SCHEMA = """
    talk ARRAY<STRUCT<role:STRING,content:STRING>>,
    tools ARRAY<STRUCT<role:STRING,content:STRING,tool_calls:ARRAY<STRUCT<id:STRING,name:STRING,arguments:STRING>>,
        tool_call_id:STRING>>
"""


def test_tool_fields_are_part_of_a_conversation_where_they_are_set(spark: SparkSession) -> None:
    """A conversation without them has the fingerprint of one of two fields; calls and their results have their own."""
    plain = [("user", "Hi"), None, ("assistant", None)]
    wide: list[Any] = [("user", "Hi", None, None), None, ("assistant", None, [], "")]
    used = [("assistant", None, [("1", "f", "{}"), (None, "g", "")], None), ("tool", "3", None, "1")]
    frame = spark.createDataFrame([(plain, wide), (plain, used)], TOOL_SCHEMA)
    [(talks, talk_type), (tools, tool_type)] = typed(frame, [F.col("talk"), F.col("tools")])
    asked = [fingerprint(CHAT.plan(), [argument]) for argument in ((talks, talk_type), (tools, tool_type))]
    [(narrow, same), (_, other)] = frame.select(*asked).collect()
    calls = b"k2:" + b"".join(map(text, ("1", "f", "{}", None, "g", "")))
    form = b"c2:m" + text("assistant") + b"n" + calls + b"m" + text("tool") + text("3") + b"r1:1"

    assert narrow == same
    assert hashlib.sha256(form).hexdigest()[:32] == other.rpartition("-")[2]


@pytest.mark.usefixtures("other_settings")
def test_settings_change_no_fingerprint(spark: SparkSession) -> None:
    """A row has the same fingerprint under other settings for sizes, casts and case."""
    assert python_fingerprints() == spark_fingerprints(spark)


@pytest.mark.parametrize(
    ("udf", "arguments", "words"),
    [
        (CHAT, ["most"], r"takes one string column, or one of array<struct<.*>>; it was called on smallint\. "),
        (EMBED, ["talk"], r"takes one string column; it was called on array<.*>\. "),
        (CHAT, ["labels"], r"it was called on array<string>\. "),
        (CHAT, ["text", "other"], r"it was called on several columns\. "),
        (CHAT, ["INTERVAL '1' MONTH"], r"was called on interval .*month, which no worker can read\. "),
        (BRIEF, ["text"], r"takes a struct with the fields b, A, a; the UDF was called on string\. "),
        (BRIEF, ["struct(text AS a, text AS b)"], r"was called on a struct of a, b, without A\. "),
        (BRIEF, ["struct(text AS a, text AS b, most AS A)"], r"fields are strings, and A is smallint\. "),
        (BRIEF, ["struct(text AS a, text AS b, talk AS A)"], r"fields are strings, and A is array<.*>\. "),
        (TURNS, ["struct(labels AS turns)"], r"turns may be array<struct<.*>>\), and turns is array<.*>\. "),
        (CLASSIFY, ["text", "text"], r"ai_classify takes a list of strings as labels; it was called on string\. "),
        (CLASSIFY, ["text"], r"ai_classify takes content, labels; it was called on 1 column\. "),
        (SUMMARIZE, ["text", "1.5"], r"takes a whole number as max_words; it was called on decimal\(2,1\)\. "),
        (SCORE, ["text", "most"], r"predict_udf takes one column, which may be a struct; it was called on several\. "),
        (SCORE, ["map(1, text)"], r"predict_udf was called on map<int,.*>, which a model's JSON cannot hold\. "),
        (
            SCORE,
            ["struct(text, INTERVAL '1' DAY)"],
            r"predict_udf was called on interval day to second, .*cannot hold\. ",
        ),
        (QUERY, ["text", "labels"], r"ai_query takes a string as request; it was called on array<.*>\. "),
    ],
    ids=str,
)
def test_a_type_that_workers_refuse_raises_on_the_driver(
    spark: SparkSession, udf: LazyUDF, arguments: list[str], words: str
) -> None:
    """It raises the workers' own error, before a Spark job starts."""
    frame = spark.createDataFrame([], SCHEMA)

    with pytest.raises(InputTypeError, match=words + "Hint: "):
        fingerprint(udf.plan(), typed(frame, [F.expr(argument) for argument in arguments]))


def test_a_list_is_not_read_as_a_conversation(spark: SparkSession) -> None:
    """A field that may be a conversation checks the type of a list by name, not that of its text."""
    frame = spark.createDataFrame([], SCHEMA)

    with pytest.raises(InputTypeError, match=r"and turns is array<.*>\. Hint: "):
        fingerprint(TURNS.plan(), typed(frame, columns(TURNS, turns="labels")))


def test_credentials_and_policies_are_not_in_a_fingerprint() -> None:
    """Another token, header, certificate, policy or wire field name leaves the recipe as it was."""
    other = Endpoint(MODELS, model="small", token="other", headers={"X-Team": "data"})
    policy = Policy(max_in_flight=3, timeout_s=5, reask=0, dedupe=False)

    assert CHAT.plan().canonical == chat_udf(other, policy=policy).plan().canonical
    assert CLASSIFY.plan().canonical == chat_function("classify", chat_udf(other, policy=policy)).plan().canonical
    assert "secret" not in str(QUERY.plan().canonical)


def test_plans_say_what_they_ask() -> None:
    """Each kind of plan writes its recipe: the function and its arguments, the model, the parameters."""
    model = {"task": "chat", "endpoint": f"{MODELS}/chat/completions", "model": "small"}
    workspace = RequestSpec(
        Chat(), Route("https://host/serving-endpoints/any/invocations", None, Bearer("secret")), Policy()
    )

    assert model == CHAT.plan().canonical
    assert {**model, "template": "{b}: {A}", "instructions": "Be {a}."} == BRIEF.plan().canonical
    assert {"function": "ai_classify", "arguments": ["content", "labels"], **model} == CLASSIFY.plan().canonical
    assert {
        "function": "ai_query",
        "arguments": ["endpoint", "request"],
        "endpoints": {"small": model},
        "workspace": {"task": "chat", "endpoint": "https://host"},
    } == query_function(known_endpoints({"small": CHAT}), workspace, raises=True).plan().canonical
    assert {
        "function": "ai_similarity",
        "arguments": ["expr1", "expr2"],
        "task": "embed",
        "endpoint": f"{MODELS}/embeddings",
        "model": "small",
    } == similarity_function(EMBED).plan().canonical


WORDS = st.none() | st.text(st.characters(codec="utf-8") | st.sampled_from("ntmcli:0123"), max_size=5)
TALKS = st.lists(st.none() | st.tuples(WORDS, WORDS), max_size=3)


@given(st.lists(st.one_of(WORDS, st.integers(), TALKS.map(tuple), st.lists(WORDS, max_size=3)), max_size=4))
def test_no_two_inputs_are_written_alike(arguments: list[Any]) -> None:
    """The form of any arguments can be read back, so that two that differ are never written alike."""
    forms = b"".join(map(written, arguments))

    assert arguments == list(reading(forms))


def written(value: Any) -> bytes:  # noqa: ANN401 -- any input
    """Write any input; lists are texts, and tuples conversations."""
    match value:
        case int():
            return whole(value)
        case list():
            return texts(value)
        case tuple():
            return talk(value)
    return text(value)


def reading(form: bytes) -> Iterator[Any]:
    """Yield the inputs that stand in a form."""
    while form:
        value, form = read(form)
        yield value


def read(form: bytes) -> tuple[Any, bytes]:
    """Return the first input of a form, and what follows it."""
    mark, rest = form[:1], form[1:]
    if mark == b"n":
        return None, rest
    if mark == b"m":
        role, rest = read(rest)
        content, rest = read(rest)
        return (content, role), rest
    head, _, rest = rest.partition(b":")
    count = int(head)
    if mark == b"i":
        return count, rest
    if mark == b"t":
        return rest[:count].decode(), rest[count:]
    values = []
    for _ in range(count):
        value, rest = read(rest)
        values.append(value)
    return values if mark == b"l" else tuple(values), rest
