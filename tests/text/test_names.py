"""Lists of columns in messages."""

from spark_llm.text.names import column_list


def test_names_are_in_quotes() -> None:
    """So a blank in a name can be seen; an empty list has words."""
    assert "'id', 'a b'" == column_list(["id", "a b"])
    assert "no columns" == column_list([])
