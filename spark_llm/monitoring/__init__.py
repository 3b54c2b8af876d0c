"""What a running job shows: a progress bar, `progress` for any action of Spark, and telemetry.

No counting, which is in `livecounts`.
Begin with `progress`; `bar` draws, and `telemetry.exporter` exports metrics and spans.
"""
