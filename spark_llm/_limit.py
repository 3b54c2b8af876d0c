"""How many requests may be in flight. Knows no clock, no socket, no Spark.

Additive increase, multiplicative decrease, as in TCP congestion control (Jacobson 1988; RFC 5681): start at one
request and double with every round of answers until the endpoint refuses; halve then, once for a whole burst of
refusals; from there on, one more for every round. A window that is not in use does not grow: answers that came
while fewer than half of it was out say nothing about more.
"""


class Limit:
    """The window of one endpoint, and what is out in it."""

    def __init__(self, ceiling: int) -> None:
        """Start at one request, never to pass `ceiling`."""
        self.ceiling = ceiling
        self.in_flight = 0
        self._window = 1.0
        self._doubling = True
        self._cuts = 0

    @property
    def window(self) -> int:
        """The most requests that may be out now."""
        return int(self._window)

    @property
    def room(self) -> int:
        """How many more requests may go out now."""
        return max(0, self.window - self.in_flight)

    def sent(self) -> int:
        """Count a request out, and return the epoch it was sent in: how many cuts came before it."""
        self.in_flight += 1
        return self._cuts

    def answered(self) -> None:
        """Count a request in that the endpoint served, and grow where the window was in use."""
        in_use = self.in_flight * 2 >= self.window
        self.in_flight -= 1
        if in_use:
            self._window = min(float(self.ceiling), self._window + (1.0 if self._doubling else 1.0 / self._window))

    def refused(self, epoch: int) -> None:
        """Count a request in that the endpoint told to wait, and halve, unless the window was cut since it was sent."""
        self.in_flight -= 1
        if epoch == self._cuts:
            self._window = max(1.0, self._window / 2)
            self._doubling = False
            self._cuts += 1

    def failed(self) -> None:
        """Count a request in that came to nothing: a fault says nothing about the endpoint's capacity."""
        self.in_flight -= 1
