"""A worker process of the benchmark of shared limits: two engines for one endpoint, one of which shares its limiter."""

import sys
import time

from spark_llm import Endpoint, Policy
from spark_llm.engine.engine import Engine
from spark_llm.protocol.chat.task import Chat

CHUNK_ROWS = 256


def main(url: str, group: str, in_flight: int, workers: int) -> None:
    """For each line "NAME ROWS" on standard input, send rows by an engine, and print the CPU seconds that it took.

    The engine `alone` has an equal part of the requests in flight.
    """
    task = Chat()
    route = Endpoint(url, token="none").resolve(task.route, {})  # noqa: S106 -- the endpoint takes any
    shared, alone = Policy(max_in_flight=in_flight), Policy(max_in_flight=in_flight, tasks=workers)
    engines = {"shared": Engine(route, shared, None, (group,)), "alone": Engine(route, alone)}
    for line in sys.stdin:
        name, rows = line.split()
        texts = [f"row {number}" for number in range(int(rows))]
        batches = (texts[start : start + CHUNK_ROWS] for start in range(0, len(texts), CHUNK_ROWS))
        began_s = time.process_time()
        failed = sum(
            result is None or result.error is not None
            for chunk in engines[name].stream(task, batches)
            for result in chunk
        )
        print(time.process_time() - began_s, failed, flush=True)
    for engine in engines.values():
        engine.close()


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))
