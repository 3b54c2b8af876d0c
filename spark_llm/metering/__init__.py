"""Tokens, prices, budgets and the size of chunks.

No requests and no tables: numbers in, numbers out, no clock and no disk.
Begin with `tally`, what was used so far, and `budget`, what may be used.
"""
