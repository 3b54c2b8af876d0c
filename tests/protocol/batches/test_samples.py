"""Every file of `tests/samples/batches`, an object or a line as its service documents it, is read correctly."""

import json
from pathlib import Path
from typing import Any

import pytest

from spark_llm.protocol.batches.lines import Reply, read_line
from spark_llm.protocol.batches.objects import read_batch, read_batches, read_file, read_files
from spark_llm.protocol.chat.task import Chat
from spark_llm.protocol.values import Answer

SAMPLES = {
    file.stem: json.loads(file.read_text(encoding="utf-8"))
    for file in sorted((Path(__file__).parents[2] / "samples" / "batches").glob("*.json"))
}


def facts(what: str, body: bytes) -> dict[str, Any]:
    """Return the values that a sample may have an expectation of."""
    if what == "batch":
        batch = read_batch(body)
        assert batch is not None
        return {**batch._asdict(), "problems": [list(each) for each in batch.problems], "is_quota": batch.is_quota}
    if what == "file":
        file = read_file(body)
        assert file is not None
        return file._asdict()
    if what == "line":
        reply = read_line(body)
        assert reply is not None
        return facts_of_reply(reply)
    page = read_batches(body) if what == "batches" else read_files(body)
    assert page is not None
    entries: Any = page[0]
    statuses = [entry.status for entry in entries] if what == "batches" else []
    ids = [entry.id for entry in entries]
    return {"ids": ids, "statuses": statuses, "has_more": page.has_more, "last_id": page.last_id}


def facts_of_reply(reply: Reply) -> dict[str, Any]:
    """Return what a chat makes of a reply."""
    if reply.response is None:
        return {"custom_id": reply.custom_id, "status": None, "code": reply.code, "message": reply.message}
    outcome = Chat().decode(reply.response, 1)
    found = {"custom_id": reply.custom_id, "status": reply.response.status}
    if isinstance(outcome, Answer):
        return {**found, "text": outcome.results[0].text, "request_id": outcome.results[0].request_id}
    return {**found, "kind": outcome.error.kind, "message": outcome.error.message}


@pytest.mark.parametrize("name", SAMPLES)
def test_a_sample_is_read(name: str) -> None:
    """All that is expected of it is found; of a message, a part."""
    sample = SAMPLES[name]
    expected, found = sample["expect"], facts(sample["what"], json.dumps(sample["body"]).encode())
    if "message" in expected:
        assert expected.pop("message") in found["message"]

    assert expected == {field: found[field] for field in expected}
    assert sample["source"]
