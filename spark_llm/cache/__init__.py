"""The answer cache: answers on a local disk, so that one request is not paid for twice.

It belongs to one machine and holds no files of Spark.
Begin with `answer_cache`.
"""
