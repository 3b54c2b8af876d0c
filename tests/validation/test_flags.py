"""Checks of flags."""

import pytest

from spark_llm.errors import ConfigError
from spark_llm.validation.flags import check_flag


@pytest.mark.parametrize("value", [True, False])
def test_a_flag_is_returned_unchanged(value: bool) -> None:  # noqa: FBT001 -- the very thing that is tested
    """Both are."""
    assert value is check_flag("progress", value)


@pytest.mark.parametrize("value", ["no", "", 0, 1, None, [True]])
def test_other_values_are_refused(value: object) -> None:
    """A text such as "no" would count as True."""
    with pytest.raises(ConfigError, match=r"Endpoint\(allow_http=.*\) is neither True nor False\. Hint: .+\."):
        check_flag("allow_http", value, owner="Endpoint")
