"""HTTP: the only door to aiohttp.

No retries, and nothing of what a body means.
Begin with `http`.
"""
