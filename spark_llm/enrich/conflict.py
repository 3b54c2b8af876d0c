"""Whether a statement failed because another writer changed the table first, and when it is tried again.

Knows no clock, no dice and no Spark: what the error says, the time and the random value are arguments. Classic Spark
and Connect hand formats' own errors on in different classes, so the error is known by the words in its message.

Sources: Delta Lake's `delta-error-classes.json` and `io.delta.exceptions`; Iceberg's `org.apache.iceberg.exceptions`
and the checks of its `MergingSnapshotProducer`.
"""

import re

FIRST_PAUSE_S = 0.5
LONGEST_PAUSE_S = 20.0
PATIENCE_S = 300.0  # from the first attempt
FEWEST_ATTEMPTS = 3  # also where each takes longer than all the patience

_CONFLICT = re.compile(
    r"DELTA_CONCURRENT_(?:APPEND|DELETE_DELETE|DELETE_READ|TRANSACTION|WRITE)"
    r"|DELTA_(?:METADATA_CHANGED|PROTOCOL_CHANGED|SCHEMA_CHANGE_SINCE_ANALYSIS|MAX_COMMIT_RETRIES_EXCEEDED)"
    r"|Concurrent(?:Append|DeleteDelete|DeleteRead|Transaction|Write)Exception"
    r"|(?:DeltaConcurrentModification|MetadataChanged|ProtocolChanged)Exception"
    r"|Commit(?:Failed|StateUnknown)Exception"
    r"|ValidationException: (?:Found (?:new )?conflicting|Missing required files to delete)"
)


def conflict(message: str) -> str:
    """Return the name of the conflict with another writer that an error tells of; empty for any other error.

    >>> conflict("[DELTA_CONCURRENT_APPEND.WITHOUT_HINT] Transaction conflict detected. …")
    'DELTA_CONCURRENT_APPEND'
    """
    found = _CONFLICT.search(message)
    return found[0] if found else ""


def pause_after_conflict(attempt: int, elapsed_s: float, random_value: float) -> float | None:
    """Return the seconds to wait after an attempt, the first of which is 1; None where no other follows.

    `random_value` is one draw from [0, 1), so that two writers that met do not meet again.
    """
    pause_s = random_value * min(LONGEST_PAUSE_S, FIRST_PAUSE_S * 2.0 ** min(attempt, 30))
    return pause_s if attempt < FEWEST_ATTEMPTS or elapsed_s + pause_s <= PATIENCE_S else None
