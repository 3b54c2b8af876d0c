"""The event loop of a worker: a stream of rows in, their results in the same order out.

No decisions on when to send, which are in `flow`, and no Spark.
Begin with `engine`; `registry` finds the engine of a UDF.
"""
