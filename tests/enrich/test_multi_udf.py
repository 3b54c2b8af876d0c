"""Columns of a row are asked at the same time, at endpoints on loopback; no Spark session is needed."""

import pickle
import threading
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import pandas as pd
import pyarrow as pa
import pytest
from pyspark.sql.types import StructType

from spark_llm import Endpoint, Policy, chat_udf, complete_udf, embed_udf, schemas
from spark_llm.ai.udf import chat_function
from spark_llm.engine.parallel_columns import ParallelResults
from spark_llm.engine.registry import ENGINES
from spark_llm.engine.request_spec import request_specs
from spark_llm.enrich.multi_udf import LiveReporting, MultiUDF, MultiUDFPlan, Part
from spark_llm.errors import ConfigError, InputTypeError
from spark_llm.livecounts.counts import Address, LiveCounts
from spark_llm.protocol.values import Result
from spark_llm.serving import Echo, Faults, LocalEndpoints
from spark_llm.udf.lazy_udf import LazyUDF
from spark_llm.udf.model_udf import ModelUDF
from spark_llm.udf.spark_types import arrow_type

PATIENCE_S = 10.0  # how long something may take that should be done at once


@pytest.fixture(autouse=True)
def _registry() -> Iterator[None]:
    """Close the engines that a test put into the worker's registry."""
    yield
    ENGINES.close()


@pytest.fixture
def endpoints() -> Iterator[LocalEndpoints]:
    """Two chat endpoints, and one for embeddings."""
    with LocalEndpoints({"mood": Echo(), "topic": Echo(), "embed": Echo()}) as running:
        yield running


def at(endpoints: LocalEndpoints, name: str) -> Endpoint:
    """Return one of the endpoints as a user would name it."""
    return Endpoint(endpoints.invocations(name), token=endpoints.token)


def chat(endpoints: LocalEndpoints, name: str, policy: Policy = Policy()) -> ModelUDF:
    """Return a chat UDF."""
    return chat_udf(at(endpoints, name), policy=policy)


def two(endpoints: LocalEndpoints, policy: Policy = Policy()) -> MultiUDFPlan:
    """Return a worker's plan for two chat columns, each with its argument."""
    parts = [Part(name, chat(endpoints, name, policy), 1) for name in ("mood", "topic")]
    return MultiUDF(parts).plan()


def both(*rows: Sequence[str | None]) -> Iterator[tuple[pa.Array, pa.Array]]:
    """Yield batches of two arguments: the rows, and the rows with an exclamation mark."""
    for each in rows:
        marked = [None if row is None else f"{row}!" for row in each]
        yield pa.array(each, pa.string()), pa.array(marked, pa.string())


def texts(chunks: Iterator[ParallelResults]) -> list[tuple[str | None, ...]]:
    """Return the texts of whole rows."""
    return [tuple(result and result.text for result in row) for chunk in chunks for row in zip(*chunk, strict=True)]


def numbered(count: int) -> list[str]:
    """Return so many texts, no two of them equal."""
    return [f"row {number}" for number in range(count)]


def test_both_columns_of_a_row_are_in_flight_at_once(endpoints: LocalEndpoints) -> None:
    """While one endpoint holds its answers, the other one has been asked as well."""
    endpoints.hold("row")
    got: list[tuple[str | None, ...]] = []
    reading = threading.Thread(target=lambda: got.extend(texts(two(endpoints).arrow(both(["row"])))), daemon=True)
    reading.start()
    endpoints.wait_for(lambda stats: [1, 1] == [each.in_flight for each in stats.endpoints.values()])
    endpoints.release()
    reading.join(PATIENCE_S)

    assert 2 == endpoints.stats.max_in_flight
    assert [("row", "row!")] == got


