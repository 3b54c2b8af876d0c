"""Flow control: when the next request may go, how it is batched, and what follows a failure.

No clock, dice, sockets or threads: the time and the dice are arguments.
Begin with `scheduler`, the line in front of one endpoint, and `limiter`.
"""
