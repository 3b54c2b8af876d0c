"""The beginning of a text, short enough for a message."""


def excerpt(text: str, max_characters: int = 200) -> str:
    """Return the beginning of a text on one line; an ellipsis stands for a rest that is left out."""
    line = " ".join(text[: 8 * max_characters].split())
    return line if len(line) <= max_characters else line[: max_characters - 1] + "…"
