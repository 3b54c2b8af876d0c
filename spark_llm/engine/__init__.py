"""The event loop of a worker: a stream of rows in, their results in the same order out.

It decides nothing about when to send, which `flow` does, and knows no Spark.
Begin with `engine`; `registry` finds the engine of a UDF.
"""
