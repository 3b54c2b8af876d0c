"""The command line: `spark-llm check`, `endpoints`, `enrich`, `demo`, `java` and `serve`.

No logic: each command calls the package of its subject.
Begin with `main`.
"""

from spark_llm.cli.main import main as main
