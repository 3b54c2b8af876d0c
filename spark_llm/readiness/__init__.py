"""Whether an endpoint is ready: what `preflight` checks, from the driver and from an executor.

No rows are asked but one.
Begin with `api`.
"""
