"""The report as text and as HTML: failures first, and every check."""

from html.parser import HTMLParser

from hypothesis import given
from hypothesis import strategies as st

from spark_llm.readiness.report import Check, Report

TEXTS = st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=40)
CHECKS = st.builds(
    Check,
    name=st.sampled_from(["address", "credentials", "description", "request", "packages"]),
    where=st.sampled_from(["driver", "executor"]),
    outcome=st.sampled_from(["passed", "failed", "skipped"]),
    message=TEXTS,
    hint=TEXTS | st.just(""),
)
REPORTS = st.builds(Report, TEXTS, st.lists(CHECKS, min_size=1, max_size=8).map(tuple))
BROKEN = Report(
    "my-endpoint",
    (
        Check("address", "driver", "passed", "https://host/serving-endpoints/my-endpoint/invocations"),
        Check("credentials", "driver", "passed", "a token (DATABRICKS_TOKEN)"),
        Check("description", "driver", "skipped", "not available: 403 no"),
        Check("request", "driver", "failed", "Invalid access token.", "make a new one for this host."),
    ),
)


class PageReader(HTMLParser):
    """The text of a page, and its tags."""

    def __init__(self) -> None:
        """Read nothing yet."""
        super().__init__()
        self.text = ""
        self.tags: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Keep a tag."""
        self.tags.add(tag)

    def handle_data(self, data: str) -> None:
        """Keep a text."""
        self.text += data


def test_a_report_begins_with_failures() -> None:
    """Then come the hints, and then every check."""
    assert """\
my-endpoint: not ready (2 passed, 1 failed, 1 skipped)

FAILED request (driver): Invalid access token.
  Hint: make a new one for this host.

driver  address      passed   https://host/serving-endpoints/my-endpoint/invocations
driver  credentials  passed   a token (DATABRICKS_TOKEN)
driver  description  skipped  not available: 403 no
driver  request      failed   see above""" == str(BROKEN) == repr(BROKEN)
    assert not BROKEN.ok


def test_a_report_without_a_failure_is_ready() -> None:
    """A skipped check is not a failure."""
    report = Report("e", BROKEN.checks[:3])

    assert (True, ()) == (report.ok, report.failed)
    assert str(report).startswith("e: ready (2 passed, 1 skipped)\n\ndriver  address ")


@given(REPORTS)
def test_the_text_has_every_check(report: Report) -> None:
    """It has every message and every hint, and `ok` says whether no check failed."""
    text = str(report)

    assert report.ok == all(check.outcome != "failed" for check in report.checks)
    assert [] == [check for check in report.checks if check.message not in text or check.hint not in text]


@given(REPORTS)
def test_the_page_has_every_check(report: Report) -> None:
    """A notebook shows every message and hint in a table, and no text becomes a tag."""
    page = PageReader()
    page.feed(report._repr_html_())

    assert [] == [check for check in report.checks if check.message not in page.text or check.hint not in page.text]
    assert page.tags <= {"p", "strong", "table", "thead", "tbody", "tr", "th", "td", "br", "em"}


def test_a_page_escapes_messages() -> None:
    """Messages quote servers."""
    page = Report("<e>", (Check("request", "driver", "failed", "<script>alert(1)</script>", "<b>"),))._repr_html_()

    assert "&lt;script&gt;" in page
    assert "<script" not in page
    assert "<b>" not in page


@given(TEXTS, TEXTS)
def test_a_rows_message_round_trips(message: str, hint: str) -> None:
    """A message with a hint is split in two, and joined unchanged."""
    check = Check.from_text("request", "driver", "failed", f"{message}. Hint: {hint}")

    assert f"{message}. Hint: {hint}" == check.text
    assert check.hint
