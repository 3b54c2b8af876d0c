"""Structured output: the JSON schema in the request, and the value that is parsed from the answer.

No Spark types, which are in `udf.spark_types`.
Begin with `schema`.
"""
