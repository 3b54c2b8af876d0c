"""What a running job shows: a progress bar, and `progress` for any action of Spark.

No counting, which is in `livecounts`.
Begin with `progress`; `bar` draws.
"""
