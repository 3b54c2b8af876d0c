"""The wire format as the local endpoints speak it: requests, answers, errors.

Nothing is shared with the client's own reading of it.
Begin with `requests`.
"""
