"""Runs the checks: each file is a query of the rows that are wrong, below a comment that says what is wrong."""

import sys
from pathlib import Path

from pyspark.sql import Row, SparkSession

CHECKS = sorted(Path(__file__).with_name("checks").glob("*.sql"))
_SHOWN = 5


def main() -> int:
    """Print a line for each check, and the first wrong rows; return 1 if there are any."""
    spark = SparkSession.builder.getOrCreate()
    found = {check: wrong_rows(spark, check) for check in CHECKS}
    spark.stop()
    for check, rows in found.items():
        print(f"{'FAILED' if rows else 'passed'}  {check.stem}")
        if rows:
            what = check.read_text(encoding="utf-8").splitlines()[0].removeprefix("-- ")
            print(f"  {what}; the first rows:", *(row.asDict() for row in rows), sep="\n    ")
    return 1 if any(found.values()) else 0


def wrong_rows(spark: SparkSession, check: Path) -> list[Row]:
    """Return the first rows that a check's query finds."""
    return spark.sql(check.read_text(encoding="utf-8")).take(_SHOWN)


if __name__ == "__main__":
    sys.exit(main())
