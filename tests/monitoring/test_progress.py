"""What a `progress` block prints."""

import contextlib

from spark_llm.livecounts.counts import LiveCounts, Reporter, connected_socket
from spark_llm.livecounts.datagrams import Sender
from spark_llm.livecounts.flows import HostFlow, encoded_flow
from spark_llm.monitoring.progress import WatchedBlock
from spark_llm.protocol.values import Result, RowError, Usage

ANSWERED = Result(text="yes", usage=Usage(500, 20, 520, 100), requests=1)
CANCELLED = Result(error=RowError("cancelled", None, "not sent.", retryable=True))
FAILED = Result(error=RowError("timeout", None, "too late.", retryable=True), requests=4)


def test_a_block_prints_its_numbers() -> None:
    """One UDF has no table; several have a line each, and the requests in flight come last."""
    with LiveCounts("127.0.0.1") as live:
        watched = WatchedBlock(live)
        live.begin(1)
        assert live.address is not None
        began, was_heard = str(watched), watched.was_heard
        chats: list[Result | None] = [*[ANSWERED] * 5, FAILED, CANCELLED, None]
        streams: dict[str, list[Result | None]] = {"chat_udf": chats, "embed_udf": [ANSWERED]}
        for stream, (name, results) in enumerate(streams.items()):
            with contextlib.closing(Reporter(live.address, Sender(1, 0, 0, 0, stream))) as reporter:
                reporter.add(name, results)
        with connected_socket(live.address) as host:
            flow = HostFlow("host", "chat", "chat", 1.0, 3, 4, 8, "refusals")
            host.send(encoded_flow(live.address.secret, flow))

    assert ("rows      0\nasked     0\nanswered  0", False) == (began, was_heard)
    assert watched.was_heard
    assert watched.in_flight is None  # it has ended
    assert repr(watched) == str(watched)
    assert """\
rows       9
asked      7
answered   6
failed     1 (1 timeout)
not asked  1 cancelled: their task had stopped
requests   10
tokens     3,120 (3,000 of questions, 600 of them cached, 120 of answers)
in flight  4 at most, window 8 in the end; limited by the endpoint's 429s and 503s 100%

udf        asked  answered  failed  requests  tokens
chat_udf       6         5       1         9   2,600
embed_udf      1         1       0         1     520""" == str(watched)
