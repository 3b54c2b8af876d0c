"""`classify_by_sample`: the chat model labels a sample, a light model the rest, and the chat model what is unsure.

Texts are the different contents of a DataFrame, by their SHA-256; each is embedded once and asked once at most. Models
are called where an answer is kept, by `PaidAnswers`, and nowhere else.
"""

import math
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

from pyspark.sql import Column, DataFrame, Window
from pyspark.sql import functions as F

from spark_llm.ai.columns import Model, Text, function_column, text_column_of
from spark_llm.ai.dataframes.agreement import (
    Agreement,
    agreements,
    default_sample,
    fewest_held_out,
    loosest,
)
from spark_llm.ai.dataframes.decided_rows import (
    ADDED,
    LABEL,
    of_asked,
    of_model,
    of_sample,
    with_decisions,
    with_digests,
)
from spark_llm.ai.dataframes.light_model import LightModel, is_usable
from spark_llm.ai.dataframes.paid_answers import PaidAnswers, Request
from spark_llm.ai.dataframes.sample_report import SampleReport, agreement_text
from spark_llm.errors import HINT, ConfigError, SampleError
from spark_llm.protocol.canonical import spec_digest
from spark_llm.text.excerpt import excerpt
from spark_llm.udf.by_task import model_udf
from spark_llm.udf.model_udf import ModelUDF
from spark_llm.validation.arguments import checks_arguments
from spark_llm.validation.numbers import check_whole, is_number, is_whole

_HAS_VECTOR = "coalesce(size(vector.embedding), 0) > 0"
_MAX_SEED = 2**63 - 1
_ASK_ALL = "ai_classify asks the chat model about every row"


class Classified(NamedTuple):
    """The result of `classify_by_sample`: the labelled rows, and the report; no action on the rows asks a model."""

    rows: DataFrame
    report: SampleReport


@checks_arguments
def classify_by_sample(
    df: DataFrame,
    content: Text,
    labels: object,
    *,
    chat: Model,
    embed: Model,
    agreement: float = 0.95,
    sample: float | None = None,
    seed: int = 0,
    folder: str | Path | None = None,
) -> Classified:
    """Classify rows as `ai_classify` does, but let a small model decide where it agrees with the chat model.

    >>> rows, report = classify_by_sample(df, "review", ["praise", "complaint"], chat="my-endpoint", embed="my-vectors")
    >>> rows.select("review", "label", "decided_by"), report.asked, report.found.lower_bound

    It asks at once, not when the result is read. The chat model labels a sample. Spark's logistic regression learns
    from the vectors of one half of it. The other half measures above which probability the small model agrees often
    enough. Only then are the other rows embedded, and those below that probability asked. Rows with equal contents
    are asked once; `df` is evaluated once.

    The result's `rows` have the columns of `df` and:

    - `label`: null for a null content, and for a failed row;
    - `decided_by`: "chat" for a row that was asked, "model" for one that the small model decided;
    - `probability`: the small model's, of its label; null in the sample and without a vector;
    - `usage`, `embed_usage`: tokens of the chat model and of the embedding model, in one of the rows with equal
      contents; their sums are what this call was billed;
    - `error`: why an asked row failed.

    Cost: a vector for each different content, and a chat request for each of the sample and for each unsure one.

    Args:
        df: The rows.
        content: The texts, a column of strings or its name.
        labels: As in `ai_classify`, the same for all rows.
        chat: The model whose labels count.
        embed: The embedding model.
        agreement: Of the contents that the small model decides, the share that has to get the chat model's label. The
            lower bound of what is measured has to reach it, at 95 % confidence.
        sample: How many contents to ask first, or the share of them, below 1. Default: 50 / (1 - agreement), so 1,000
            for 0.95.
        seed: Another one draws another sample. A text's place in the draw depends on nothing else.
        folder: A path for Spark, where vectors and answers are kept as Parquet. A later call, also after a
            `SampleError`, does not pay for them again. Without it they are in the storage of Spark's executors.

    Raises:
        ConfigError: An argument is wrong; raised before Spark runs.
        SampleError: There are too few contents, vectors or answers, the sample has one label, or the small model does
            not agree often enough. The rest was not asked; the error has the report, and the sample's answers.
    """
    _check_frame(df)
    text = text_column_of(df, "content", content)
    if not is_number(agreement) or not 0 < agreement < 1:
        raise ConfigError(
            f"agreement={agreement!r} is not a number between 0 and 1.",
            "set the share of equal labels, such as 0.95; for all of them use ai_classify.",
        )
    job = _Job(
        _classification(labels, model_udf("chat", chat)),
        _embedding(model_udf("embed", embed)),
        agreement,
        _sample_size(sample, agreement),
        check_whole("seed", seed, -_MAX_SEED, _MAX_SEED),
        PaidAnswers(_path(folder)),
    )
    return job.run(with_digests(df, text))


