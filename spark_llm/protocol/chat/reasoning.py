"""A model's reasoning in front of its answer, in the tags of models whose server leaves it in the text.

Most write `<think>` (DeepSeek, Qwen, GLM, MiniMax), others `<thought>` (EXAONE, Gemini), `<seed:think>` (Seed-OSS),
`[THINK]` (Magistral), `◁think▷` (Kimi), `<|START_THINKING|>` (Command A) or a channel (gpt-oss, Gemma). A chat template
may have written the opening tag itself: then only the closing one is in the text.
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


class SplitText(NamedTuple):
    """A text without its reasoning, and whether it had any; `answer` is None where the reasoning never ended."""

    answer: str | None
    had_reasoning: bool


def split_reasoning(text: str, prompt: str = "") -> SplitText:
    """Return a model's text without its reasoning; where the `prompt` has tags, those of the text may be quotes.

    >>> split_reasoning("<think>A greeting.</think>Bonjour")
    SplitText(answer='Bonjour', had_reasoning=True)
    """
    opened = None if _OPENED.match(prompt) else _OPENED.match(text)
    if opened is None:
        end = None if _OPENED.search(text) or _CLOSED.search(prompt) else _CLOSED.search(text)
        if end is None:
            return SplitText(text, had_reasoning=False)
    elif (end := re.compile(_closing(opened)).search(text, opened.end())) is None:
        return SplitText(None, had_reasoning=True)
    return SplitText(_WRAPPING.sub("", text[end.end() :]).strip(), had_reasoning=True)


def _closing(opened: re.Match[str]) -> str:
    """Return the regular expression of the tag that ends the reasoning."""
    if opened["tag"]:
        return f"</{opened['tag']}>"
    if opened["mark"]:
        return _CLOSING[opened["mark"]]
    return "assistantfinal" if opened["bare"] else _CHANNEL_CLOSED
