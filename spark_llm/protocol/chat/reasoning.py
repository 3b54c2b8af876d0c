"""A model's reasoning in front of its answer, in the tags of models whose server leaves it in the text.

Most write `<think>` (DeepSeek, Qwen, GLM, MiniMax), others `<thought>` (EXAONE, Gemini), `<seed:think>` (Seed-OSS),
`[THINK]` (Magistral), `◁think▷` (Kimi), `<|START_THINKING|>` (Command A) or a channel (gpt-oss, Gemma). A chat template
may have written the opening tag itself: then only the closing one is in the text.
"""

import re
from typing import NamedTuple

_TAGS = "think|thinking|thought|thoughts|reasoning|seed:think|mm:think"
_MARK = re.compile(
    rf"<(?P<tag>{_TAGS})>|(?P<mark>\[THINK\]|◁think▷|<\|begin_of_thought\|>|<\|START_THINKING\|>)"
    r"|(?P<channel><\|channel\|?>(?:analysis|thought))"
)
_BARE, _BARE_CLOSED = "analysis", "assistantfinal"  # a channel's names, of servers that leave out its special tokens
_CLOSING = {
    "[THINK]": r"\[/THINK\]",
    "◁think▷": "◁/think▷",
    "<|begin_of_thought|>": r"<\|end_of_thought\|>",
    "<|START_THINKING|>": r"<\|END_THINKING\|>",
}
_CHANNEL_CLOSED = r"<\|channel\|>final(?:\s*<\|constrain\|>\w+)?<\|message\|>|<channel\|>"
_QUOTE = "[`'\"]"
_CLOSED = re.compile(rf"(?<!{_QUOTE})(?:</(?:think|seed:think|mm:think)>|\[/THINK\]|◁/think▷)(?!{_QUOTE})")
_WRAPPING = re.compile(
    r"^\s*(?:<\|begin_of_solution\|>|<\|START_RESPONSE\|>)|(?:<\|end_of_solution\|>|<\|END_RESPONSE\|>|<\|return\|>)\s*$"
)


class SplitText(NamedTuple):
    """A text without its reasoning, and whether it had any; `answer` is None where the reasoning never ended."""

    answer: str | None
    had_reasoning: bool


def split_reasoning(text: str, prompt: str = "") -> SplitText:
    """Return a model's text without its reasoning; where the `prompt` has tags, those of the text may be quotes.

    >>> split_reasoning("<think>A greeting.</think>Bonjour")
    SplitText(answer='Bonjour', had_reasoning=True)
    """
    opening = None if _opening_of(prompt) else _opening_of(text)
    if opening is None:
        end = None if _has_opening(text) or _CLOSED.search(prompt) else _CLOSED.search(text)
        if end is None:
            return SplitText(text, had_reasoning=False)
    elif (end := re.compile(opening.closing).search(text, opening.end)) is None:
        return SplitText(None, had_reasoning=True)
    return SplitText(_WRAPPING.sub("", text[end.end() :]).strip(), had_reasoning=True)


class _Opening(NamedTuple):
    """Where the tag in front of a text ends, and the regular expression of the tag that ends the reasoning."""

    end: int
    closing: str


def _opening_of(text: str) -> _Opening | None:
    """Return the tag in front of a text; None where it begins with something else."""
    begin = len(text) - len(text.lstrip())
    found = _MARK.match(text, begin)
    if found is None:
        end = begin + len(_BARE)
        is_bare = text.startswith(_BARE, begin) and text.find(_BARE_CLOSED, end) >= 0
        return _Opening(end, _BARE_CLOSED) if is_bare else None
    if found["tag"]:
        return _Opening(found.end(), f"</{found['tag']}>")
    return _Opening(found.end(), _CLOSING[found["mark"]] if found["mark"] else _CHANNEL_CLOSED)


def _has_opening(text: str) -> bool:
    """Return whether a text has an opening tag anywhere."""
    bare = text.find(_BARE)
    return bool(_MARK.search(text)) or (bare >= 0 and text.find(_BARE_CLOSED, bare + len(_BARE)) >= 0)
