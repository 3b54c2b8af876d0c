"""docs/clients.md says nothing that is not tried, and leaves out nothing that is."""

from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

from tests.conftest import ROOT
from tests.integration.clients.client import ASKING, DESCRIBING
from tests.integration.clients.clients import CLIENTS
from tests.integration.clients.environment import PINS
from tests.integration.clients.servers import SERVERS

PAGE = Path(ROOT, "docs", "clients.md")
CLIENT_COLUMNS = ("chat", "chat streamed", "completions", "completions streamed", "embeddings", *DESCRIBING)


def tables() -> Iterator[tuple[list[str], list[list[str]]]]:
    """Return the page's tables: the names of the columns, and the rows."""
    rows: list[list[str]] = []
    for line in [*PAGE.read_text(encoding="utf-8").splitlines(), ""]:
        if line.startswith("|"):
            rows.append([cell.strip() for cell in line.strip("|").split("|")])
        elif rows:
            yield rows[0], rows[2:]
            rows = []


def cells(first_column: str, names: int) -> dict[tuple[str, ...], str]:
    """Return the cells of a table by the `names` that their row begins with, and their column."""
    [(columns, rows)] = [table for table in tables() if table[0][0] == first_column]
    return {
        (*row[:names], column): cell for row in rows for column, cell in zip(columns[names:], row[names:], strict=True)
    }


def test_every_cell_of_the_clients_is_tried() -> None:
    """A client has a yes where the test asks it, and a dash where it has no such call; there is no other row."""
    tried = {(name, column) for name, client in CLIENTS.items() for column in client.columns}

    assert {
        (name, column): "yes" if (name, column) in tried else "–" for name in CLIENTS for column in CLIENT_COLUMNS
    } == cells("Client", 1)


def test_every_cell_of_the_servers_is_tried() -> None:
    """A URL has a yes where the test asks it, and a dash where the server has no such task; there is no other row."""
    assert {
        (server, f"`{form}`", task): "yes" if task in tasks else "–"
        for server, forms in SERVERS.items()
        for form, tasks in forms.items()
        for task in ASKING
    } == cells("Server", 2)


def test_the_versions_are_those_that_are_tried() -> None:
    """The page names the versions of the clients in both environments."""
    text = " ".join(PAGE.read_text(encoding="utf-8").split())
    pinned = dict(pin.replace("[gateway]", "").split("==") for pin in PINS)

    assert f"`databricks-sdk` {version('databricks-sdk')} and `openai` {version('openai')} are in" in text
    assert f"`openai` {pinned['openai']} and MLflow {pinned['mlflow']} have" in text
    assert version("databricks-sdk") == pinned["databricks-sdk"]
