"""This process, told apart from all others, and whether another one of this machine has ended.

A number is a process' own only within one boot and one namespace of numbers (a container has its own), and numbers are
given again: so all three and the time it began tell it apart. Only Linux shows them.
"""

import hashlib
from pathlib import Path

_PROC = Path("/proc")
_ENDED = "ZX"  # a process that nobody has asked about its end yet is still listed


def own_identity() -> str:
    """Return what tells this process apart from any other, in letters, digits and `_`; empty where nothing shows it."""
    try:
        number, began, _ = _process("self")
        return f"{_realm()}_{number}_{began}"
    except (OSError, IndexError):
        return ""


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
