"""Conflicts with other writers: which errors are conflicts, and the pause before the next attempt.

Knows no clock, no dice and no Spark: the message, the time and the random value are arguments. Classic Spark and
Connect raise a format's own errors in different classes, so only the message tells a conflict.

Sources: Delta Lake's `delta-error-classes.json` and `io.delta.exceptions`; Iceberg's `org.apache.iceberg.exceptions`
and the checks of its `MergingSnapshotProducer`.
"""

import re

FIRST_PAUSE_S = 0.5
MAX_PAUSE_S = 20.0
MAX_RETRY_S = 300.0  # since the first attempt
MIN_ATTEMPTS = 3  # even where each takes longer than MAX_RETRY_S

_CONFLICT = re.compile(
    r"DELTA_CONCURRENT_(?:APPEND|DELETE_DELETE|DELETE_READ|TRANSACTION|WRITE)"
    r"|DELTA_(?:METADATA_CHANGED|PROTOCOL_CHANGED|SCHEMA_CHANGE_SINCE_ANALYSIS|MAX_COMMIT_RETRIES_EXCEEDED)"
    r"|Concurrent(?:Append|DeleteDelete|DeleteRead|Transaction|Write)Exception"
    r"|(?:DeltaConcurrentModification|MetadataChanged|ProtocolChanged)Exception"
    r"|Commit(?:Failed|StateUnknown)Exception"
    r"|ValidationException: (?:Found (?:new )?conflicting|Missing required files to delete)"
)


def conflict_name(message: str) -> str:
    """Return the name of the conflict that an error message reports; empty for any other error.

    >>> conflict_name("[DELTA_CONCURRENT_APPEND.WITHOUT_HINT] Transaction conflict detected. …")
    'DELTA_CONCURRENT_APPEND'
    """
    found = _CONFLICT.search(message)
    return found[0] if found else ""


def pause_after_conflict(attempt: int, elapsed_s: float, random_value: float) -> float | None:
    """Return the seconds to wait after an attempt, counted from 1; None where it was the last.

    `random_value` is one draw from [0, 1), so that two writers do not meet again.
    """
    pause_s = random_value * min(MAX_PAUSE_S, FIRST_PAUSE_S * 2.0 ** min(attempt, 30))
    return pause_s if attempt < MIN_ATTEMPTS or elapsed_s + pause_s <= MAX_RETRY_S else None
