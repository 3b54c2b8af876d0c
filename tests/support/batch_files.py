"""Input files of batches, and the official client that drives them."""

import json
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Literal

import openai
from openai.types import Batch

from spark_llm.serving import LocalEndpoints

Endpoint = Literal["/v1/chat/completions", "/v1/completions", "/v1/embeddings", "/v1/responses"]
CHAT: Endpoint = "/v1/chat/completions"
ENDED = ("completed", "failed", "expired", "cancelled")
Line = dict[str, Any]


def line(custom_id: str, body: Mapping[str, object], url: str = CHAT) -> Line:
    """Return a request as it stands in a file."""
    return {"custom_id": custom_id, "method": "POST", "url": url, "body": body}


def chat_line(custom_id: str, text: str, **parameters: object) -> Line:
    """Return a request for chat with one message."""
    return line(custom_id, {"model": "chat", "messages": [{"role": "user", "content": text}], **parameters})


def jsonl(lines: list[Line]) -> bytes:
    """Return the content of a file with these lines."""
    return b"".join(json.dumps(each).encode() + b"\n" for each in lines)


@contextmanager
def client_of(endpoints: LocalEndpoints, base: str = "/v1") -> Iterator[openai.OpenAI]:
    """Yield the official client of running endpoints; it does not try again by itself."""
    with openai.OpenAI(base_url=endpoints.url + base, api_key=endpoints.token, max_retries=0) as client:
        yield client


def upload(client: openai.OpenAI, lines: list[Line] | bytes, name: str = "a.jsonl") -> str:
    """Upload a file, and return its id."""
    content = lines if isinstance(lines, bytes) else jsonl(lines)
    return client.files.create(file=(name, content), purpose="batch").id


def submit(client: openai.OpenAI, lines: list[Line] | bytes, endpoint: Endpoint = CHAT) -> Batch:
    """Upload a file, and create its batch."""
    return client.batches.create(input_file_id=upload(client, lines), endpoint=endpoint, completion_window="24h")


def reached(client: openai.OpenAI, batch: Batch, *statuses: str, answered: int = 0) -> Batch:
    """Ask for a batch until it has one of these statuses and so many answers; raises `TimeoutError` after a minute."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        now = client.batches.retrieve(batch.id)
        counts = now.request_counts
        if now.status in statuses and counts is not None and counts.completed + counts.failed >= answered:
            return now
    raise TimeoutError(f"The batch is {now.status}, not one of {statuses}.")


def ended(client: openai.OpenAI, batch: Batch) -> Batch:
    """Ask for a batch until it has ended."""
    return reached(client, batch, *ENDED)


def answers(client: openai.OpenAI, file_id: str | None) -> dict[str, Line]:
    """Return the lines of an output or error file by their ids, in the file's order; none of no file."""
    if file_id is None:
        return {}
    lines = [json.loads(each) for each in client.files.content(file_id).text.splitlines()]
    assert len(lines) == len({each["custom_id"] for each in lines})
    return {each["custom_id"]: each for each in lines}
