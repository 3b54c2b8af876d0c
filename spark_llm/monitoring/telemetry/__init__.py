"""Metrics and spans of a job by OpenTelemetry, exported from the driver.

Begin with `exporter`; `conventions` has every name, `points` the arithmetic.
"""
