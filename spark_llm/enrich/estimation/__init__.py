"""What a job would cost, from a sample of its rows.

Nothing is asked unless a sample is wanted.
Begin with `estimate`.
"""
