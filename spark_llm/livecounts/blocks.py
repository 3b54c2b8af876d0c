"""The session setting that tells workers where the driver of a `progress` block listens. It is pure.

Spark copies a session's settings to the tasks of its queries, and prints them in the event log: no secret is in it.
Blocks nest, and threads share a session: each block adds itself to the setting and takes itself out, and the last one
in it counts.
"""

import re
from typing import NamedTuple

SETTING = "spark.spark_llm.progress"
_BLOCK = re.compile(r"(\S+):(\d{1,5})/(\d{1,15})(\+operations)?", re.ASCII)


class Block(NamedTuple):
    """A `progress` block: the address where its driver listens, and a number that no other block has.

    `operations` says that the driver wants the operations of each UDF counted too.
    """

    host: str
    port: int
    number: int
    operations: bool = False

    def added_to(self, setting: str) -> str:
        """Return the setting with this block as its last."""
        return f"{setting} {self.host}:{self.port}/{self.number}{'+operations' * self.operations}".strip()

    def removed_from(self, setting: str) -> str:
        """Return the setting without this block; empty where it had no other."""
        return " ".join(each for each in setting.split() if each != self.added_to(""))


def last_block(setting: str | None) -> Block | None:
    """Return the block that counts; None where there is none, or where another version wrote the setting."""
    found = _BLOCK.fullmatch((setting or "").rpartition(" ")[2])
    return None if found is None else Block(found[1], int(found[2]), int(found[3]), found[4] is not None)
