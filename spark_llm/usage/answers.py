"""A column of answers in a DataFrame, of this version of the library or of an older one."""

from dataclasses import dataclass

from pyspark.errors import AnalysisException
from pyspark.sql import DataFrame
from pyspark.sql.types import DataType, StructType

from spark_llm.errors import ConfigError
from spark_llm.metering.tally import TOKENS
from spark_llm.protocol.identifiers import column_parts, quoted
from spark_llm.schemas import PREDICT
from spark_llm.text.excerpt import excerpt
from spark_llm.text.names import column_list
from spark_llm.validation.suggestion import did_you_mean

_PREDICT = ("prediction", *PREDICT.names)


@dataclass(frozen=True)
class AnswerColumn:
    """A column with the struct of a UDF, as SQL, and the type of that struct, which may lack fields."""

    sql: str
    kind: StructType

    @classmethod
    def find(cls, rows: DataFrame, name: str) -> "AnswerColumn":
        """Return the column of this name, or the field `a.b` of a struct.

        Raises `ConfigError` where there is none, and where its values are not those of a UDF of this library.
        """
        if not isinstance(name, str):
            raise ConfigError(f"column={name!r} is not a name.", 'write it as a string, as in "answer".')
        ours = [field.name for field in rows.schema if is_answers(field.dataType)]
        otherwise = f"the columns of answers are {column_list(ours)}." if ours else "name a column that a UDF filled."
        try:
            [field] = rows.select(name).schema.fields
        except (AnalysisException, ValueError):  # ValueError: "*" is several columns
            hint = did_you_mean(name, ours, otherwise=otherwise)
            raise ConfigError(f"There is no column {name!r}, or more than one.", hint) from None
        if not isinstance(field.dataType, StructType) or not is_answers(field.dataType):
            raise ConfigError(
                f"The column {name!r} is {excerpt(field.dataType.simpleString())}, and not the result of one of this"
                " library's UDFs.",
                f"{otherwise} It is the whole struct, with its error.",
            )
        return cls(quoted(*column_parts(name)), field.dataType)

    def has(self, *path: str) -> bool:
        """Return whether the struct has this field, or a field of a field."""
        kind: DataType = self.kind
        for name in path:
            if not isinstance(kind, StructType) or name not in kind.names:
                return False
            kind = kind[name].dataType
        return True

    def field(self, *path: str) -> str:
        """Return a field, or a field of a field; null where the struct lacks it."""
        return f"{self.sql}.{quoted(*path)}" if self.has(*path) else "NULL"

    def tokens(self, name: str) -> str:
        """Return the number of tokens in a field of `usage`; null where it is missing."""
        return f"CAST({self.field('usage', name)} AS BIGINT)"

    @property
    def was_asked(self) -> str:
        """A value that is null where the row asked nothing."""
        if self.has("attempts"):
            return self.field("attempts")
        known = [name for name in TOKENS if self.has("usage", name)]
        tokens = [f"CAST({self.tokens(name)} AS STRING)" for name in known]
        return f"coalesce({', '.join([self.field('error', 'kind'), *tokens])})"


def is_answers(kind: DataType) -> bool:
    """Return whether a type is the struct of a UDF: with tokens in `usage`, or a `prediction`, and `error.kind`."""
    if not isinstance(kind, StructType) or "error" not in kind.names:
        return False
    error = kind["error"].dataType
    if not isinstance(error, StructType) or "kind" not in error.names:
        return False
    if "usage" not in kind.names:
        return set(_PREDICT) <= set(kind.names)
    usage = kind["usage"].dataType
    return isinstance(usage, StructType) and not set(TOKENS).isdisjoint(usage.names)
