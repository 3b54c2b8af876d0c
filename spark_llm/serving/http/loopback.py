"""Protection of the loopback port from web pages.

A page in the user's browser reaches 127.0.0.1 too: directly, or by a host name that resolves there (DNS rebinding).
The first shows in its `Origin` header, the second in its `Host` header. No response has a CORS header.
"""

import re
from collections.abc import Sequence

from spark_llm.serving.protocol.errors import HOST_NOT_ALLOWED, ORIGIN_NOT_ALLOWED, ErrorResponse

_LOOPBACK_HOST = re.compile(r"(?:127\.0\.0\.1|localhost|\[::1\])(?::[0-9]{1,5})?", re.IGNORECASE)


def page_refusal(hosts: Sequence[str], origins: Sequence[str]) -> ErrorResponse | None:
    """Return the refusal of a request with these `Host` and `Origin` headers, or None if it is allowed."""
    if not hosts or not all(_LOOPBACK_HOST.fullmatch(host) for host in hosts):
        return HOST_NOT_ALLOWED
    if any(origin.lower() != f"http://{hosts[0].lower()}" for origin in origins):
        return ORIGIN_NOT_ALLOWED
    return None
