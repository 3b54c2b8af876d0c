"""Counts that workers send to the driver while a job runs.

Nothing is shown here: the bar is in `monitoring`.
Begin with `counts`; `datagrams` has the format.
"""
