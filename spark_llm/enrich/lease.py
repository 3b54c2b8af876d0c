"""A lease on a target: one run at a time works on it, and the only column of a small table names that run.

Every table format renames a column atomically, without a task of the cluster, whose cores may all be busy asking; and a
rename fails where the column has another name by now. So it is a compare-and-swap. The holder sends a heartbeat every
`HEARTBEAT_S`, in a property of the table. The next run takes over from a holder that is silent, or whose process ended.
"""

import logging
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from itertools import count

from pyspark.sql import SparkSession
from pyspark.sql.types import IntegerType, StructField, StructType

from spark_llm.engine.process_identity import has_exited, own_identity
from spark_llm.enrich.conflict import conflict_name
from spark_llm.enrich.heartbeat import HEARTBEAT_S, SILENCE_S, HeartbeatMonitor
from spark_llm.enrich.spark_errors import error_text
from spark_llm.enrich.table import ANY_NAMES, FORMAT, Table
from spark_llm.errors import ConfigError, JobFailedError
from spark_llm.protocol.identifiers import quoted

FREE = "free"
_POLL_S = 2.0  # between two looks at a lease that another run holds
_JOIN_S = 10.0  # for a heartbeat under way; a dead session may keep it for minutes
_HEARTBEAT = "spark_llm.sign"
_HELD = "held_by"
_PROPERTIES = {
    **ANY_NAMES,  # Delta renames a column only with them
    # Each heartbeat is a commit, and at a path the table stays: formats keep as few of them as they can.
    "delta.logRetentionDuration": "interval 1 hour",
    "delta.deletedFileRetentionDuration": "interval 1 hour",  # it may not be longer
    "write.metadata.delete-after-commit.enabled": "true",
    "write.metadata.previous-versions-max": "10",
}

_logger = logging.getLogger("spark_llm.enrich")


class Lease:
    """The right to work on a target while the `with` block runs; it waits while another run has it."""

    def __init__(
        self,
        spark: SparkSession,
        table: Table,
        formats: Sequence[str | None],
        run: str,
        notify: Callable[[str], None],
    ) -> None:
        """Describe a lease.

        Args:
            spark: The session.
            table: The lease table; created in the first of `formats` that succeeds.
            formats: Formats of tables, the best first; None is the default of the catalog.
            run: The run's name, of letters and digits.
            notify: Gets a sentence that says which run is waited for.
        """
        self._spark, self._table, self._formats, self._notify = spark, table, tuple(formats), notify
        self._own_name = "_".join(filter(None, [_HELD, run, own_identity()]))
        self._ended = threading.Event()
        self._heartbeats = threading.Thread(target=self._send_heartbeats, name="spark_llm lease", daemon=True)

    def __enter__(self) -> "Lease":  # noqa: PYI034 -- typing.Self came with Python 3.11
        try:
            self._acquire()
            self._heartbeats.start()
        except BaseException:  # Ctrl-C, say, when it has just been taken
            self._release()
            raise
        _logger.info("%s is taken by %s", self._table, self._own_name)
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._heartbeats.join(_JOIN_S)
        self._release()

    def check(self) -> None:
        """Raise `JobFailedError` where another run has it by now."""
        holder = self._holder()
        if holder != self._own_name:
            _logger.warning("%s is held by %s, and no longer by %s", self._table, holder, self._own_name)
            raise JobFailedError(
                f"Another run has taken over ({holder}), because this one sent no heartbeat for {SILENCE_S:.0f} s.",
                "wait until that one ends. Answers of this run that are not in the table yet are kept beside it, and"
                " the run after that merges them.",
            )

    def is_held(self) -> bool:
        """Return whether this run still has it; False where the session is dead."""
        try:
            return self._holder() == self._own_name
        except Exception:  # noqa: BLE001 -- whatever Spark raises then
            return False

    def _acquire(self) -> None:
        monitor, reported = HeartbeatMonitor(), ""
        while (holder := self._holder()) != self._own_name:
            if holder is None:
                self._attempt(self._create, holder)
            elif holder == FREE or self._is_dead(holder, monitor):
                _logger.info("%s was held by %s", self._table, holder)
                self._attempt(partial(self._rename, holder, self._own_name), holder)
            else:
                if reported != holder:
                    _logger.info("%s is held by %s; waiting", self._table, holder)
                    self._notify(f"Another run is at work on this table ({holder}); waiting for it to end.")
                    reported = holder
                time.sleep(_POLL_S)

    def _release(self) -> None:
        with suppress(Exception):  # the next run finds that this one has ended
            if self._table.path is not None:  # Spark drops no table of a path
                self._rename(self._own_name, FREE)
            elif self._holder() == self._own_name:
                self._spark.sql(f"DROP TABLE {self._table.name}")
            _logger.info("%s is released by %s", self._table, self._own_name)

    def _holder(self) -> str | None:
        """Return the name of the holder; None where the lease table is missing."""
        rows = self._table.read()
        if rows is not None and self._formats != (FORMAT,):  # Delta's catalog looks anew each time
            self._table.refresh()
            rows = self._table.read()
        return None if rows is None else rows.columns[0]

    def _is_dead(self, holder: str, monitor: HeartbeatMonitor) -> bool:
        process = holder.removeprefix(_HELD).partition("_")[2].partition("_")[2]  # after the name of the run
        return has_exited(process) or monitor.is_silent((holder, self._last_heartbeat()), time.monotonic())

    def _last_heartbeat(self) -> str:
        try:
            properties = self._spark.sql(f"SHOW TBLPROPERTIES {self._table.name}").collect()
        except Exception:  # noqa: BLE001 -- the table was dropped just now, whatever the format raises then
            return ""
        return next((row[1] for row in properties if row[0] == _HEARTBEAT), "")

    def _send_heartbeats(self) -> None:
        for number in count(1):
            if self._ended.wait(HEARTBEAT_S):
                return
            try:
                heartbeat = f"'{_HEARTBEAT}' = '{self._own_name} {number}'"
                self._spark.sql(f"ALTER TABLE {self._table.name} SET TBLPROPERTIES ({heartbeat})")
            except Exception as error:  # noqa: BLE001 -- the next one will do, or another run has taken over
                _logger.debug("heartbeat %d of %s failed: %s", number, self._own_name, type(error).__name__)

    def _create(self) -> None:
        self._table.create(StructType([StructField(self._own_name, IntegerType())]), self._formats, _PROPERTIES)

    def _rename(self, holder: str, new_holder: str) -> None:
        columns = f"{quoted(holder)} TO {quoted(new_holder)}"
        self._spark.sql(f"ALTER TABLE {self._table.name} RENAME COLUMN {columns}")

    def _attempt(self, step: Callable[[], None], holder: str | None) -> None:
        """Take a step that fails where another run was first; raise its error where no other run was."""
        try:
            step()
        except Exception as error:  # Delta's own come as they are, of no class of Spark's
            if self._holder() == holder and not conflict_name(str(error)):  # after a conflict one looks again
                if isinstance(error, ConfigError):  # it says why the table cannot be created
                    raise
                raise ConfigError(
                    f"The lease table {self._table}, which keeps two runs apart, cannot be written:"
                    f" {error_text(error)}.",
                    "a run needs to create tables beside its target; drop that one if it was left there.",
                ) from error
