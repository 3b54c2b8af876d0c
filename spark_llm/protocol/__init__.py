"""Bytes and values: the body of a request, and the meaning of an answer or a failure.

No sockets, no retries, no Spark.
Begin with `task`, the interface that all tasks have, and `chat`.
"""
