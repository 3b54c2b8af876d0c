"""The behaviour of the local endpoints under test: faults, capacity, quotas, held requests, counters.

No HTTP.
Begin with `faults`.
"""
