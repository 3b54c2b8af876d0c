"""Signed datagrams: a job's secret shows that a datagram comes from the job. It is pure."""

import hashlib
import hmac

MAC_BYTES = 16


def signed(secret: bytes, payload: bytes) -> bytes:
    """Return a payload with its signature before it."""
    return _mac(secret, payload) + payload


def verified(secret: bytes, datagram: bytes) -> bytes | None:
    """Return the payload; None unless `signed` made the datagram with this secret."""
    mac, payload = datagram[:MAC_BYTES], datagram[MAC_BYTES:]
    return payload if hmac.compare_digest(mac, _mac(secret, payload)) else None


def _mac(secret: bytes, payload: bytes) -> bytes:
    return hmac.digest(secret, payload, hashlib.sha256)[:MAC_BYTES]
