"""Classification by labels: what a row is told of its labels, and the type of its answer.

Labels are a list, or a map to what each means. Further options are instructions in the user's words, examples with
their labels, and whether the reason and the confidence are wanted. Knows no column, no SQL, no Spark.
"""

from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

from spark_llm.ai import prompts
from spark_llm.ai.judgements import option_error
from spark_llm.protocol.json_codec import write_json
from spark_llm.protocol.structured.classification import Classification
from spark_llm.protocol.values import Prompt, RowError

MAX_LABELS = 500
MAX_CACHED_LISTS = 100  # label lists, each of up to MAX_LABELS texts, whose instructions stay in memory

Text = str | None  # of a column, which may have nulls
Labels = Sequence[Text] | Sequence[tuple[str, Text]] | Mapping[str, Text]  # a map is its entries, as Arrow has it
Descriptions = Sequence[tuple[str, Text]] | Mapping[str, Text]
Examples = Sequence[Mapping[str, Text] | Sequence[Text] | None]


def label_prompt(content: str, labels: Labels, *, confidence: bool = False, **options: Any) -> Prompt | RowError:  # noqa: ANN401 -- those of `_Choice.of`
    """Return the prompt that asks for the one label of a text."""
    return _prompt(content, _Choice.of(labels, **options)._replace(confidence=confidence))


def labels_prompt(content: str, labels: Labels, **options: Any) -> Prompt | RowError:  # noqa: ANN401 -- as above
    """Return the prompt that asks for all labels of a text."""
    return _prompt(content, _Choice.of(labels, **options)._replace(several=True))


def choice_error(labels: Labels | None = None, *, confidence: bool = False, **options: Any) -> RowError | None:  # noqa: ANN401, ARG001 -- as above
    """Return the error of labels and options by which no text can be classified, as far as they are known."""
    choice = _Choice.of(labels or (), **options)
    if labels is not None and (error := label_error(choice.labels)) is not None:
        return error
    return _option_error(choice, set(choice.labels) if labels is not None else None)


def label_error(labels: Sequence[Text]) -> RowError | None:
    """Return the error of a list of labels that cannot be used."""
    if not labels:
        return option_error("the list of labels is empty", "name at least one label, as in array('angry', 'happy')")
    if not all(label and label.strip() for label in labels):
        return option_error("a label is null or blank", "leave it out of the list")
    if len(labels) > MAX_LABELS:
        return option_error(
            f"{len(labels)} labels are more than the limit of {MAX_LABELS}", "name fewer, or classify in two steps"
        )
    if len(set(labels)) < len(labels):
        return option_error("a label is in the list twice", "name each label once, for example with array_distinct()")
    return None


def json_list(labels: Sequence[Text]) -> str:
    """Return labels as JSON strings, so that a comma inside a label does not end it."""
    return ", ".join(map(_json, labels))


class _Choice(NamedTuple):
    """The labels of a row and all that is said of them; equal ones share their instructions."""

    labels: tuple[Text, ...]
    descriptions: tuple[tuple[str, Text], ...] = ()
    instructions: str = ""
    examples: tuple[tuple[Text, Text], ...] = ()
    rationale: bool = False
    several: bool = False
    confidence: bool = False

    @classmethod
    def of(
        cls,
        labels: Labels,
        descriptions: Descriptions = (),
        instructions: str = "",
        examples: Examples = (),
        rationale: bool = False,  # noqa: FBT001, FBT002 -- in the order of the parameters in SQL
    ) -> "_Choice":
        """Return the choice that a row's arguments describe."""
        described = _entries(descriptions)
        if isinstance(labels, Mapping) or (labels and isinstance(labels[0], tuple)):
            own = _entries(labels)  # type: ignore[arg-type]  # of a map, by its first
            labels, described = [label for label, _ in own], own + described
        return cls(tuple(labels), described, instructions, tuple(map(_pair, examples)), rationale)  # type: ignore[arg-type]  # as above


def _entries(entries: Descriptions) -> tuple[tuple[str, Text], ...]:
    return tuple(entries.items() if isinstance(entries, Mapping) else map(tuple, entries))  # type: ignore[arg-type]  # pairs


def _pair(example: Mapping[str, Text] | Sequence[Text] | None) -> tuple[Text, Text]:
    """Return the text of an example and its label."""
    if example is None:
        return None, None
    content, label = (example["content"], example["label"]) if isinstance(example, Mapping) else example
    return content, label


def _prompt(content: str, choice: _Choice) -> Prompt | RowError:
    found = _instructions(choice)
    return found if isinstance(found, RowError) else Prompt(content, *found)


@lru_cache(maxsize=MAX_CACHED_LISTS)
def _instructions(choice: _Choice) -> tuple[str, Classification] | RowError:
    if (error := label_error(choice.labels) or _option_error(choice, set(choice.labels))) is not None:
        return error
    labels = [str(label) for label in choice.labels]
    described = {label: text for label, text in choice.descriptions if text and text.strip()}
    listed = ", ".join(
        f"{_json(label)}: {_json(described[label])}" if label in described else _json(label) for label in labels
    )
    parts = [(prompts.CLASSIFY_MULTI if choice.several else prompts.CLASSIFY).format(labels=listed)]
    if choice.rationale:
        parts.append(prompts.CLASSIFY_REASON)
    if choice.instructions.strip():
        parts.append(prompts.CLASSIFY_INSTRUCTIONS.format(instructions=choice.instructions))
    if choice.examples:
        parts.append(prompts.CLASSIFY_EXAMPLES.format(examples="\n".join(_example_lines(choice))))
    output = Classification.of(labels, several=choice.several, rationale=choice.rationale, confidence=choice.confidence)
    return "\n".join(parts), output


def _example_lines(choice: _Choice) -> Iterable[str]:
    """Yield each example as JSON; where a text may have several labels, all those of one text are together."""
    if not choice.several:
        yield from (_json({"content": content, "label": label}) for content, label in choice.examples)
        return
    by_content = dict[Text, list[Text]]()
    for content, label in choice.examples:
        by_content.setdefault(content, []).append(label)
    yield from (_json({"content": content, "labels": labels}) for content, labels in by_content.items())


def _option_error(choice: _Choice, known: set[Text] | None) -> RowError | None:
    """Return the error of descriptions and examples; `known` are the labels, None where they are a column."""
    described = [label for label, _ in choice.descriptions]
    if (label := next((label for label, text in choice.descriptions if text is None), None)) is not None:
        return option_error(f"the description of {label!r} is null", "describe the label, or leave it out of the map")
    if len(set(described)) < len(described):
        return option_error("a label is described twice", "describe it in labels or in descriptions")
    if known is not None and (label := next((label for label in described if label not in known), None)) is not None:
        return option_error(f"{label!r} is described and is not among the labels", "add it to the labels, or remove it")
    for content, example in choice.examples:
        if content is None or example is None:
            return option_error("an example has a null", "give each example its content and its label")
        if known is not None and example not in known:
            return option_error(
                f"an example has the label {example!r}, which is not among the labels", "add the label, or remove it"
            )
    return None


def _json(value: object) -> str:
    return write_json(value).decode()
