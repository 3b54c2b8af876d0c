"""Who may speak to a server on this machine: programs, and no web pages.

A page in the user's browser reaches 127.0.0.1 as well: directly, or by a name of its own that is made to resolve there
(DNS rebinding). The first shows in its `Origin`, the second in its `Host`. No header here ever invites a page in.
"""

import re
from collections.abc import Sequence

from spark_llm.serving.protocol.errors import STRANGE_HOST, STRANGE_ORIGIN, Refusal

_OURS = re.compile(r"(?:127\.0\.0\.1|localhost|\[::1\])(?::[0-9]{1,5})?", re.IGNORECASE)


def stranger(hosts: Sequence[str], origins: Sequence[str]) -> Refusal | None:
    """Return the refusal of a request that names these hosts and origins, or None where it may come in."""
    if not hosts or not all(_OURS.fullmatch(host) for host in hosts):
        return STRANGE_HOST
    if any(origin.lower() != f"http://{hosts[0].lower()}" for origin in origins):
        return STRANGE_ORIGIN
    return None
