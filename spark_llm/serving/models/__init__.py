"""Models that answer on this machine: `Echo`, and two small real ones whose weights come as packages.

No HTTP.
Begin with `base`.
"""
