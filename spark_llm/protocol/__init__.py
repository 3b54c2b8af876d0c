"""Bytes and values: what a request's body holds, and what an answer or a failure means.

No sockets, no retries, no Spark.
Begin with `task`, what every task can do, and `chat`.
"""