@pytest.mark.waits
def test_two_columns_have_a_window_each(endpoints: LocalEndpoints) -> None:
    """A hundred rows at ten in flight a column: twenty are in flight together, ten of them at each endpoint."""
    endpoints.latency_s = 0.05
    rows = numbered(100)

    assert [(row, f"{row}!") for row in rows] == texts(two(endpoints, Policy(max_in_flight=10)).arrow(both(rows)))
    assert 20 == endpoints.stats.max_in_flight
    assert {10} == {each.max_in_flight for each in endpoints.stats.endpoints.values()}


@pytest.mark.waits
def test_rows_keep_their_order_and_their_nulls(endpoints: LocalEndpoints) -> None:
    """Across batches, with a null in one column or in both, whatever order the answers come in."""
    endpoints.latency_s = lambda number: 0.005 * (number * 7 % 5)
    rows: list[str | None] = [None if number % 10 == 3 else f"row {number}" for number in range(300)]
    ends = [None if number % 3 == 0 else f"end {number}" for number in range(300)]
    batches = [(pa.array(rows[a : a + 70]), pa.array(ends[a : a + 70])) for a in range(0, 300, 70)]

    assert list(zip(rows, ends, strict=True)) == texts(two(endpoints).arrow(iter(batches)))
    assert sum(row is not None for row in rows + ends) == endpoints.stats.requests


def test_each_part_reads_its_own_arguments(endpoints: LocalEndpoints) -> None:
    """One column, a template's struct, and a function of two: one after the other, from Arrow and from pandas."""
    parts = [
        Part("mood", chat(endpoints, "mood"), 1),
        Part("brief", chat_udf(at(endpoints, "topic"), template="{title}: {body}"), 1),
        Part("french", chat_function("translate", chat(endpoints, "topic")), 2),
    ]
    plan = MultiUDF(parts).plan()
    pairs = [{"title": "A", "body": "b"}, {"title": "C", "body": None}]
    arrays = (pa.array(["x", "y"]), pa.array(pairs), pa.array(["cat", "dog"]), pa.array(["fr", "fr"]))
    series = (pd.Series(["x", "y"]), pd.DataFrame(pairs), pd.Series(["cat", "dog"]), pd.Series(["fr", "fr"]))
    from_arrow, from_pandas = texts(plan.arrow(iter([arrays]))), texts(plan.pandas(iter([series])))

    assert [("x", "A: b"), ("y", None)] == [row[:2] for row in from_arrow]
    assert ["cat" in (row[2] or "") for row in from_arrow] == [True, False]
    assert from_arrow == from_pandas


def test_one_part_is_the_udf_as_it_is(endpoints: LocalEndpoints) -> None:
    """Called on one argument it has no tuple to take apart, and it runs in the caller's thread."""
    plan = MultiUDF([Part("mood", chat(endpoints, "mood"), 1)]).plan()
    chunks = plan.arrow(iter([pa.array(["a", None, "b"])]))
    first = texts(iter([next(chunks)]))
    threads = [thread.name for thread in threading.enumerate()]

    assert "spark_llm column" not in threads
    assert [("a",), (None,), ("b",)] == first + texts(chunks)


@pytest.mark.waits
def test_a_slow_column_holds_a_fast_one_back(endpoints: LocalEndpoints) -> None:
    """A column whose neighbour hangs asks as many rows as it may read ahead, and not the whole of an endless input."""
    endpoints.hold("!")
    read = 0

    def endless() -> Iterator[tuple[pa.Array, pa.Array]]:
        nonlocal read
        while True:
            rows = [f"row {read + number}" for number in range(1_000)]
            read += 1_000
            yield next(both(rows))

    chunks = two(endpoints).arrow(endless())
    flushes = [next(chunks) for _ in range(2)]
    chunks.close()  # type: ignore[attr-defined]
    stats = endpoints.wait_for(lambda stats: stats.in_flight == 0)

    assert [[], []] == flushes
    assert stats.endpoints["mood"].requests <= 21_000
    assert read <= 22_000


