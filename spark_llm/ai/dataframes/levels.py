"""The levels of `functions.aggregate`: texts become leaves, and the answers of a level the nodes of the next one.

Both functions run in Spark's tasks, on rows that are sorted by group. A level's rows carry what their group has cost so
far, in the first row of the group, so that the last level has the result.
"""

from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
from pyspark.sql.types import ArrayType, DataType, IntegerType, LongType, StringType, StructField, StructType

from spark_llm.ai.aggregation import left_out_error
from spark_llm.ai.packing import Pack, Piece, line_bytes, rows_of, take_node, take_pack
from spark_llm.protocol.values import RowError, Usage
from spark_llm.schemas import ERROR, USAGE
from spark_llm.udf.slices import python_values
from spark_llm.udf.spark_types import arrow_type

BATCH_BYTES = 8_000_000  # of texts in one batch of rows

Batches = Iterator[pa.RecordBatch]


def level_schema(group: DataType) -> StructType:
    """Return the columns of a level: the texts of a request, or none where nothing is asked, and its group's totals.

    `parts` is 1 for the only request of a group at this level. `first` and `last` are the rows that the texts stand
    for, counted from 0; -1 is the last one of none. `text` is the answer of a group that needs no further request.
    """
    columns = {
        "group": group,
        "part": IntegerType(),
        "parts": IntegerType(),
        "texts": ArrayType(StringType()),
        "first": LongType(),
        "last": LongType(),
        "text": StringType(),
        "leaves": LongType(),
        "levels": IntegerType(),
        "usage": USAGE,
        "error": ERROR,
        "cut_rows": ArrayType(LongType()),
    }
    return StructType([StructField(name, kind) for name, kind in columns.items()])


class _Output:
    """Rows of a level, on their way out in batches."""

    def __init__(self, schema: StructType) -> None:
        self._schema = schema
        self._groups: list[pa.Array] = []
        self._rows: list[dict[str, Any]] = []
        self._bytes = 0

    def add(self, group: pa.Array, **row: Any) -> None:  # noqa: ANN401 -- the columns of a level
        self._groups.append(group)
        self._rows.append(row)
        self._bytes += sum(map(len, row.get("texts") or ())) + 100

    def batches(self, *, all_of_them: bool = False) -> Batches:
        """Yield the rows, if they are enough for a batch."""
        if not self._rows or (self._bytes < BATCH_BYTES and not all_of_them):
            return
        kinds = {each.name: arrow_type(each.dataType) for each in self._schema}
        columns = [pa.concat_arrays(self._groups).cast(kinds.pop("group"))]
        columns += [pa.array([row.get(name) for row in self._rows], kind) for name, kind in kinds.items()]
        yield pa.RecordBatch.from_arrays(columns, names=self._schema.names)
        self._groups, self._rows, self._bytes = [], [], 0


@dataclass
class _Leaves:
    """The leaves of one group: a leaf leaves when there is another one, so that the only one is known."""

    group: pa.Array
    max_bytes: int
    rows: int = 0
    waiting: deque[Piece] = field(default_factory=deque)
    size: int = 0  # of what waits
    ready: Pack | None = None
    packs: int = 0

    def add(self, text: str, out: _Output) -> None:
        """Add a text, and what is full to the output."""
        self.waiting.append(Piece(text, self.rows, self.rows))
        self.rows += 1
        self.size += line_bytes(text)
        while self.size > self.max_bytes:
            self._take(out)

    def end(self, out: _Output) -> None:
        """Add the rest; a group without texts has a row too."""
        if self.waiting:
            self._take(out)
        self._emit(out, parts=1 if self.packs < 1 else None)

    def _take(self, out: _Output) -> None:
        if self.ready is not None:
            self._emit(out, parts=None)
        self.ready = take_pack(self.waiting, self.max_bytes)
        self.size = sum(line_bytes(piece.text) for piece in self.waiting)

    def _emit(self, out: _Output, parts: int | None) -> None:
        pack = self.ready or ()
        first, last = (pack[0].first, pack[-1].last) if pack else (0, -1)
        cut_rows = sorted({piece.first for piece in pack if piece.is_cut})
        texts = [piece.text for piece in pack]
        levels = int(bool(pack))
        row = {"part": self.packs, "parts": parts, "texts": texts, "first": first, "last": last}
        out.add(self.group, **row, levels=levels, cut_rows=cut_rows)
        self.packs, self.ready = self.packs + 1, None


