"""The datagrams of needs and allotments: what they hold as JSON; `livecounts.signing` signs them. It is pure."""

import json

from spark_llm.coordination.allotment import Allotment, HardLimits, Need
from spark_llm.coordination.allotter import Allotter

_NEED, _ALLOTMENT = "need", "allotment"
_MAX_NUMBER = 2**53
_ERRORS = (ValueError, TypeError, RecursionError)  # of a payload of another format


def answer_to_need(allotter: Allotter, payload: bytes, now: float) -> bytes | None:
    """Return the driver's answer to a datagram's payload; None where it is no need, or an old one."""
    need = decoded_need(payload)
    allotment = None if need is None else allotter.on_need(need, now)
    return None if allotment is None else encoded_allotment(allotment)


def encoded_need(need: Need) -> bytes:
    """Return the payload of a need."""
    return _encoded([_NEED, *need])


def encoded_allotment(allotment: Allotment) -> bytes:
    """Return the payload of an allotment."""
    return _encoded([_ALLOTMENT, *allotment])


def decoded_need(payload: bytes) -> Need | None:
    """Return the need; None unless `encoded_need` made the payload."""
    try:
        tag, host, key, limits, asked_at, serial, wanted, used, leaves = _decoded(payload)
        numbers = (_number(asked_at), _whole(serial), _whole(wanted), _limits(used))
        return Need(_text(host), _text(key), _limits(limits), *numbers, leaves is True) if tag == _NEED else None
    except _ERRORS:
        return None


def decoded_allotment(payload: bytes) -> Allotment | None:
    """Return the allotment; None unless `encoded_allotment` made the payload."""
    try:
        tag, host, key, serial, asked_at, share, floor = _decoded(payload)
        numbers = (_whole(serial), _number(asked_at), _limits(share), _limits(floor))
        return Allotment(_text(host), _text(key), *numbers) if tag == _ALLOTMENT else None
    except _ERRORS:
        return None


def _encoded(values: list[object]) -> bytes:
    return json.dumps(values, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "surrogatepass")


def _decoded(payload: bytes) -> list[object]:
    values = json.loads(payload.decode("utf-8", "surrogatepass"))
    if not isinstance(values, list):
        raise TypeError
    return values


def _limits(value: object) -> HardLimits:
    if not isinstance(value, list):
        raise TypeError
    in_flight, *rates = value
    requests, tokens = (None if rate is None else _number(rate) for rate in rates)
    return HardLimits(None if in_flight is None else _whole(in_flight), requests, tokens)


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError
    return value


def _whole(value: object) -> int:
    if type(value) is not int or not 0 <= value <= _MAX_NUMBER:
        raise TypeError
    return value


def _number(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value <= _MAX_NUMBER:
        raise TypeError
    return float(value)
