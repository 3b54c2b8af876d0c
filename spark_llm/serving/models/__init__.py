"""Models that answer on this machine: Echo, and two real ones that come as packages.

No HTTP.
Begin with `base`.
"""
