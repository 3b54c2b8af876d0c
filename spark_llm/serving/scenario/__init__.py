"""What goes wrong on purpose: faults, capacity, quotas, and answers that are held; and what was counted.

No HTTP.
Begin with `faults`.
"""
