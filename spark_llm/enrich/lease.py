"""A lease on a table: one run at a time may work on it, and a table of its own says which.

Its only column is named by the holder, because renaming a column is the one thing that every table format does at once
or not at all, that needs no task of a cluster (whose cores may all be busy asking), and that means "if it is still
this, make it that". The holder sends a heartbeat every `BEAT_S`, in a property of the table. A holder that is silent,
or known to have ended, is followed by the next.
"""

import logging
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from itertools import count
from types import TracebackType

from pyspark.sql import SparkSession
from pyspark.sql.types import IntegerType, StructField, StructType

from spark_llm.engine.process_identity import has_exited, own_identity
from spark_llm.enrich.conflict import conflict
from spark_llm.enrich.heartbeat import HEARTBEAT_S, SILENCE_S, HeartbeatMonitor
from spark_llm.enrich.table import FORMAT, Table, said
from spark_llm.errors import ConfigError, JobFailedError
from spark_llm.protocol.identifiers import quoted

FREE = "free"
_LOOK_S = 2.0  # between two looks at a lease that another run holds
_JOIN_S = 10.0  # for a heartbeat that is under way; a dead session may keep it for minutes
_SIGN = "spark_llm.sign"
_HELD = "held_by"
_PROPERTIES = {  # a format passes over what it does not know
    "delta.columnMapping.mode": "name",  # so that Delta renames a column
    # Each heartbeat is a commit, and at a path the table stays: formats keep as few of them as they can.
    "delta.logRetentionDuration": "interval 1 hour",
    "delta.deletedFileRetentionDuration": "interval 1 hour",  # it may not be longer
    "write.metadata.delete-after-commit.enabled": "true",
    "write.metadata.previous-versions-max": "10",
}

_logger = logging.getLogger("spark_llm.enrich")


class Lease:
    """The right to work on a table, from when the block begins until it ends; waits while another run has it."""

    def __init__(self, spark: SparkSession, table: Table, provider: str, run: str, tell: Callable[[str], None]) -> None:
        """Describe it: `run` is a name of letters and digits; `tell` gets a sentence that says what is waited for."""
        self._spark, self._table, self._provider, self._tell = spark, table, provider, tell
        self._mine = "_".join(filter(None, [_HELD, run, own_identity()]))
        self._over = threading.Event()
        self._beating = threading.Thread(target=self._beat, name="spark_llm lease", daemon=True)

    def __enter__(self) -> "Lease":  # noqa: PYI034 -- typing.Self came with Python 3.11
        try:
            self._wait()
            self._beating.start()
        except BaseException:  # Ctrl-C, say, when it has just been taken
            self._release()
            raise
        _logger.info("%s is taken by %s", self._table, self._mine)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        self._beating.join(_JOIN_S)
        self._release()

    def check(self) -> None:
        """Raise `JobFailedError` where another run has it by now."""
        holder = self._holder()
        if holder != self._mine:
            _logger.warning("%s is held by %s, and no longer by %s", self._table, holder, self._mine)
            raise JobFailedError(
                f"Another run has taken over ({holder}), because this one sent no heartbeat for {SILENCE_S:.0f} s.",
                "wait until that one ends. Answers of this run that are not in the table yet are kept beside it, and"
                " the run after that merges them.",
            )

    def is_held(self) -> bool:
        """Return whether this run still has it; not where a session is dead."""
        try:
            return self._holder() == self._mine
        except Exception:  # noqa: BLE001 -- whatever Spark raises then
            return False

    def _wait(self) -> None:
        watch, named = HeartbeatMonitor(), ""
        while (holder := self._holder()) != self._mine:
            if holder is None:
                self._take(self._make, holder)
            elif holder == FREE or self._is_gone(holder, watch):
                _logger.info("%s was held by %s", self._table, holder)
                self._take(partial(self._rename, holder, self._mine), holder)
            else:
                if named != holder:
                    _logger.info("%s is held by %s; waiting", self._table, holder)
                    self._tell(f"Another run is at work on this table ({holder}); waiting for it to end.")
                    named = holder
                time.sleep(_LOOK_S)

    def _release(self) -> None:
        with suppress(Exception):  # the next run finds that this one has ended
            if self._holder() != self._mine:
                return
            if self._table.path is None:
                self._spark.sql(f"DROP TABLE {self._table.name}")
            else:  # of a path Spark drops nothing
                self._rename(self._mine, FREE)
            _logger.info("%s is released by %s", self._table, self._mine)

    def _holder(self) -> str | None:
        """Return who holds it; None where there is no such table."""
        rows = self._table.read()
        if rows is not None and self._provider != FORMAT:  # Delta's catalog looks anew each time
            self._table.refresh()
            rows = self._table.read()
        return None if rows is None else rows.columns[0]

    def _is_gone(self, holder: str, watch: HeartbeatMonitor) -> bool:
        process = holder.removeprefix(_HELD).partition("_")[2].partition("_")[2]  # after the name of the run
        return has_exited(process) or watch.is_silent((holder, self._last_sign()), time.monotonic())

    def _last_sign(self) -> str:
        try:
            properties = self._spark.sql(f"SHOW TBLPROPERTIES {self._table.name}").collect()
        except Exception:  # noqa: BLE001 -- whatever it is: the table was dropped just now
            return ""
        return next((row[1] for row in properties if row[0] == _SIGN), "")

    def _beat(self) -> None:
        for number in count(1):
            if self._over.wait(HEARTBEAT_S):
                return
            try:
                sign = f"'{_SIGN}' = '{self._mine} {number}'"
                self._spark.sql(f"ALTER TABLE {self._table.name} SET TBLPROPERTIES ({sign})")
            except Exception as error:  # noqa: BLE001 -- the next one will do, or another run has taken over
                _logger.debug("heartbeat %d of %s failed: %s", number, self._mine, type(error).__name__)

    def _make(self) -> None:
        self._table.create(StructType([StructField(self._mine, IntegerType())]), self._provider, _PROPERTIES)

    def _rename(self, holder: str, to: str) -> None:
        self._spark.sql(f"ALTER TABLE {self._table.name} RENAME COLUMN {quoted((holder,))} TO {quoted((to,))}")

    def _take(self, step: Callable[[], None], before: str | None) -> None:
        """Take a step that fails where another run was first; raise where it failed and none was."""
        try:
            step()
        except Exception as error:  # Delta's own come as they are, of no class of Spark's
            if self._holder() == before and not conflict(str(error)):  # after a conflict one looks again
                raise ConfigError(
                    f"The table {self._table}, which keeps two runs apart, cannot be written: {said(error)}.",
                    "runs need to make tables beside their target; drop that one if it is left from elsewhere.",
                ) from error
