"""Answers kept on disk, so that the same question is not paid for twice.

No files of Spark's: a cache belongs to one machine.
Begin with `answer_cache`.
"""
