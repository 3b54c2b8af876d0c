"""Identifies this process, and tells whether another process on this host has exited.

A process ID is unique only within one boot and one PID namespace (a container has its own), and IDs are used again. So
boot, namespace, ID and start time identify a process. Only Linux shows them.
"""

import hashlib
from pathlib import Path

try:
    import resource
except ImportError:  # Windows, which has no such limit
    resource = None  # type: ignore[assignment]  # None in place of the module

_PROC = Path("/proc")
_OTHER_FILES = 64  # open besides connections to an endpoint
_EXITED_STATES = "ZX"  # zombie and dead: still listed until the parent waits for it


def own_identity() -> str:
    """Return an identifier of this process, of letters, digits and `_`; empty where the system does not show it."""
    try:
        pid, started, _ = _stat("self")
        return f"{_pid_scope()}_{pid}_{started}"
    except (OSError, IndexError):
        return ""


def max_connections() -> int | None:
    """Return how many connections the limit on open files allows; None where there is no limit."""
    files = -1 if resource is None else resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return None if files < 0 else max(1, files - min(files // 2, _OTHER_FILES))


def has_exited(identity: str) -> bool:
    """Return whether a process is known to have exited; for one of another host or container the answer is no."""
    scope, _, process = identity.partition("_")
    try:
        if not process or scope != _pid_scope():
            return False
    except OSError:
        return False
    pid, _, started = process.partition("_")
    try:
        _, found, state = _stat(pid)
    except (OSError, IndexError):
        return True
    return found != started or state in _EXITED_STATES


def _pid_scope() -> str:
    """Return a digest of the boot and the PID namespace, within which a process ID is unique."""
    boot = (_PROC / "sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    return hashlib.sha256(f"{boot} {(_PROC / 'self/ns/pid').readlink()}".encode()).hexdigest()[:16]


def _stat(name: str) -> tuple[str, str, str]:
    """Return a process's ID, its start in ticks since the boot, and its state, as proc(5) describes them."""
    head, _, rest = (_PROC / name / "stat").read_text(encoding="utf-8", errors="replace").rpartition(")")
    fields = rest.split()
    return head.partition(" ")[0], fields[19], fields[0]