def test_a_column_of_the_wrong_type_stops_both_before_the_first_request(endpoints: LocalEndpoints) -> None:
    """The part's own error is raised in the caller's thread."""
    plan = two(endpoints)
    with pytest.raises(InputTypeError, match=r"one string column.*it was called on bigint"):
        texts(plan.arrow(iter([(pa.array([1]), pa.array([2]))])))

    assert 0 == endpoints.stats.requests


@pytest.mark.waits
def test_a_reader_that_goes_leaves_nothing_in_flight(endpoints: LocalEndpoints) -> None:
    """Both columns are cancelled, nothing more is sent, and no thread is left."""
    endpoints.hold("held")
    chunks = two(endpoints).arrow(both(["a", *["held"] * 2, *[f"held {number}" for number in range(500)]]))
    first = next(chunk for chunk in chunks if chunk)
    endpoints.wait_for(lambda stats: stats.in_flight > 2)
    chunks.close()  # type: ignore[attr-defined]
    stats = endpoints.wait_for(lambda stats: stats.in_flight == 0)

    assert ("a", "a!") == texts(iter([first]))[0]
    assert stats.requests <= 2 * 28
    assert stats.requests == stats.rows_answered + stats.disconnects
    assert "spark_llm column" not in [thread.name for thread in threading.enumerate()]


@pytest.mark.waits
def test_requests_of_all_columns_add_up(endpoints: LocalEndpoints) -> None:
    """Over the columns' rows, with faults, they are what the server counted, in all and at each endpoint."""
    endpoints.faults = Faults("429*2 503 ok cut ok*9 500", poison="cyanide")
    parts = [Part("mood", chat(endpoints, "mood"), 1), Part("vector", embed_udf(at(endpoints, "embed")), 1)]
    rows = [*numbered(100), "cyanide", *numbered(50)]
    chunks = list(MultiUDF(parts).plan().arrow((pa.array(rows), pa.array(rows)) for _ in range(1)))
    sums = [sum(result.requests for chunk in chunks if chunk for result in chunk[at] if result) for at in (0, 1)]
    counted = endpoints.stats.endpoints

    assert [counted["mood"].requests, counted["embed"].requests] == sums


def test_workers_report_what_each_column_has(endpoints: LocalEndpoints) -> None:
    """The driver counts every row and request, by column; a null does not count as asked."""
    with LiveCounts("127.0.0.1") as live:
        assert live.address is not None
        live.begin(7)
        parts = [Part(name, chat(endpoints, name), 1) for name in ("mood", "topic")]
        rows = [None, *numbered(20)]
        assert 21 == len(texts(MultiUDF(parts, LiveReporting(live.address, 7)).plan().arrow(both(rows))))
        patience = threading.Event()
        heard = (live.counts() for _ in range(1_000) if not patience.wait(0.01))  # a datagram comes when it comes
        counts = next((each for each in heard if [20, 20] == [tally.asked for tally in each.values()]), live.counts())

    assert {"mood": (20, 20), "topic": (20, 20)} == {name: (each.asked, each.requests) for name, each in counts.items()}


def test_its_type_is_its_parts_types_with_requests(endpoints: LocalEndpoints) -> None:
    """A field for each part, whose type is the UDF's with one more field."""
    returns = MultiUDF(
        [Part("a b", chat(endpoints, "mood"), 1), Part("v", embed_udf(at(endpoints, "embed")), 1)]
    ).returnType

    assert ["a b", "v"] == returns.fieldNames()
    assert [[*schemas.CHAT.fieldNames(), "requests"], [*schemas.EMBED.fieldNames(), "requests"]] == [
        field.dataType.fieldNames() for field in returns if isinstance(field.dataType, StructType)
    ]


def laid_out(udf: MultiUDF, chunk: ParallelResults) -> tuple[list[Any], list[Any]]:
    """Return the rows that Spark gets, from an Arrow UDF and from a pandas UDF."""
    arrays = udf._arrow_converter()(chunk, arrow_type(udf.returnType))  # noqa: SLF001 -- the rows that Spark gets
    return arrays.to_pylist(), udf._pandas_converter()(chunk).to_dict("records")  # noqa: SLF001


