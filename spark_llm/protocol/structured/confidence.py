"""The confidence of a label, from the logprobs of the answer's tokens.

It is read at the first token which says something about the label: after it, fewer labels are possible than before. The
alternatives to that token which begin a label share one whole; the confidence is the part of those that begin the
chosen label. The number that a model writes about itself is never read.

Source: `logprobs` of a choice, in the OpenAI API reference.
"""

import codecs
import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from spark_llm.protocol.json_codec import write_json

_BEFORE_TEXT = re.compile(rb'\s*(?::\s*(?:"(?P<text>.*))?)?', re.DOTALL)  # what follows the name of a field
_CHARACTERS = re.compile(rb'(?:[^"\\]|\\u[0-9a-fA-F]{4}|\\[^u])*', re.DOTALL)  # of a string in JSON
_HALF_ESCAPE = re.compile(rb"\\(?:u[0-9a-fA-F]{0,3})?")
_HIGH_SURROGATE = re.compile("[\ud800-\udbff]$")


class _Token(NamedTuple):
    """A token of an answer, with its logprob, and those of the alternatives that the server names."""

    text: bytes
    logprob: float
    alternatives: Sequence[tuple[bytes, float]]


def label_confidence(logprobs: object, field: str, label: str, labels: Sequence[str]) -> float | None:
    """Return the confidence, above 0 and at most 1, of a `label` that an answer has in a `field`.

    It is None where there are no logprobs, and where the first token about the label begins another label too.
    """
    tokens = _tokens(logprobs)
    answer = b"".join(token.text for token in tokens)
    start = _value_start(answer, field, label, labels)
    if start is None:
        return None
    begin = end = 0
    for token in tokens:
        begin, end = end, end + len(token.text)
        if end > start and len(possible := _possible_labels(answer[start:end], labels)) < len(labels):
            return _share(token, answer[:begin], answer[:start], label, labels) if possible == [label] else None
    return None


def _share(token: _Token, before: bytes, name: bytes, label: str, labels: Sequence[str]) -> float | None:
    """Return the chosen label's part of the alternatives that begin a label.

    `before` is the answer in front of them, and `name` is the answer up to the end of the field's name.

    A token that is not among its alternatives stands below all of them, and so may other labels: alone it says nothing.
    """
    is_listed = any(text == token.text for text, _ in token.alternatives)
    alternatives = token.alternatives if is_listed else [*token.alternatives, (token.text, token.logprob)]
    chosen, others = list[float](), list[float]()
    for text, logprob in alternatives:
        whole = before + text
        possible = _possible_labels(whole[len(name) :], labels) if whole.startswith(name) else []
        if 0 < len(possible) < len(labels):
            (chosen if label in possible else others).append(logprob)
    if not is_listed and not others:
        return None
    most = max(chosen + others)
    if not math.isfinite(most):
        return None
    mine, rest = (math.fsum(math.exp(logprob - most) for logprob in each) for each in (chosen, others))
    return mine / (mine + rest) or None


def _value_start(answer: bytes, field: str, label: str, labels: Sequence[str]) -> int | None:
    """Return where the name of the field ends, the last one before this label; None where there is none."""
    names = list(re.finditer(re.escape(write_json(field)), answer))
    return next((name.end() for name in names[::-1] if _possible_labels(answer[name.end() :], labels) == [label]), None)


def _possible_labels(value: bytes, labels: Sequence[str]) -> list[str]:
    """Return the labels that can still be meant by what follows a field's name; all where it has no text yet."""
    found = _BEFORE_TEXT.fullmatch(value)
    if found is None:
        return []
    if found["text"] is None:
        return list(labels)
    written = _CHARACTERS.match(found["text"])
    text, rest = (b"", b"") if written is None else (written[0], found["text"][written.end() :])
    closed = rest.startswith(b'"')
    if rest and not closed and not _HALF_ESCAPE.fullmatch(rest):
        return []
    try:
        decoder = codecs.getincrementaldecoder("utf-8")()
        begun: str = json.loads(f'"{decoder.decode(text, closed)}"', strict=False)
    except ValueError:
        return []
    if closed:
        return [label for label in labels if label == begun]
    half_character = bytes(decoder.getstate()[0])
    if goes_on := bool(rest) or bool(_HIGH_SURROGATE.search(begun)):
        begun = _HIGH_SURROGATE.sub("", begun)
    return [label for label in labels if _may_become(begun, half_character, label) and not (goes_on and label == begun)]


def _may_become(begun: str, half_character: bytes, label: str) -> bool:
    if not label.startswith(begun):
        return False
    return not half_character or label[len(begun) :].encode("utf-8", "surrogatepass").startswith(half_character)


def _tokens(logprobs: object) -> list[_Token]:
    """Return the tokens of an answer; none where the server sent none, or something else."""
    content = logprobs.get("content") if isinstance(logprobs, Mapping) else None
    tokens = [_token(entry) for entry in content] if isinstance(content, list) else []
    return [] if None in tokens else [token for token in tokens if token is not None]


def _token(entry: Any) -> _Token | None:  # noqa: ANN401 -- whatever a server sends
    own = next(_pairs([entry]), None)
    alternatives = entry.get("top_logprobs") if isinstance(entry, Mapping) else None
    return own and _Token(*own, list(_pairs(alternatives if isinstance(alternatives, list) else [])))


def _pairs(entries: Sequence[Any]) -> Iterator[tuple[bytes, float]]:
    """Yield the bytes and the logprob of each entry that has both."""
    for entry in entries:
        if isinstance(entry, Mapping) and isinstance(entry.get("token"), str):
            logprob, given = _logprob(entry.get("logprob")), entry.get("bytes")
            if logprob is not None:
                text = entry["token"].encode("utf-8", "surrogatepass")
                if isinstance(given, list) and all(isinstance(each, int) and 0 <= each < 256 for each in given):
                    text = bytes(given)
                yield text, logprob


def _logprob(value: object) -> float | None:
    """Return a logprob, at most 0; None for what is no number, and for one that no float can hold."""
    try:
        number = float(value) if isinstance(value, (int, float)) else math.nan
    except OverflowError:
        return None
    return None if math.isnan(number) else min(0.0, number)
