"""Functions of columns that give a text for a text, and the sentiment of one."""

from collections.abc import Sequence

from pyspark.sql import Column

from spark_llm.ai.columns import Model, Text, function_column
from spark_llm.validation.arguments import checks_arguments


@checks_arguments
def ai_gen(prompt: Text, *, chat: Model) -> Column:
    """Return the model's answer to a prompt, as a string.

    >>> df.withColumn("reply", ai_gen("mail", chat="my-endpoint"))
    """
    return llm_gen(prompt, chat=chat)["text"]


@checks_arguments
def llm_gen(prompt: Text, *, chat: Model) -> Column:
    """Return the model's answer to a prompt, as `schemas.CHAT`."""
    return function_column("gen", chat, prompt)


@checks_arguments
def ai_summarize(content: Text, max_words: int | Column = 50, *, chat: Model) -> Column:
    """Return a summary of a text, as a string; `max_words` of 0 leaves its length to the model.

    >>> df.withColumn("summary", ai_summarize("review", 20, chat="my-endpoint"))
    """
    return llm_summarize(content, max_words, chat=chat)["text"]


@checks_arguments
def llm_summarize(content: Text, max_words: int | Column = 50, *, chat: Model) -> Column:
    """Return a summary of a text, as `schemas.CHAT`."""
    return function_column("summarize", chat, content, max_words=max_words)


@checks_arguments
def ai_translate(content: Text, to_lang: str | Column, *, chat: Model) -> Column:
    """Return a text in another language, as a string; `to_lang` is a code, like "fr", or a language's name.

    >>> df.withColumn("french", ai_translate("mail", "fr", chat="my-endpoint"))
    """
    return llm_translate(content, to_lang, chat=chat)["text"]


@checks_arguments
def llm_translate(content: Text, to_lang: str | Column, *, chat: Model) -> Column:
    """Return a text in another language, as `schemas.CHAT`."""
    return function_column("translate", chat, content, to_lang=to_lang)


@checks_arguments
def ai_analyze_sentiment(content: Text, *, chat: Model) -> Column:
    """Return the sentiment of a text: "positive", "negative", "neutral" or "mixed".

    >>> df.withColumn("mood", ai_analyze_sentiment("review", chat="my-endpoint"))
    """
    return llm_analyze_sentiment(content, chat=chat)["parsed"]


@checks_arguments
def llm_analyze_sentiment(content: Text, *, chat: Model) -> Column:
    """Return the sentiment of a text as `parsed`, with tokens and error."""
    return function_column("analyze_sentiment", chat, content)


@checks_arguments
def ai_fix_grammar(content: Text, *, chat: Model) -> Column:
    """Return a text with its grammar and spelling corrected, as a string.

    >>> df.withColumn("corrected", ai_fix_grammar("mail", chat="my-endpoint"))
    """
    return llm_fix_grammar(content, chat=chat)["text"]


@checks_arguments
def llm_fix_grammar(content: Text, *, chat: Model) -> Column:
    """Return a text with its grammar and spelling corrected, as `schemas.CHAT`."""
    return function_column("fix_grammar", chat, content)


@checks_arguments
def ai_mask(content: Text, labels: Sequence[str] | Column, *, chat: Model) -> Column:
    """Return a text with `[MASKED]` in place of everything that `labels` name, as a string.

    >>> df.withColumn("masked", ai_mask("mail", ["person", "phone number"], chat="my-endpoint"))
    """
    return llm_mask(content, labels, chat=chat)["text"]


@checks_arguments
def llm_mask(content: Text, labels: Sequence[str] | Column, *, chat: Model) -> Column:
    """Return a text with `[MASKED]` in place of everything that `labels` name, as `schemas.CHAT`."""
    return function_column("mask", chat, content, labels=labels)
