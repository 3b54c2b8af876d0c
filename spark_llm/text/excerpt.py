"""The beginning of a text, short enough for a message."""

READ_FACTOR = 8  # characters that are read for each of an excerpt: a run of blanks becomes one


def excerpt(text: str, max_characters: int = 200) -> str:
    """Return the beginning of a text on one line; an ellipsis stands for a rest that is left out."""
    line = " ".join(text[: READ_FACTOR * max_characters].split())
    return line if len(line) <= max_characters else line[: max_characters - 1] + "…"
