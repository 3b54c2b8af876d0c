"""Answers of a type: the JSON schema that is asked for, and the value that is read back.

No Spark types, which are in `udf.spark_types`.
Begin with `schema`.
"""
