"""The MERGE of staged rows, as text; no Spark session is needed."""

from pyspark.sql.types import BooleanType, LongType, StringType, StructField, StructType

from spark_llm.enrich.merge import merge_statement, mergeable_schema

ANSWER = StructType([StructField("text", StringType())])


def struct(**fields: StringType | LongType | BooleanType | StructType) -> StructType:
    """Return a struct of these fields."""
    return StructType([StructField(name, kind) for name, kind in fields.items()])


STAGED = struct(
    key=struct(id=LongType()),
    carried=struct(team=StringType()),
    result=struct(mood=ANSWER, topic=ANSWER),
    writes=struct(mood=BooleanType(), topic=BooleanType()),
)
TARGET = struct(
    ID=LongType(),
    team=StringType(),
    mood=ANSWER,
    mood_fingerprint=StringType(),
    topic=ANSWER,
    topic_fingerprint=StringType(),
)


def without(*names: str) -> StructType:
    """Return the target's schema without these columns."""
    return StructType([field for field in TARGET if field.name not in names])


def test_new_rows_are_inserted_and_others_updated_or_deleted() -> None:
    """A column is written where the row says so, and keeps its value in the target otherwise."""
    statement = merge_statement("`t`", "`staged`", STAGED)

    assert "ON t.`id` = s.`key`.`id`" in statement
    assert "WHEN MATCHED AND s.deleted THEN DELETE" in statement
    assert "t.`team` = CASE WHEN s.changed THEN s.`carried`.`team` ELSE t.`team` END" in statement
    assert "t.`mood` = CASE WHEN s.`writes`.`mood` THEN s.`result`.`mood` ELSE t.`mood` END" in statement
    assert "WHEN NOT MATCHED AND NOT s.deleted THEN INSERT (`id`, `team`, `mood`, `mood_fingerprint`" in statement


def test_rows_that_are_all_new_are_only_inserted() -> None:
    """A MERGE without WHEN MATCHED takes Delta half the time."""
    assert "WHEN MATCHED" not in merge_statement("`t`", "`staged`", STAGED, only_new=True)


def test_names_are_quoted() -> None:
    """A back-quote in a name cannot end it."""
    staged = struct(key=StructType([StructField("a` b", LongType())]), writes=struct(mood=BooleanType()))

    assert "ON t.`a`` b` = s.`key`.`a`` b`" in merge_statement("`t`", "`staged`", staged)


def test_rows_without_results_write_nulls() -> None:
    """A row that is not asked has a null answer."""
    staged = StructType([field for field in STAGED if field.name != "result"])

    assert "CASE WHEN s.`writes`.`mood` THEN NULL END" in merge_statement("`t`", "`staged`", staged)


def test_columns_that_the_target_lost_are_left_out() -> None:
    """An answer needs its column and that of its fingerprint."""
    schema = mergeable_schema(STAGED, without("team", "topic_fingerprint"), str.lower)

    assert schema is not None
    assert [[], ["mood"]] == [schema[part].dataType.fieldNames() for part in ("carried", "writes")]  # type: ignore[attr-defined]


def test_answers_without_a_place_cannot_be_merged() -> None:
    """A target without the key, or without a column for the answers, takes none of them."""
    assert mergeable_schema(STAGED, without("ID"), str.lower) is None
    assert mergeable_schema(STAGED, TARGET, str) is None  # here `ID` is not `id`
    assert mergeable_schema(STAGED, without("mood", "topic"), str.lower) is None