@dataclass
class _Job:
    """A call: what it asks, and its report so far."""

    classification: Request
    embedding: Request
    agreement: float
    sample: float  # texts, or below 1 their share
    seed: int
    paid: PaidAnswers
    report: SampleReport = field(default_factory=SampleReport)

    def run(self, df: DataFrame) -> Classified:
        """Classify the rows; raises `SampleError`."""
        rows = self.paid.keep_rows(df)
        texts = rows.where("first AND digest IS NOT NULL").select("digest", "content")
        [(count, different)] = rows.agg(F.count("*"), F.count(F.expr("CASE WHEN first THEN digest END"))).collect()
        self._set(rows=count, texts=different, wanted=self.agreement)
        if not different:
            return Classified(with_decisions(rows, []), self.report)
        sample = self._asked_sample(texts)
        try:
            model, threshold = self._model(sample)
        except SampleError as error:
            error.sample = sample.select("content", F.col(LABEL).alias("label"), "answer.usage", "answer.error")
            raise
        rest = self._decided_rest(texts.join(sample, "digest", "left_anti"), model, threshold)
        asked = self.paid.keep(self.paid.ask(rest.where("content IS NOT NULL"), self.classification))
        self._count_answers(asked)
        return Classified(with_decisions(rows, [of_sample(sample), of_asked(asked), of_model(rest)]), self.report)

    def _asked_sample(self, texts: DataFrame) -> DataFrame:
        """Return the sample with its vectors and answers; no chat request is sent before enough of it has a vector."""
        count = self.report.texts
        size = int(self.sample) if self.sample >= 1 else math.ceil(self.sample * count)
        fewest = 2 * fewest_held_out(self.agreement)
        if not fewest <= size < count:
            raise self._error(
                f"There are {count:,} different texts, too few for a sample of {size:,}; an agreement of"
                f" {self.agreement:g} needs one of {fewest:,} at least, and other texts beside it.",
                f"{_ASK_ALL}; or lower agreement=, or set sample=.",
            )
        draw = F.sha2(F.concat(F.lit(f"{self.seed}:"), "digest"), 256)
        drawn = texts.withColumn("draw", draw).orderBy("draw").limit(size)
        held_out = F.row_number().over(Window.partitionBy(F.lit(0)).orderBy("draw")) % 2 == 0
        halves = drawn.select("digest", "content", held_out.alias("held_out"))
        embedded = self.paid.keep(self.paid.ask(halves, self.embedding))
        self._set(sampled=size)
        usable = self._count_vectors(embedded)
        if usable < fewest:
            raise self._error(
                f"{usable:,} of the {size:,} texts of the sample have a vector, {fewest:,} are needed"
                f"{_example(embedded, 'vector')}.",
                "check the embedding model with preflight; no chat request was sent.",
            )
        answered = self.paid.keep(self.paid.ask(embedded, self.classification))
        self._count_answers(answered)
        return answered

    def _model(self, sample: DataFrame) -> tuple[LightModel, float]:
        """Return the fitted model, and the probability above which it decides; raises `SampleError`."""
        [(length,)] = sample.where(_HAS_VECTOR).agg(F.mode(F.size("vector.embedding"))).collect()
        usable = sample.where(is_usable(F.col("vector.embedding"), length) & F.col(LABEL).isNotNull()).select(
            "held_out", F.col("vector.embedding").alias("vector"), F.col(LABEL).alias("label")
        )
        labels = usable.groupBy("held_out", "label").count().collect()
        known = sorted(row["label"] for row in labels if not row["held_out"])
        halves = {half: sum(row["count"] for row in labels if row["held_out"] is half) for half in (True, False)}
        self._set(learned=halves[False], held_out=halves[True])
        if halves[True] < (fewest := fewest_held_out(self.agreement)):
            raise self._error(
                f"{halves[True]:,} texts of the sample are left to measure an agreement of {self.agreement:g}, and"
                f" {fewest:,} are needed{_example(sample, 'answer')}.",
                f"look at the errors of the sample, or set a larger sample=; {_ASK_ALL}.",
            )
        if len(known) < 2:
            raise self._error(
                f"All texts that the small model can learn from have the label {', '.join(map(repr, known))}.",
                f"check the labels, or set a larger sample= to find other ones; {_ASK_ALL}.",
            )
        model = LightModel.fit(usable.where("NOT held_out").select("vector", "label"), tuple(known))
        held_out = usable.where("held_out").select("vector", F.col("label").alias("asked"))
        return model, self._threshold(model.decide(held_out).select("probability", "label", "asked"))

    def _threshold(self, held_out: DataFrame) -> float:
        measured = [(row["probability"], row["label"] == row["asked"]) for row in held_out.collect()]
        tried = agreements([each for each, _ in measured], [agrees for _, agrees in measured], self.agreement)
        found = loosest(tried, self.agreement)
        best: Agreement = found or max(tried, key=lambda each: each.lower_bound)
        self._set(found=best)
        if found is None:
            raise self._error(
                f"The small model does not agree often enough: {agreement_text(best, self.agreement)}.",
                f"{self.report.cost_of_the_rest}: {_ASK_ALL}. Or lower agreement=, set a larger sample=, or choose an"
                " embedding model that tells the labels apart.",
            )
        return found.threshold

    def _decided_rest(self, texts: DataFrame, model: LightModel, threshold: float) -> DataFrame:
        """Return the rest with the small model's labels; `content` is null in rows that it decides."""
        vectors = self.paid.ask(texts, self.embedding)
        named = vectors.select("digest", "content", "vector.embedding", F.col("vector.usage").alias("embed_usage"))
        sure = F.expr("probability IS NOT NULL") & (F.col("probability") > threshold)
        decided = model.decide(named.withColumnRenamed("embedding", "vector"))
        rest = self.paid.keep(decided.withColumn("content", F.when(~sure, F.col("content"))))
        [row] = rest.agg(
            F.count_if(F.col("content").isNull()), F.count_if(F.col("probability").isNull()), _tokens("embed_usage")
        ).collect()
        self._add(decided=row[0], without_vector=row[1], embed_tokens=row[2])
        return rest

    def _count_vectors(self, rows: DataFrame) -> int:
        """Add the vectors of the sample to the report; return how many there are."""
        [(count, tokens)] = rows.agg(F.count_if(F.expr(_HAS_VECTOR)), _tokens("vector.usage")).collect()
        self._add(without_vector=self.report.sampled - count, embed_tokens=tokens)
        return int(count)

    def _count_answers(self, rows: DataFrame) -> None:
        """Add answers of the chat model to the report."""
        failed = F.count_if(F.col("answer.error").isNotNull())
        [(count, errors, tokens)] = rows.agg(F.count("*"), failed, _tokens("answer.usage")).collect()
        self._add(asked=count, failed=errors, chat_tokens=tokens)

    def _set(self, **values: Any) -> None:  # noqa: ANN401 -- fields of the report
        self.report = replace(self.report, **values)

    def _add(self, **counts: int) -> None:
        self._set(**{name: getattr(self.report, name) + count for name, count in counts.items()})

    def _error(self, what: str, hint: str) -> SampleError:
        error = SampleError(what, hint)
        error.report = self.report
        return error


