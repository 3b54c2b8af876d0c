"""`progress`: what the UDFs do in a block of code, while its actions run, whatever they are."""

import secrets
import threading
from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, suppress
from functools import partial
from typing import Any

from pyspark.errors import PySparkException
from pyspark.sql import SparkSession
from pyspark.sql.utils import is_remote

from spark_llm.coordination.allotment_datagrams import answer_to_need
from spark_llm.coordination.allotter import Allotter
from spark_llm.errors import ConfigError
from spark_llm.livecounts.blocks import SETTING, Block
from spark_llm.livecounts.counts import LiveCounts, process_secret
from spark_llm.livecounts.flows import CurrentFlow, JobFlow
from spark_llm.livecounts.labels import Label
from spark_llm.metering.tally import Tally, Totals, total_of
from spark_llm.monitoring.bar import Progress
from spark_llm.monitoring.driver_address import driver_host
from spark_llm.monitoring.telemetry.exporter import Telemetry
from spark_llm.text.format import by_kind
from spark_llm.text.table import text_table
from spark_llm.validation.arguments import checks_arguments

SILENT_S = 30.0  # without any count, after which a line says so
_HEADINGS = ("udf", "asked", "answered", "failed", "requests", "tokens")


class WatchedBlock(Totals):
    """What the UDFs of a `progress` block have answered so far; after its end, in all."""

    def __init__(self, live: LiveCounts) -> None:
        """Read live counts."""
        self._live = live

    @property
    def rows(self) -> int:
        """Rows that are done, those that asked nothing among them; a row of two UDFs counts twice."""
        return self._live.rows()

    @property
    def udfs(self) -> Mapping[str, Tally]:
        """The tally of each UDF, by its name: "chat_udf", "embed_udf", "llm_classify"."""
        parts: dict[str, list[Tally]] = {}
        for label, tally in self._live.counts().items():
            parts.setdefault(Label.of(label).name, []).append(tally)
        return {name: total_of(tallies) for name, tallies in parts.items()}

    @property
    def asked(self) -> int:
        """Rows with a prompt."""
        return self._total.asked

    @property
    def answered(self) -> int:
        """Rows that were answered."""
        return self._total.answered

    @property
    def requests(self) -> int:
        """HTTP requests of the rows that are done, every attempt included."""
        return self._total.requests

    @property
    def in_flight(self) -> CurrentFlow | None:
        """The requests in flight now, and what limits them; None after the block, or where no host tells for 3 s."""
        return self._live.flow()

    @property
    def flow(self) -> JobFlow | None:
        """How the requests have gone so far, as `EnrichReport.flow`; None where no host has told."""
        return self._live.job_flow()

    @property
    def was_heard(self) -> bool:
        """Whether any worker has told anything."""
        return bool(self.udfs) or self.flow is not None

    @property
    def _total(self) -> Tally:
        return total_of(self.udfs.values())

    def __str__(self) -> str:
        tallies, total, flow = self.udfs, self._total, self.flow
        failed = total.asked - total.answered
        facts = {
            "rows": f"{self.rows:,}",
            "asked": f"{total.asked:,}",
            "answered": f"{total.answered:,}",
            "failed": f"{failed:,} ({by_kind(total.failed)})" if failed else "",
            "not asked": f"{total.cancelled:,} cancelled: their task had stopped" if total.cancelled else "",
            "requests": f"{total.requests:,}" if total.requests else "",
            "tokens": self._tokens_text(),
            "in flight": "" if flow is None else str(flow),
        }
        lines = text_table([(name, fact) for name, fact in facts.items() if fact])
        if len(tallies) < 2:
            return lines
        numbers = {
            name: (each.asked, each.answered, each.asked - each.answered, each.requests, each.total_tokens)
            for name, each in tallies.items()
        }
        cells = ([name, *map("{:,}".format, row)] for name, row in numbers.items())
        return f"{lines}\n\n{text_table([_HEADINGS, *cells], right_aligned=range(1, len(_HEADINGS)))}"

    __repr__ = __str__


