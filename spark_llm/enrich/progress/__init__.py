"""A progress bar for a job, in a terminal or a notebook.

No counting, which is in `livecounts`.
Begin with `bar`.
"""
