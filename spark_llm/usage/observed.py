"""Aggregates beside an action: the values of an observation, and the report that they make."""

import threading
import time
from typing import Any

from pyspark.sql import Observation
from pyspark.sql.utils import is_remote

from spark_llm.errors import ConfigError
from spark_llm.metering.prices import Price
from spark_llm.usage.answers import AnswerColumn
from spark_llm.usage.counts import report_of
from spark_llm.usage.report import UsageReport

_POLL_S = 0.05


def observed_values(observed: Observation) -> dict[str, Any] | None:
    """Return the aggregates of a query that has ended: empty where Spark planned their rows away, None on an error."""
    try:
        return observed.get
    except Exception as error:  # noqa: BLE001 -- a missing number must not end a run
        return {} if "PythonSQLUtils.toPyRow" in str(error) else None  # classic Spark fails there without aggregates


class ObservedUsage:
    """What a column used in the first action on the DataFrame of `observe_usage`."""

    def __init__(self, name: str, answers: AnswerColumn, price: Price | None, observation: Observation) -> None:
        """Report on the values of an observation of `counts.report_aggregates`."""
        self._name, self._answers, self._price, self._observation = name, answers, price, observation
        self._values: dict[str, Any] | None = None
        self._reader: threading.Thread | None = None

    def report(self, timeout_s: float = 10.0) -> UsageReport:
        """Return the report, as `usage_report` would make it of the rows that the action read.

        It is the first action; on Connect the last one before the first call of this. It waits for the end of one, so
        long at most. Raises `ConfigError` where Spark has reported nothing by then. After an action that failed,
        classic Spark reports the tasks that succeeded, and Connect nothing.
        """
        if self._reader is None:
            self._reader = threading.Thread(target=self._read, name="spark_llm usage", daemon=True)
            self._reader.start()
        self._reader.join(timeout_s)
        if self._reader.is_alive():
            raise ConfigError(
                f"Spark has reported no action on the DataFrame of observe_usage in {timeout_s:g} s.",
                f"run one that reads {self._name!r} first, as in df.write…; timeout_s= waits longer.",
            )
        if self._values is None:
            self._reader = None
            raise ConfigError("The first action on the DataFrame of observe_usage failed.", "call observe_usage again.")
        return report_of(self._name, self._answers, self._price, self._values)

    def __repr__(self) -> str:
        return f"<the usage of {self._name!r}: call report() after an action>"

    def _read(self) -> None:
        """Wait for the values: Spark Connect has none until an action has ended, classic Spark waits by itself."""
        while True:
            values = observed_values(self._observation)
            if values != {} or not is_remote():
                self._values = None if values is None else dict(values)  # Connect writes a later action's into its own
                return
            time.sleep(_POLL_S)
