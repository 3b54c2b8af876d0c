"""A report: what it says first, and that it says everything, as text and in a notebook."""

from html.parser import HTMLParser

from hypothesis import given
from hypothesis import strategies as st

from spark_llm.readiness.report import Check, Report

WORDS = st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=40)
CHECKS = st.builds(
    Check,
    name=st.sampled_from(["address", "credentials", "description", "request", "packages"]),
    where=st.sampled_from(["driver", "executor"]),
    outcome=st.sampled_from(["passed", "failed", "skipped"]),
    message=WORDS,
    hint=WORDS | st.just(""),
)
REPORTS = st.builds(Report, WORDS, st.lists(CHECKS, min_size=1, max_size=8).map(tuple))
BROKEN = Report(
    "my-endpoint",
    (
        Check("address", "driver", "passed", "https://host/serving-endpoints/my-endpoint/invocations"),
        Check("credentials", "driver", "passed", "a token (DATABRICKS_TOKEN)"),
        Check("description", "driver", "skipped", "not available: 403 no"),
        Check("request", "driver", "failed", "Invalid access token.", "make a new one for this host."),
    ),
)


class Text(HTMLParser):
    """The text of a page, and its tags."""

    def __init__(self) -> None:
        """Begin with nothing read."""
        super().__init__()
        self.text = ""
        self.tags: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note a tag."""
        self.tags.add(tag)

    def handle_data(self, data: str) -> None:
        """Note a text."""
        self.text += data


def test_a_report_says_first_what_is_wrong() -> None:
    """Then what to do, and then everything that was looked at."""
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
    """What was skipped is no failure."""
    report = Report("e", BROKEN.checks[:3])

    assert (True, ()) == (report.ok, report.failed)
    assert str(report).startswith("e: ready (2 passed, 1 skipped)\n\ndriver  address ")


@given(REPORTS)
def test_everything_is_in_the_text(report: Report) -> None:
    """No message and no hint is lost, and `ok` is whether nothing failed."""
    text = str(report)

    assert report.ok == all(check.outcome != "failed" for check in report.checks)
    assert [] == [check for check in report.checks if check.message not in text or check.hint not in text]


@given(REPORTS)
def test_everything_is_in_the_page(report: Report) -> None:
    """A notebook shows the same, in a table, and no text becomes a tag."""
    page = Text()
    page.feed(report._repr_html_())

    assert [] == [check for check in report.checks if check.message not in page.text or check.hint not in page.text]
    assert page.tags <= {"p", "strong", "table", "thead", "tbody", "tr", "th", "td", "br", "em"}


def test_a_page_escapes_what_servers_say() -> None:
    """A message is a server's words."""
    page = Report("<e>", (Check("request", "driver", "failed", "<script>alert(1)</script>", "<b>"),))._repr_html_()

    assert "&lt;script&gt;" in page
    assert "<script" not in page
    assert "<b>" not in page


@given(WORDS, WORDS)
def test_the_words_of_a_row_are_kept(message: str, hint: str) -> None:
    """A message with its hint is cut in two, and put together again as it was."""
    check = Check.from_text("request", "driver", "failed", f"{message}. Hint: {hint}")

    assert f"{message}. Hint: {hint}" == check.text
    assert check.hint
