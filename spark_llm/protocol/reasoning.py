"""A model's thoughts in front of its answer, in the marks of models whose server leaves them in the text.

Most write `<think>` (DeepSeek, Qwen, GLM, MiniMax), others `<thought>` (EXAONE, Gemini), `<seed:think>` (Seed-OSS),
`[THINK]` (Magistral), `◁think▷` (Kimi), `<|START_THINKING|>` (Command A) or a channel (gpt-oss, Gemma). A chat template
may have written the opening mark itself: then only the closing one is in the text.
"""

import re
from typing import NamedTuple

_TAGS = "think|thinking|thought|thoughts|reasoning|seed:think|mm:think"
_OPENED = re.compile(
    rf"\s*(?:<(?P<tag>{_TAGS})>|(?P<mark>\[THINK\]|◁think▷|<\|begin_of_thought\|>|<\|START_THINKING\|>)"
    r"|(?P<channel><\|channel\|?>(?:analysis|thought))|(?P<bare>analysis)(?=.*assistantfinal))",
    re.DOTALL,
)
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


class Parted(NamedTuple):
    """A text without the thoughts in front of it, and whether there were any; no answer where they never ended."""

    answer: str | None
    had_thoughts: bool


def parted(text: str, said: str = "") -> Parted:
    """Part a model's text from its thoughts; `said` is what it was asked, whose own marks may come back.

    >>> parted("<think>A greeting.</think>Bonjour")
    Parted(answer='Bonjour', had_thoughts=True)
    """
    opened = None if _OPENED.match(said) else _OPENED.match(text)
    if opened is None:
        end = None if _OPENED.search(text) or _CLOSED.search(said) else _CLOSED.search(text)
        if end is None:
            return Parted(text, had_thoughts=False)
    elif (end := re.compile(_closing(opened)).search(text, opened.end())) is None:
        return Parted(None, had_thoughts=True)
    return Parted(_WRAPPING.sub("", text[end.end() :]).strip(), had_thoughts=True)


def _closing(opened: re.Match[str]) -> str:
    if opened["tag"]:
        return f"</{opened['tag']}>"
    if opened["mark"]:
        return _CLOSING[opened["mark"]]
    return "assistantfinal" if opened["bare"] else _CHANNEL_CLOSED
