"""This process: what tells it apart from others, how many connections it may open, and whether another has ended.

A number is a process' own only within one boot and one namespace of numbers (a container has its own), and numbers are
given again: so all three and the time it began tell it apart. Only Linux shows them.
"""

import hashlib
from pathlib import Path

try:
    import resource
except ImportError:  # Windows, which has no such limit
    resource = None  # type: ignore[assignment]  # what there is instead of the module

_PROC = Path("/proc")
_OTHER_FILES = 64  # that a process has open besides connections to an endpoint
_ENDED = "ZX"  # a process that nobody has asked about its end yet is still listed


def own_identity() -> str:
    """Return what tells this process apart from any other, in letters, digits and `_`; empty where nothing shows it."""
    try:
        number, began, _ = _process("self")
        return f"{_realm()}_{number}_{began}"
    except (OSError, IndexError):
        return ""


def most_connections() -> int | None:
    """Return how many connections the limit on open files leaves room for; None where there is no limit."""
    files = -1 if resource is None else resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return None if files < 0 else max(1, files - min(files // 2, _OTHER_FILES))


def has_ended(identity: str) -> bool:
    """Return whether a process is known to have ended: one of another machine or container never is."""
    realm, _, process = identity.partition("_")
    try:
        if not process or realm != _realm():
            return False
    except OSError:
        return False
    number, _, began = process.partition("_")
    try:
        _, found, state = _process(number)
    except (OSError, IndexError):
        return True
    return found != began or state in _ENDED


def _realm() -> str:
    """Return the boot, and the namespace in which a process' number is its own, as one short word."""
    boot = (_PROC / "sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    return hashlib.sha256(f"{boot} {(_PROC / 'self/ns/pid').readlink()}".encode()).hexdigest()[:16]


def _process(name: str) -> tuple[str, str, str]:
    """Return a process' number, when it began in ticks since the boot, and its state, as proc(5) describes them."""
    known, _, rest = (_PROC / name / "stat").read_text(encoding="utf-8", errors="replace").rpartition(")")
    fields = rest.split()
    return known.partition(" ")[0], fields[19], fields[0]
