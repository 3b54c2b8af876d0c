"""The command line: `spark-llm check`, `enrich`, `demo`, `serve`.

No logic: each command calls the package of its subject.
Begin with `main`.
"""

from spark_llm.cli.main import main as main
