"""openaivec, the peer library of the comparisons: it runs the same job in its own virtual environment.

The environment is created at its first use, in the checkout's `build` folder; it takes one or two minutes and a
gigabyte. The job runs in a separate process (`benchmarks.support.peer_job`), against the same endpoint.
"""

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path

from benchmarks.support.endpoint_process import EndpointProcess
from benchmarks.support.figures import Rounds
from benchmarks.support.session import PROMPT, ROOT, SETTINGS

FOLDER = Path(ROOT) / "build" / "openaivec"
# Its tokeniser downloads tables from a host that not every machine can reach. litellm ships the same files.
TABLES = "litellm"
_LOCATE_TABLES = "from importlib.util import find_spec as f; print(f('litellm').submodule_search_locations[0])"
_INSTALL_S = 1_200
_JOB_S = 900


class PeerMissingError(Exception):
    """openaivec could not be installed, or failed to run the job."""


def peer_rounds(
    kind: str, endpoint: EndpointProcess, cores: int, size: Mapping[str, int], options: Mapping[str, int]
) -> tuple[Rounds, str]:
    """Run openaivec on `size["openaivec"]` rows in `size["rounds"]` rounds; return the rounds, and a note.

    `kind` is "chat" or "embeddings"; `options` are those of its UDF. An error of openaivec does not fail the benchmark:
    the rounds are then empty, and the note has the reason.
    """
    rounds = Rounds(size.get("openaivec", 0))
    if not rounds.rows:
        return rounds, "openaivec is omitted in the short form."
    settings = {**SETTINGS, "spark.master": f"local[{cores}]", "spark.python.worker.reuse": "false"}
    job = {"kind": kind, "rows": rounds.rows, "rounds": size["rounds"], "warm": rounds.rows // 4}
    job |= {"options": dict(options), "settings": settings, "control": endpoint.control_url, "prompt": PROMPT}
    try:
        python = _environment()
        result = json.loads(
            _output([str(python), "-m", "benchmarks.support.peer_job", json.dumps(job)], _JOB_S, endpoint)
        )
    except PeerMissingError as error:
        return rounds, f"openaivec was not measured: {error}"
    rounds.seconds = result["seconds"]
    choices = ", ".join(f"{name}={value}" for name, value in options.items())
    return rounds, (
        f"openaivec {result['version']} ({choices}) runs on {rounds.rows:,} rows, in its own process and "
        "environment. Its workers live for one job, because its second job in a worker fails; their start is not "
        "counted."
    )


def _environment() -> Path:
    """Return the Python of the environment; the first call creates it."""
    python, ready = FOLDER / "bin" / "python", FOLDER / "ready"
    if not ready.exists():
        _output([sys.executable, "-m", "venv", "--clear", str(FOLDER)], _INSTALL_S)
        install = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        _output([*install, "openaivec", f"pyspark=={version('pyspark')}", "pandas<3"], _INSTALL_S)
        _output([*install, "--no-deps", TABLES], _INSTALL_S)
        ready.touch()
    return python


def _output(command: Sequence[str], timeout_s: float, endpoint: EndpointProcess | None = None) -> str:
    """Run a command in the environment; return its last line. Raises `PeerMissingError` with its error."""
    environment = {**os.environ, "PYSPARK_PYTHON": command[0], "PYTHONPATH": ROOT}
    if endpoint is not None:
        tables = Path(_output([command[0], "-c", _LOCATE_TABLES], timeout_s)) / "litellm_core_utils" / "tokenizers"
        environment["TIKTOKEN_CACHE_DIR"] = str(tables)
        environment["OPENAI_BASE_URL"] = endpoint.base_url()
    try:
        run = subprocess.run(
            command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=timeout_s, check=True
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise PeerMissingError(f"{type(error).__name__}: {error}") from error
    except subprocess.CalledProcessError as error:
        output = (error.stderr or error.stdout).strip().splitlines() or ["no output"]
        raise PeerMissingError(output[-1]) from error
    return run.stdout.strip().rpartition("\n")[2]