@dataclass(frozen=True)
class PackTexts:
    """Texts to leaves, of so many bytes at most: rows of the group, the text, and the row's number in its group."""

    max_bytes: int
    schema: StructType

    def __call__(self, batches: Batches) -> Batches:
        """Yield the rows of level 0."""
        out, leaves = _Output(self.schema), None
        for batch in batches:
            groups, texts, numbers = batch.column(0), python_values(batch.column(1)), batch.column(2).to_pylist()
            for at, (text, number) in enumerate(zip(texts, numbers, strict=True)):
                if number == 1 or leaves is None:
                    if leaves is not None:
                        leaves.end(out)
                    leaves = _Leaves(groups.slice(at, 1), self.max_bytes)
                if text is not None:
                    leaves.add(text, out)
                yield from out.batches()
        if leaves is not None:
            leaves.end(out)
        yield from out.batches(all_of_them=True)


@dataclass(frozen=True)
class PackAnswers:
    """The answers of a level to the nodes of the next one.

    The rows are those of a level and what its requests gave: `answers`, `asked_usage`, and `failure` where one failed.
    `number` is a row's number in its group.
    """

    max_bytes: int
    schema: StructType

    def __call__(self, batches: Batches) -> Batches:
        """Yield the rows of the next level; one of a group that is done has no texts."""
        out, group, rows = _Output(self.schema), None, list[dict[str, Any]]()
        for batch in batches:
            groups = batch.column(0)
            columns = [python_values(column) for column in batch.columns[1:]]
            for at, values in enumerate(zip(*columns, strict=True)):
                row = dict(zip(batch.schema.names[1:], values, strict=True))
                if row["number"] == 1 and rows:
                    self._roll(group, rows, out)
                    rows = []
                if not rows:
                    group = groups.slice(at, 1)
                rows.append(row)
                yield from out.batches()
        if rows:
            self._roll(group, rows, out)
        yield from out.batches(all_of_them=True)

    def _roll(self, group: pa.Array, rows: list[dict[str, Any]], out: _Output) -> None:
        """Add the rows of the next level for one group."""
        last = max(row["last"] for row in rows)
        spent = [row[name] for row in rows for name in ("usage", "asked_usage") if row[name]]
        total = {
            "levels": max(row["levels"] for row in rows),
            "leaves": sum(row["leaves"] for row in rows),
            "usage": _sum(Usage(**usage) for usage in spent),
            "cut_rows": sorted({number for row in rows for number in row["cut_rows"] or ()}),
        }
        error = next((row["error"] for row in rows if row["error"]), None)  # of an earlier level
        failed = [row for row in rows if row["failure"]]
        if failed:
            left_out = rows_of(Piece("", row["first"], row["last"]) for row in failed)
            error = left_out_error(RowError(**failed[0]["failure"]), left_out, last + 1)._asdict()
        answers = [Piece(text, row["first"], row["last"]) for row in rows for text in row["answers"] or ()]
        if error is not None or len(answers) < 2:
            text = answers[0].text if answers and error is None else None
            done = {"part": 0, "parts": 1, "texts": [], "first": 0, "last": last, "text": text}
            out.add(group, **done, error=error, **total)
            return
        waiting, number = deque(answers), 0
        while waiting:
            pack = take_node(waiting, self.max_bytes)
            alone = len(pack) == 1  # a single answer needs no combining
            node = {
                "part": number,
                "parts": 1 if len(pack) == len(answers) else None,
                "texts": [] if alone else [piece.text for piece in pack],
                "text": pack[0].text if alone else None,
                "first": pack[0].first,
                "last": pack[-1].last,
            }
            totals = total if number == 0 else {"leaves": 0}
            out.add(group, **node, **{**totals, "levels": total["levels"] + 1})
            number += 1


def _sum(usages: Iterable[Usage]) -> dict[str, Any] | None:
    total: Usage | None = None
    for usage in usages:
        total = usage.plus(total)
    return None if total is None else total._asdict()
