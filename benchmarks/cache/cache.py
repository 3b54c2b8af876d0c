"""The time of cache hits and misses, and the requests that a cache saves."""

import contextlib
import tempfile
import time
from pathlib import Path

from benchmarks.support.behaviours import Steady
from benchmarks.support.endpoint_process import CHAT
from benchmarks.support.figures import Figure, Goal
from benchmarks.support.flow import WARM_ROWS
from benchmarks.support.session import PROMPT, bench
from spark_llm import Policy, chat_udf
from spark_llm.cache.answer_cache import Cache
from spark_llm.cache.entry import Keys, encoded_answer
from spark_llm.cache.sqlite_store import Store
from spark_llm.flow.batcher import Indexed
from spark_llm.protocol.chat.task import Chat
from spark_llm.protocol.values import Result, Usage

FULL = 100_000
SHORT = 2_000
JOB_ROWS = {"full": 20_000, "short": 500}
BATCH = 256  # rows of one lookup
ROUNDS = 5
SETTINGS = {"spark.sql.shuffle.partitions": "2"}  # with one partition, a sort would not compute the column twice
KEYS = Keys(Chat(system="Answer in one word."), "https://example.com/serving-endpoints/chat/invocations", None)
ANSWER = Result("positive, on the whole", None, None, "stop", Usage(40, 5, 45, 0, 0), "model", "request")


def measure(*, short: bool) -> list[Figure]:
    """Time lookups in a full file; then count the requests when Spark computes a column twice."""
    entries = SHORT if short else FULL
    with tempfile.TemporaryDirectory() as folder:
        _fill(Path(folder), entries)
        opened = [_seconds(folder, [_row(0)]) for _ in range(ROUNDS)]
        step = max(1, entries // 20_000)
        known = [_row(number) for number in range(0, entries, step)]
        hits = [_seconds(folder, known, found=len(known)) for _ in range(ROUNDS)]
        misses = [_seconds(folder, [_row(-1 - number) for number in range(len(known))]) for _ in range(ROUNDS)]
    rows = JOB_ROWS["short" if short else "full"]
    first, second, sorting = _requests(rows)
    return [
        Figure(
            "an answer from the cache",
            [seconds / len(known) * 1e6 for seconds in hits],
            goal=Goal(at_most=60),
            unit="µs",
            digits=1,
            note=f"Cache: {entries:,} answers of a few words in one file; {len(known):,} rows are looked up, "
            f"{BATCH} at a time, in a process that has just opened it.",
        ),
        Figure(
            "… of a row that is not there",
            [seconds / len(known) * 1e6 for seconds in misses],
            unit="µs",
            digits=1,
        ),
        Figure(
            f"… opening {entries:,} of them, and the first look",
            [seconds * 1e3 for seconds in opened],
            goal=Goal(at_most=50),
            unit="ms",
            digits=1,
        ),
        Figure(
            "… further requests of a second action, and of `orderBy`",
            [second + sorting - rows],
            f"{second:,}; {sorting:,}",
            f"{first:,}",
            Goal(at_most=0),
            unit="requests",
            digits=0,
            note=f"The job of the cache: {rows:,} different rows in one task. The baseline is its first action; the "
            "sort has a cache of its own, and Spark computes the column twice in it.",
        ),
    ]


def _row(number: int) -> Indexed:
    return number, f"{PROMPT}{number}"


def _fill(folder: Path, entries: int) -> None:
    entry = encoded_answer(ANSWER)
    with contextlib.closing(Store(folder)) as store:
        for first in range(0, entries, 1_000):
            keys = (KEYS.of(_row(number)[1]) for number in range(first, min(entries, first + 1_000)))
            store.put({key: entry for key in keys if key is not None}, now=time.time())


def _seconds(folder: str, rows: list[Indexed], found: int | None = None) -> float:
    """Return the seconds to look rows up as a task does; raises `RuntimeError` for a wrong number of hits."""
    cache = Cache(folder, KEYS)
    start_s = time.perf_counter()
    known = sum(len(cache.find(rows[start : start + BATCH])[1]) for start in range(0, len(rows), BATCH))
    seconds = time.perf_counter() - start_s
    cache.close()
    if found is not None and known != found:
        raise RuntimeError(f"The cache found {known} of {found} rows.")
    return seconds


def _requests(rows: int) -> tuple[int, int, int]:
    """Return the requests of a first action, of a second one, and of a sort with an empty cache."""
    requests = []
    with tempfile.TemporaryDirectory() as folder, bench(1, SETTINGS) as spark:
        spark.warm(chat_udf(spark.endpoint.url(CHAT)), WARM_ROWS)
        url = spark.endpoint.url(CHAT, Steady(median_s=0.01))
        for name, order in (("actions", []), ("actions", []), ("sort", ["answer.text"])):
            ask = chat_udf(url, policy=Policy(cache=Path(folder) / name))
            answers = spark.prompts(rows).select(ask("prompt").alias("answer"))
            spark.endpoint.reset()
            (answers.orderBy(*order) if order else answers).write.format("noop").mode("overwrite").save()
            requests.append(spark.endpoint.counters().requests)
    first, second, sorting = requests
    return first, second, sorting
