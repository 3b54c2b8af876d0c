"""The fields that say which job sends a request."""

import json

from hypothesis import given
from hypothesis import strategies as st

from spark_llm._version import __version__
from spark_llm.endpoint.attribution import MAX_CHARACTERS, Attribution
from spark_llm.protocol.bodies import with_fields

LIBRARY = f"spark_llm/{__version__}"
ANY = st.text(max_size=2 * MAX_CHARACTERS)


def fields(attribution: Attribution, parameters: bytes = b"{}") -> object:
    """Return the fields as a document."""
    return json.loads(b"{" + attribution.fields(parameters) + b"}")


def test_a_table_job_names_run_table_and_column() -> None:
    """The request's ID is the run's, as in the report and in a table of runs."""
    known = {"application": "app-1", "application_name": "nightly", "run": "r1", "table": "t", "column": "mood"}

    assert {"usage_context": {"library": LIBRARY, **known}, "client_request_id": "r1"} == fields(Attribution(**known))


def test_a_plain_call_names_the_application() -> None:
    """What is not known is left out; the request's ID is the application's."""
    context = {"library": LIBRARY, "application": "app-1"}

    assert {"usage_context": context, "client_request_id": "app-1"} == fields(Attribution("app-1"))
    assert {"usage_context": {"library": LIBRARY}} == fields(Attribution())


def test_fields_of_the_user_are_kept() -> None:
    """A field that `extra_body` sets is in the body once, as the user wrote it."""
    who = Attribution("app-1")

    assert {"client_request_id": "app-1"} == fields(who, b'{"usage_context":{"team":"data"}}')
    assert b"" == who.fields(b'{"client_request_id":"mine","usage_context":{}}')


@given(ANY, ANY, ANY)
def test_any_names_make_valid_json_of_limited_size(name: str, table: str, column: str) -> None:
    """Names may hold quotes, line breaks and lone surrogates; the rest of the body stays as it was."""
    body = b'{"model":"m"}'
    document = json.loads(bytes(with_fields(body, Attribution("a", name, "r", table, column).fields(b"{}"))))
    context = document.pop("usage_context")

    assert "r" == document.pop("client_request_id")
    assert json.loads(body) == document
    assert MAX_CHARACTERS >= max(map(len, context.values()))
