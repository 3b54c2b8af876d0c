"""HTTP: the only door to aiohttp.

It has no retries and does not read bodies.
Begin with `http`.
"""
