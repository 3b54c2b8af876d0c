"""Estimates of what a run would ask and cost.

No requests: they rest on answers in the target, or on the length of the texts.
Begin with `estimate`.
"""
