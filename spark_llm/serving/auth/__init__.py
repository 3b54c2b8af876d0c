"""Tokens that are given out and checked.

No profiles and no environment: those are the client's.
Begin with `tokens`.
"""
