"""Tokens, prices, budgets and the size of chunks.

No requests and no tables: numbers in, numbers out, no clock and no disk.
Begin with `tally`, the tokens used so far, and `budget`, the limits of a run.
"""
