"""The overhead of the AI functions over their UDF, and the time to parse a typed answer."""

import time
from functools import partial

from pyspark.sql import functions as F
from pyspark.sql.types import ArrayType, BooleanType, DecimalType, IntegerType, StringType, StructField, StructType

from benchmarks.support.endpoint_process import CHAT
from benchmarks.support.figures import Figure, Goal
from benchmarks.support.session import Bench, ColumnFunction, bench
from spark_llm import Policy, chat_udf
from spark_llm.ai.prompts import CLASSIFY
from spark_llm.ai.sql import register_ai_functions
from spark_llm.protocol.structured.output import Mismatch
from spark_llm.udf.returns import structured_output_of

IN_FLIGHT = 64
FULL = {"rounds": 7, "rows": 10_000, "reads": 20_000}
SHORT = {"rounds": 1, "rows": 500, "reads": 500}
LABELS = "array('positive', 'negative')"
ANSWER = '{"answer":"positive"}'  # the endpoint answers with the last word of a text, so this is the answer
TRUE, SEVEN = '{"answer":true}', '{"answer":7}'
FIELDS = [
    StructField("mood", StringType()),
    StructField("stars", IntegerType()),
    StructField("refund", BooleanType()),
    StructField("price", DecimalType(10, 2)),
    StructField("topics", ArrayType(StringType())),
]
FIVE = (
    '{"mood": "positive, on the whole", "stars": 4, "refund": false, "price": 1299.90,'
    ' "topics": ["battery", "screen", "delivery"]}'
)
FENCED = f"<think>\nThe review is mixed.\n</think>\nHere is the object:\n```json\n{FIVE}\n```\n"


def measure(*, short: bool) -> list[Figure]:
    """Time the SQL functions and the UDFs in turn, at zero latency; then the parsing of one answer."""
    size = SHORT if short else FULL
    rows, rounds = size["rows"], size["rounds"]
    with bench(1) as spark:
        columns = _contenders(spark)
        for ask in columns.values():
            spark.warm(ask, rows // 4)
        seconds_of: dict[str, list[float]] = {name: [] for name in columns}
        for _ in range(rounds):
            for name, ask in columns.items():
                seconds_of[name].append(spark.time_job(ask, rows)[0])
    best_s = {name: min(seconds) for name, seconds in seconds_of.items()}

    def time_ratio(what: str, ours: str, theirs: str, note: str = "", most: float = 1.1) -> Figure:
        ratio = best_s[ours] / best_s[theirs]
        our_speed, their_speed = (f"{rows / best_s[name]:,.0f} rows/s" for name in (ours, theirs))
        return Figure(what, [ratio], our_speed, their_speed, Goal(at_most=most), note=note)

    note = (
        f"AI functions: registered, and called in SQL on {rows:,} different rows at zero latency on `local[1]`, "
        f"{IN_FLIGHT} in flight; the fastest of {rounds} rounds of each, in turn. The bare UDF asks the same text "
        "without instructions, the typed one with those of `ai_classify` and a struct of one string."
    )
    return [
        time_ratio("`ai_gen` in SQL, of the time of the bare chat_udf", "gen", "bare", note),
        time_ratio("… `ai_classify`, of the bare chat_udf's", "classify", "bare to classify"),
        time_ratio("… `ai_classify`, of that of chat_udf(returns=…)", "classify", "typed"),
        time_ratio("… `ai_filter`, of the bare chat_udf's", "filter", "bare to filter", most=1.05),
        time_ratio("… `ai_score`, of the bare chat_udf's", "score", "bare to score", most=1.05),
        *_parsing(size["reads"], rounds),
    ]


def _contenders(spark: Bench) -> dict[str, ColumnFunction]:
    """Return the SQL functions and the UDFs, on the same texts."""
    url, policy = spark.endpoint.url(CHAT), Policy(max_in_flight=IN_FLIGHT)
    bare = chat_udf(url, policy=policy)
    system = CLASSIFY.format(labels='"positive", "negative"')
    typed = chat_udf(url, system=system, returns="answer STRING", policy=policy)
    register_ai_functions(spark.spark, chat=bare)

    def followed_by(answer: str, column: str) -> str:
        return f"concat({column}, ' {answer}')"

    to_classify, to_filter, to_score = (partial(followed_by, answer) for answer in (ANSWER, TRUE, SEVEN))
    return {
        "gen": lambda column: F.expr(f"ai_gen({column})"),
        "bare": lambda column: bare(column)["text"],
        "classify": lambda column: F.expr(f"ai_classify({to_classify(column)}, {LABELS})"),
        "bare to classify": lambda column: bare(F.expr(to_classify(column)))["text"],
        "filter": lambda column: F.expr(f"ai_filter({to_filter(column)}, 'it is a row')"),
        "bare to filter": lambda column: bare(F.expr(to_filter(column)))["text"],
        "score": lambda column: F.expr(f"ai_score({to_score(column)}, 'how good it is')"),
        "bare to score": lambda column: bare(F.expr(to_score(column)))["text"],
        "typed": lambda column: typed(F.expr(to_classify(column)))["parsed"]["answer"],
    }


def _parsing(reads: int, rounds: int) -> list[Figure]:
    """Return the time of parsing an answer of JSON only, and of one in a code fence after reasoning."""
    plain, fenced = ([_parse_us(text, reads) for _ in range(rounds)] for text in (FIVE, FENCED))
    note = (
        f"Reading: the fastest of {rounds} rounds of {reads:,} answers with a string, an integer, a boolean, a decimal "
        "and an array of strings, from the model's text to the values of a column."
    )
    goal = Goal(at_most=50)
    return [
        Figure("reading a typed answer of 5 fields", [min(plain)], goal=goal, unit="µs", digits=1, note=note),
        Figure("… that stands in a code fence, after reasoning", [min(fenced)], unit="µs", digits=1),
    ]


def _parse_us(text: str, reads: int) -> float:
    """Return the mean time of a parse in µs; raises `RuntimeError` for a wrong value."""
    output = structured_output_of(StructType(FIELDS))
    value = output.parse(text)
    if isinstance(value, Mismatch) or list(value) != [field.name for field in FIELDS]:
        raise RuntimeError(f"The answer was parsed as {value!r}.")
    start_s = time.perf_counter()
    for _ in range(reads):
        output.parse(text)
    return (time.perf_counter() - start_s) / reads * 1e6