@checks_arguments
def progress(spark: SparkSession) -> AbstractContextManager[WatchedBlock]:
    """Show what the UDFs of this library do while the actions of a `with` block run.

    >>> with progress(spark) as watched:
    ...     df.withColumn("mood", chat("review")).write.saveAsTable("moods")
    >>> watched.total_tokens

    A bar in a terminal or a notebook, or one line a minute where stderr is no terminal: rows, rows a second, tokens,
    errors by kind, the requests in flight and what limits them. In the block, the limits of a policy hold over all
    hosts of a cluster, as in `enrich_table`, which shows its own bar. Workers send their counts to this process over
    UDP; no row, answer or token is in them. Where none arrive, a line says so, and the job goes on.

    It gives the numbers of the block, which are kept after its end. What was asked twice counts twice; of a task that
    failed and ran again, the last attempt counts.

    Raises:
        ConfigError: This is no Spark session, or a stopped one.
    """
    _check_session(spark)
    return _watched(spark)


def _check_session(spark: SparkSession) -> None:
    """Raise `ConfigError` for what is no session, and for a stopped one."""
    try:
        spark.conf.get(SETTING, "")
        if not is_remote():
            spark.newSession()  # a stopped session of classic Spark still has its settings
    except AttributeError:
        raise ConfigError(f"{spark!r} is not a Spark session.", "write it as: with progress(spark): …") from None
    except Exception as error:
        if isinstance(error, PySparkException) and "NO_ACTIVE_SESSION" not in str(error):
            return  # a server that refuses the setting: the block says so
        raise ConfigError("The Spark session is stopped.", "make one: SparkSession.builder.getOrCreate().") from error


@contextmanager
def _watched(spark: SparkSession) -> Iterator[WatchedBlock]:
    allotter, tasks, said = Allotter(), _Tasks(), list[str]()
    answer = partial(answer_to_need, allotter)
    live = LiveCounts(driver_host(spark), answer, secret=process_secret(), is_needed=allotter.is_needed)
    watched = WatchedBlock(live)

    def say(why: str) -> None:
        """Say once why no rows are shown."""
        if not said and not watched.was_heard and not bar.gave_way:
            said.append(why)
            bar.note(why + (" Spark's tasks are shown instead." if tasks.are_shown else ""))

    def tasks_text() -> str:
        return "" if watched.was_heard or bar.gave_way else tasks.text

    bar = Progress(None, live, other=tasks_text)
    with Telemetry("progress", {}) as telemetry, bar, tasks.shown(spark):
        with live, _announced(spark, live, telemetry) as (is_announced, why):
            if not is_announced:
                say(why)
            alarm = threading.Timer(SILENT_S, say, [why])
            alarm.daemon = True
            with suppress(RuntimeError):  # the machine has no thread left
                alarm.start()
            try:
                yield watched
            finally:
                alarm.cancel()
        say(why)


@contextmanager
def _announced(spark: SparkSession, live: LiveCounts, telemetry: Telemetry) -> Iterator[tuple[bool, str]]:
    """Name the block in the session's setting; give whether that worked, and the reason where no counts come."""
    telemetry.watch(live)
    if live.address is None:
        yield False, "no rows are shown, because this process has no address that workers can reach."
        return
    block = Block(live.address.host, live.address.port, secrets.randbits(48), live.address.operations)
    live.begin(block.number)
    try:
        spark.conf.set(SETTING, block.added_to(spark.conf.get(SETTING, "") or ""))
    except PySparkException:
        yield False, f"no rows are shown, because the session refuses the setting {SETTING}."
        return
    why = "no counts have come. No query of this session has had answers that this block counts, or the workers"
    try:
        yield True, f"{why} cannot reach {block.host}:{block.port} over UDP."
    finally:
        with suppress(Exception):  # the session may be stopped
            left = block.removed_from(spark.conf.get(SETTING, "") or "")
            if left:
                spark.conf.set(SETTING, left)
            else:
                spark.conf.unset(SETTING)


class _Tasks:
    """The tasks of the query that runs, as Spark Connect tells its client; classic Spark does not."""

    def __init__(self) -> None:
        self.are_shown = False
        self.text = ""

    def __call__(self, stages: Iterable[Any] | None, **_: object) -> None:
        """Hear what Spark calls a progress handler with."""
        stages = list(stages or ())
        if total := sum(stage.num_tasks for stage in stages):
            self.text = f"{sum(stage.num_completed_tasks for stage in stages):,} of {total:,} Spark tasks"

    @contextmanager
    def shown(self, spark: SparkSession) -> Iterator[None]:
        """Hear of the tasks in the block, where Spark tells of them."""
        self.are_shown = is_remote() and hasattr(spark, "registerProgressHandler")
        handler: Any = self
        if self.are_shown:
            spark.registerProgressHandler(handler)
        try:
            yield
        finally:
            if self.are_shown:
                with suppress(Exception):
                    spark.removeProgressHandler(handler)
