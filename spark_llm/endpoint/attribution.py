"""Attribution: the fields of a request that say which job sends it, for the provider's records of usage. Never content.

Wire format: `usage_context` (strings by name) and `client_request_id` (a string), which Databricks Model Serving keeps
in its tables of usage, `system.serving.endpoint_usage` and the endpoint's inference table.
"""

from dataclasses import asdict, dataclass

from spark_llm._version import __version__
from spark_llm.protocol.json_codec import read_json, write_json
from spark_llm.protocol.task import ATTRIBUTION_FIELDS

MAX_CHARACTERS = 256  # of each value


@dataclass(frozen=True)
class Attribution:
    """Who sends a request; empty where it is not known.

    Attributes:
        application: The ID of the Spark application.
        application_name: Its name.
        run: The ID of a table job's run.
        table: The table that the run fills.
        column: The column of the table.
    """

    application: str = ""
    application_name: str = ""
    run: str = ""
    table: str = ""
    column: str = ""

    def fields(self, parameters: bytes) -> bytes:
        """Return the request fields as JSON without braces, but for those that `parameters` has: the user's are kept.

        `usage_context` has what is known and the library's version; `client_request_id` is the run, or else the
        application. Empty where no field is left.
        """
        known = {name: value[:MAX_CHARACTERS] for name, value in asdict(self).items() if value}
        context = {"library": f"spark_llm/{__version__}", **known}
        fields = dict(zip(ATTRIBUTION_FIELDS, (context, known.get("run") or known.get("application")), strict=True))
        given = read_json(parameters)
        return write_json({name: value for name, value in fields.items() if value and name not in given})[1:-1]
