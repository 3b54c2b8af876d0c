"""docs/clients.md lists exactly the combinations that the tests try."""

from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

from tests.conftest import ROOT
from tests.integration.clients.client import CHATTING, DESCRIBING, PREDICTING, RESPONDING, STREAMING
from tests.integration.clients.clients import CLIENTS
from tests.integration.clients.environment import PINS
from tests.integration.clients.servers import COLUMNS, SERVERS

PAGE = Path(ROOT, "docs", "clients.md")
CLIENT_COLUMNS = (*STREAMING, *DESCRIBING, *CHATTING, *RESPONDING, *PREDICTING)


def tables() -> Iterator[tuple[list[str], list[list[str]]]]:
    """Yield the column names and the rows of each table on the page."""
    rows: list[list[str]] = []
    for line in [*PAGE.read_text(encoding="utf-8").splitlines(), ""]:
        if line.startswith("|"):
            rows.append([cell.strip() for cell in line.strip("|").split("|")])
        elif rows:
            yield rows[0], rows[2:]
            rows = []


def cells(first_column: str, names: int) -> dict[tuple[str, ...], str]:
    """Return the cells of all tables with this first column, by the first `names` cells of their row and by column."""
    return {
        (*row[:names], column): cell
        for columns, rows in tables()
        if columns[0] == first_column
        for row in rows
        for column, cell in zip(columns[names:], row[names:], strict=True)
    }


def test_the_tables_of_clients_match_the_tests() -> None:
    """A client has "yes" for each tested column, a dash for the others, and there is no other row."""
    tried = {(name, column) for name, client in CLIENTS.items() for column in client.columns}

    assert {
        (name, column): "yes" if (name, column) in tried else "–" for name in CLIENTS for column in CLIENT_COLUMNS
    } == cells("Client", 1)


def test_the_table_of_servers_matches_the_tests() -> None:
    """A URL has "yes" for each tested task, a dash for the others, and there is no other row."""
    assert {
        (server, f"`{url_template}`", task): "yes" if task in tasks else "–"
        for server, url_templates in SERVERS.items()
        for url_template, tasks in url_templates.items()
        for task in COLUMNS
    } == cells("Server", 2)


def test_the_page_names_the_tested_versions() -> None:
    """The page names the clients' versions in both environments."""
    text = " ".join(PAGE.read_text(encoding="utf-8").split())
    pinned = dict(pin.replace("[gateway]", "").split("==") for pin in PINS)

    assert f"`databricks-sdk` {version('databricks-sdk')} and `openai` {version('openai')} are in" in text
    assert f"`openai` {pinned['openai']} and MLflow {pinned['mlflow']} have" in text
    assert version("databricks-sdk") == pinned["databricks-sdk"]
