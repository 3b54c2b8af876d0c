"""Flow control: when the next request may go, how inputs are batched, and what follows a failure.

No clock, random numbers, sockets or threads: the time and the random numbers are arguments.
Begin with `scheduler`, which decides for one endpoint, and `limiter`.
"""
