"""Counts that workers send to the driver while a job runs.

Nothing is shown here: the bar is in `enrich.progress`.
Begin with `counts`; `datagrams` has the format.
"""
