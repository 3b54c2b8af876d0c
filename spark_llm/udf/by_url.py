"""`by_url`: a column of URLs, of which a model gets the image and not the text."""

from dataclasses import dataclass

from pyspark.sql import Column

from spark_llm.errors import ConfigError
from spark_llm.validation.arguments import checks_arguments


@checks_arguments
@dataclass(frozen=True, eq=False)  # columns have no equality
class by_url:  # noqa: N801 -- it is called like a function
    """A string column of image URLs as a field of a template: the server gets each image from its URL.

    >>> chat = chat_udf("my-endpoint", template="What is wrong here? {photo}")
    >>> df.withColumn("fault", chat(photo=by_url("photo_url"))).select("fault.text", "fault.error")

    A null URL makes the row null. One that does not begin with `http://`, `https://` or `data:`, or that has a space,
    is the row's error `invalid_request`, without a request. Raises `ConfigError` for a value that is no column.

    Attributes:
        column: The column, or its name.
    """

    column: Column | str

    def __post_init__(self) -> None:
        """Check the column."""
        if not isinstance(self.column, (Column, str)):
            raise ConfigError(
                f"by_url({self.column!r}) is not a column.", "pass a column or its name; write a value as F.lit(value)."
            )
