"""The baselines: good short solutions without this library."""

import asyncio
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import aiohttp
import msgspec
import pandas as pd
import requests
from pyspark.sql.pandas.functions import pandas_udf
from requests.adapters import HTTPAdapter

from benchmarks.support.session import PROMPT, ColumnFunction
from spark_llm.engine.loop_thread import new_event_loop


def _session(threads: int) -> requests.Session:
    session = requests.Session()
    session.mount("http://", HTTPAdapter(pool_maxsize=threads))
    return session


def chat_in_threads(url: str, threads: int) -> ColumnFunction:
    """Return a pandas UDF that sends each batch with requests, in a thread pool, over connections that stay open."""

    def ask(batches: Iterator[pd.Series]) -> Iterator[pd.Series]:
        session = _session(threads)

        def answer(prompt: str) -> str:
            response = session.post(url, json={"messages": [{"role": "user", "content": prompt}]}, timeout=60)
            response.raise_for_status()
            return str(response.json()["choices"][0]["message"]["content"])

        with ThreadPoolExecutor(threads) as pool:
            for batch in batches:
                yield pd.Series(list(pool.map(answer, batch)))

    return _udf(ask, "string")


def embed_in_threads(url: str, threads: int, batch_size: int) -> ColumnFunction:
    """Return a pandas UDF that sends `batch_size` texts a request, in threads, and reads lists of JSON numbers."""

    def ask(batches: Iterator[pd.Series]) -> Iterator[pd.Series]:
        session = _session(threads)

        def vectors(texts: list[str]) -> list[list[float]]:
            response = session.post(url, json={"input": texts}, timeout=60)
            response.raise_for_status()
            return [entry["embedding"] for entry in response.json()["data"]]

        with ThreadPoolExecutor(threads) as pool:
            for batch in batches:
                texts = batch.tolist()
                parts = [texts[start : start + batch_size] for start in range(0, len(texts), batch_size)]
                yield pd.Series([vector for part in pool.map(vectors, parts) for vector in part])

    return _udf(ask, "array<float>")


def chat_with_openai(base_url: str) -> ColumnFunction:
    """Return a pandas UDF that sends row by row with the openai client. Raises `ImportError` without it."""
    import openai

    def ask(batches: Iterator[pd.Series]) -> Iterator[pd.Series]:
        client = openai.OpenAI(base_url=base_url, api_key="none")
        for batch in batches:
            yield pd.Series([_reply(client, prompt) for prompt in batch])

    return _udf(ask, "string")


def embed_with_openai(base_url: str, batch_size: int) -> ColumnFunction:
    """Return a pandas UDF that sends `batch_size` texts a request with the openai client, sequentially."""
    import openai

    def ask(batches: Iterator[pd.Series]) -> Iterator[pd.Series]:
        client = openai.OpenAI(base_url=base_url, api_key="none")
        for batch in batches:
            texts = batch.tolist()
            vectors: list[list[float]] = []
            for start in range(0, len(texts), batch_size):
                response = client.embeddings.create(model="benchmark", input=texts[start : start + batch_size])
                vectors += [entry.embedding for entry in response.data]
            yield pd.Series(vectors)

    return _udf(ask, "array<float>")


def _reply(client: Any, prompt: str) -> str:  # noqa: ANN401 -- an openai.OpenAI, if installed
    response = client.chat.completions.create(model="benchmark", messages=[{"role": "user", "content": prompt}])
    return str(response.choices[0].message.content)


def _udf(ask: Callable[[Iterator[pd.Series]], Iterator[pd.Series]], returns: str) -> ColumnFunction:
    vectorised: Any = pandas_udf  # its overloads need the eval type, which the hints of `ask` imply
    function: ColumnFunction = vectorised(ask, returns).asNondeterministic()
    return function


async def bare_loop(url: str, contents: Sequence[object], in_flight: int) -> float:
    """Send every content over aiohttp, from text to text and nothing else; return the seconds, after a warm-up."""
    encode, decode = msgspec.json.Encoder().encode, msgspec.json.Decoder().decode
    answers: list[str] = []

    async def work(client: aiohttp.ClientSession, queue: Iterator[object]) -> None:
        for content in queue:
            body = encode({"messages": [{"role": "user", "content": content}]})
            async with client.post(url, data=body, headers={"Content-Type": "application/json"}) as response:
                answers.append(decode(await response.read())["choices"][0]["message"]["content"])

    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=in_flight)) as client:
        for part in (contents[: len(contents) // 10], contents):
            answers.clear()
            queue = iter(part)
            start_s = time.perf_counter()
            await asyncio.gather(*(work(client, queue) for _ in range(in_flight)))
        if len(answers) != len(contents):
            raise RuntimeError(f"{len(contents) - len(answers)} rows were not answered.")
        return time.perf_counter() - start_s


if __name__ == "__main__":
    address, rows, concurrency = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    loop = new_event_loop()  # the same as ours
    print(loop.run_until_complete(bare_loop(address, [f"{PROMPT}{number}" for number in range(rows)], concurrency)))