def test_a_null_of_one_part_is_a_null_of_its_field(endpoints: LocalEndpoints) -> None:
    """Its neighbour has its answer and its requests, from an Arrow UDF and from a pandas UDF."""
    udf = MultiUDF([Part("mood", chat(endpoints, "mood"), 1), Part("v", embed_udf(at(endpoints, "embed")), 1)])
    vector = Result(embedding=b"\0\0\x80?", attempts=2, requests=3)
    arrow, pandas = laid_out(udf, [[None, Result(text="a", requests=1)], [vector, None]])

    for rows in (arrow, pandas):
        assert [None, "a"] == [row["mood"] and row["mood"]["text"] for row in rows]
        assert [([1.0], 3), None] == [row["v"] and (list(row["v"]["embedding"]), row["v"]["requests"]) for row in rows]


def test_no_rows_become_an_empty_array(endpoints: LocalEndpoints) -> None:
    """A flush is an array of the right type without rows."""
    udf = MultiUDF([Part("mood", chat(endpoints, "mood"), 1), Part("topic", chat(endpoints, "topic"), 1)])
    kind = arrow_type(udf.returnType)
    array = udf._arrow_converter()([], kind)  # noqa: SLF001 -- the array that Spark gets

    assert (0, kind) == (len(array), array.type)


def test_the_plan_prints_no_secret(endpoints: LocalEndpoints) -> None:
    """The plan can be pickled, and neither it nor the UDF shows the token or the secret of the live counts."""
    address = Address("127.0.0.1", 9, b"sixteen letters!")
    parts = [Part("mood", chat(endpoints, "mood"), 1), Part("topic", chat(endpoints, "topic"), 1)]
    udf = MultiUDF(parts, LiveReporting(address, 1))
    plan = udf.plan()

    assert plan == pickle.loads(pickle.dumps(plan))  # noqa: S301 -- our own
    for shown in (repr(plan), repr(udf)):
        assert "mood" in shown
        assert endpoints.token not in shown
        assert "sixteen" not in shown


@pytest.mark.waits
def test_request_specs_can_be_replaced(endpoints: LocalEndpoints) -> None:
    """Each part is asked by the spec that `task_spec` returns; the parts' UDFs stay as they were."""
    parts = [Part("mood", chat(endpoints, "mood"), 1), Part("topic", chat(endpoints, "topic"), 1)]
    udf = MultiUDF(parts, task_spec=lambda _, spec: replace(spec, policy=Policy(max_in_flight=3)))
    endpoints.latency_s = 0.02
    rows = numbered(30)

    assert [(row, f"{row}!") for row in rows] == texts(udf.plan().arrow(both(rows)))
    assert {3} == {each.max_in_flight for each in endpoints.stats.endpoints.values()}
    assert {Policy()} == {spec.policy for part in parts for spec in request_specs(part.udf.plan())}


def value_of(endpoints: LocalEndpoints) -> LazyUDF:
    """Return a function that returns a text and not a struct."""
    return chat_function("gen", chat(endpoints, "mood")).field("text")


def test_a_function_without_its_error_is_refused(endpoints: LocalEndpoints) -> None:
    """A text alone has neither its error nor its cost."""
    udf = MultiUDF([Part("mood", value_of(endpoints), 1), Part("topic", complete_udf(at(endpoints, "topic")), 1)])

    with pytest.raises(ConfigError, match=r"The column mood .*string and not a struct.*llm_"):
        _ = udf.returnType


def test_a_wrong_number_of_arguments_is_refused(endpoints: LocalEndpoints) -> None:
    """The error says how many columns the call takes."""
    udf = MultiUDF([Part("mood", chat(endpoints, "mood"), 1), Part("french", value_of(endpoints), 2)])

    with pytest.raises(ConfigError, match="called on 2 columns and take 3"):
        udf("a", "b")
