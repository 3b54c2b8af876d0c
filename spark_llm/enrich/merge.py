"""The MERGE that brings written-down rows into a target, put together from what the rows say of themselves.

So the rows that a run left when it died are merged by the next one, whatever that one is to ask.
"""

from collections.abc import Mapping

from pyspark.sql.types import DataType, StringType, StructField, StructType

from spark_llm.enrich.changes import mark_of
from spark_llm.enrich.table import field_of, holds
from spark_llm.protocol.identifiers import CaseFold, quoted


def merge(target: str, staged: str, schema: StructType, *, only_new: bool = False, where: str = "true") -> str:
    """Return the statement that merges `staged`, which has this schema, into `target`; both are names in quotes.

    `only_new` says that the target has none of the rows, which is less work. The rows' columns are those of
    `changes.to_do` and `result`, a struct with a field for each column that was asked; it may be missing.
    """
    parts = {field.name: field.dataType for field in schema}
    key, writes = _names(parts, "key"), _names(parts, "writes")
    carried = _names(parts, "carried")
    new = {name: _of("key", name) for name in key} | {name: _of("carried", name) for name in carried}
    changed = {name: f"CASE WHEN s.moved THEN {_of('carried', name)} ELSE {_of_target(name)} END" for name in carried}
    for name in writes:
        written = _of("writes", name)
        for column, value in (
            (name, _of("result", name) if "result" in parts else "NULL"),
            (mark_of(name), _of("fingerprints", name)),
        ):
            new[column] = f"CASE WHEN {written} THEN {value} END"
            changed[column] = f"CASE WHEN {written} THEN {value} ELSE {_of_target(column)} END"
    same_key = " AND ".join(f"{_of_target(name)} = {_of('key', name)}" for name in key)
    lines = [f"MERGE INTO {target} AS t", f"USING (SELECT * FROM {staged} WHERE {where}) AS s", f"ON {same_key}"]  # noqa: S608 -- all names are quoted
    if not only_new:
        lines.append("WHEN MATCHED AND s.gone THEN DELETE")
        lines.append(f"WHEN MATCHED THEN UPDATE SET {', '.join(f'{_of_target(c)} = {v}' for c, v in changed.items())}")
    columns = ", ".join(quoted((name,)) for name in new)
    lines.append(f"WHEN NOT MATCHED AND NOT s.gone THEN INSERT ({columns}) VALUES ({', '.join(new.values())})")  # noqa: S608 -- as above
    return "\n".join(lines)


def fitting(staged: StructType, target: StructType, same: CaseFold) -> StructType | None:
    """Return the schema of what a target can take of answers that were written earlier: it may have been altered since.

    None where it lacks the key, or all columns for the answers.
    """

    def has(name: str, kind: DataType) -> bool:
        found = field_of(target, name, same)
        return found is not None and holds(found.dataType, kind, same)

    def fields(part: str) -> list[StructField]:
        kind = next((field.dataType for field in staged if field.name == part), None)
        return list(kind) if isinstance(kind, StructType) else []

    answers = [each.name for each in fields("result") if has(each.name, each.dataType)]
    kept = {
        "writes": [name for name in answers if has(mark_of(name), StringType())],
        "carried": [each.name for each in fields("carried") if has(each.name, each.dataType)],
    }
    if not kept["writes"] or any(field_of(target, each.name, same) is None for each in fields("key")):
        return None
    parts = {part: StructType([each for each in fields(part) if each.name in names]) for part, names in kept.items()}
    return StructType([StructField(each.name, parts.get(each.name, each.dataType)) for each in staged])


def _names(parts: Mapping[str, DataType], part: str) -> list[str]:
    kind = parts.get(part)
    return kind.fieldNames() if isinstance(kind, StructType) else []


def _of(part: str, name: str) -> str:
    return f"s.{quoted((part, name))}"


def _of_target(name: str) -> str:
    return f"t.{quoted((name,))}"
