"""Readiness of an endpoint: the checks of `preflight`, from the driver and from an executor.

Asks one short question from each place, and no rows.
Begin with `api`.
"""
