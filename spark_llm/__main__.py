"""`python -m spark_llm` is `spark-llm`."""

import sys

from spark_llm.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
