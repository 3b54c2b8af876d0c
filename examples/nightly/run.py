"""Runs the pipeline for two nights on this machine: `python -m examples.nightly.run`; README.md has the steps.

It starts what a company already has, a Spark Connect server and endpoints, and then the commands of each night.
"""

import contextlib
import os
import re
import secrets
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pyspark

from examples.nightly.model import SupportModel
from spark_llm.cli.local.java import ensure_java
from spark_llm.cli.local.spark import delta_settings
from spark_llm.serving import Echo, LocalEndpoints

HERE = Path(__file__).resolve().parent
BUILD = HERE / "build"
ENRICH = ["spark-llm", "enrich", "job.toml"]
_SERVER = "org.apache.spark.sql.connect.service.SparkConnectServer"
_STARTED = re.compile(r"Spark Connect server started at: \S*:(\d+)$", re.MULTILINE)
_START_S = 180


def main() -> int:
    """Run two nights; return 1 at the first command that fails."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that what was started is stopped
    shutil.rmtree(BUILD, ignore_errors=True)
    BUILD.mkdir()
    with LocalEndpoints({"chat": SupportModel(), "embed": Echo()}) as endpoints, spark_server(BUILD) as spark:
        environ = {**os.environ, **spark, "DATABRICKS_HOST": endpoints.url, "DATABRICKS_TOKEN": endpoints.token}
        for file in sorted((HERE / "mails").glob("*.csv")):
            print(f"\n=== The night of {file.stem} ===", flush=True)
            if not night(f"mails/{file.name}", environ):
                return 1
    return 0


def night(file: str, environ: dict[str, str]) -> bool:
    """Run the commands of a night, one after the other; return False at the first that fails."""
    commands = {
        "Load the mails": ["python", "load.py", file],
        "Ask the models": ENRICH,
        "Ask again: nothing is left to ask": ENRICH,
        "Refresh the tables that read the answers": ["python", "-m", "pyspark.pipelines.cli", "run"],
        "Show them": ["python", "show.py"],
        "Check": ["python", "check.py"],
    }
    for what, command in commands.items():
        print(f"\n--- {what}: {' '.join(command)}", flush=True)
        began_s = time.monotonic()
        done = subprocess.run(
            [Path(sys.executable).with_name(command[0]), *command[1:]], cwd=HERE, env=environ, check=False
        )
        if done.returncode:
            print(f"The night stops here: exit code {done.returncode}.", flush=True)
            return False
        print(f"({time.monotonic() - began_s:.0f} s)", flush=True)
    return True


@contextlib.contextmanager
def spark_server(folder: Path) -> Iterator[dict[str, str]]:
    """Start a Spark Connect server with Delta Lake on loopback; yield the environment variables of its clients."""
    ensure_java()
    token = secrets.token_hex(16)
    settings = {
        **delta_settings(pyspark.__version__),
        "spark.connect.grpc.binding.address": "127.0.0.1",
        "spark.connect.grpc.binding.port": "0",  # any free one
        "spark.databricks.delta.snapshotPartitions": "2",
        # Quick with tables of a few rows; Java keeps 48 MB for compiled code otherwise, and Spark fills them.
        "spark.driver.extraJavaOptions": "-XX:TieredStopAtLevel=1 -XX:ReservedCodeCacheSize=256m -XX:+UseSerialGC",
        "spark.master": "local[2]",
        "spark.sql.codegen.factoryMode": "NO_CODEGEN",
        "spark.sql.codegen.wholeStage": "false",
        "spark.sql.shuffle.partitions": "2",
        "spark.sql.warehouse.dir": (folder / "warehouse").as_uri(),
        "spark.ui.enabled": "false",
    }
    log = folder / "spark.log"
    defaults = folder / "spark-defaults.conf"
    defaults.write_text("".join(f"{name} {value}\n" for name, value in settings.items()), encoding="utf-8")
    clients = {"SPARK_CONNECT_AUTHENTICATE_TOKEN": token, "PYSPARK_PYTHON": sys.executable}
    submit = Path(pyspark.__file__).parent / "bin" / "spark-submit"
    print(f"Starting a Spark Connect server with Delta Lake; its log: {log.relative_to(HERE)}", flush=True)
    with log.open("wb") as output:
        process = subprocess.Popen(
            [submit, "--class", _SERVER, "--properties-file", defaults],
            cwd=folder,
            env={**os.environ, **clients, "SPARK_LOCAL_IP": "127.0.0.1"},
            stdout=output,
            stderr=subprocess.STDOUT,
        )
        try:
            yield {**clients, "SPARK_REMOTE": f"sc://localhost:{_port(process, log)}"}
        finally:
            process.terminate()
            process.wait()


def _port(process: subprocess.Popen[bytes], log: Path) -> int:
    """Return the port of the server once it listens, which its log tells."""
    for _ in range(_START_S * 2):
        if found := _STARTED.search(log.read_text(encoding="utf-8", errors="replace")):
            return int(found[1])
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(timeout=0.5)
            break
    raise SystemExit(f"Spark did not start. Hint: {log} says why.")


if __name__ == "__main__":
    sys.exit(main())