def _check_frame(df: DataFrame) -> None:
    if not isinstance(df, DataFrame) or df.isStreaming:
        raise ConfigError("df is not a DataFrame that has an end.", "pass a DataFrame; of a stream, each batch of it.")
    if taken := [each.name for each in ADDED if each.name in df.columns]:
        raise ConfigError(
            f"df has a column {taken[0]!r}, which the result adds.", "rename it, as in withColumnRenamed()."
        )


def _sample_size(sample: float | None, agreement: float) -> float:
    """Return the size that was given, or the default; raises `ConfigError` for one that can show no agreement."""
    fewest = 2 * fewest_held_out(agreement)
    if sample is None:
        return default_sample(agreement)
    if (is_whole(sample) and sample >= fewest) or (is_number(sample) and 0 < sample < 1):
        return sample
    raise ConfigError(
        f"sample={sample!r} is neither a number of texts of at least {fewest:,} nor a share below 1.",
        f"an agreement of {agreement:g} needs {fewest:,} texts, if all of them agree; the default is"
        f" {default_sample(agreement):,}.",
    )


def _path(folder: str | Path | None) -> str | None:
    if folder is None:
        return None
    if not isinstance(folder, (str, Path)) or not str(folder).strip():
        raise ConfigError(f"folder={folder!r} is not a path.", 'name one that Spark can write, as "/data/reviews".')
    return str(folder).rstrip("/")


def _classification(labels: object, chat: ModelUDF) -> Request:
    if isinstance(labels, Column):
        raise ConfigError(
            "labels is a column, but a small model has the same labels for all rows.", "pass a list of strings."
        )
    answer = function_column("classify", chat, "content", labels=labels)
    return Request("answer", answer, spec_digest({"classify": chat.plan().canonical, "labels": labels}))


def _embedding(embed: ModelUDF) -> Request:
    return Request("vector", embed("content"), spec_digest(embed.plan().canonical))


def _tokens(usage: str) -> Column:
    return F.coalesce(F.sum(f"{usage}.total_tokens"), F.lit(0))


def _example(rows: DataFrame, name: str) -> str:
    """Return an error of the sample in brackets; empty where there is none."""
    found = rows.where(F.col(name)["error"].isNotNull()).select(f"{name}.error.kind", f"{name}.error.message").first()
    return "" if found is None else f" (for example {found[0]}: {excerpt(found[1].partition(HINT)[0])})"
