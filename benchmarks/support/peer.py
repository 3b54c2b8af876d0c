"""openaivec, the peer that every figure of others is held against: it does the same job in an environment of its own.

That environment is made when it is first wanted, in the checkout's `build` folder, and takes a minute or two and a
gigabyte. The job runs in a process of its own (`benchmarks.support.peer_job`), against the same endpoint.
"""

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path

from benchmarks.support.figures import Rounds
from benchmarks.support.running import Running
from benchmarks.support.session import PROMPT, ROOT, SETTINGS

FOLDER = Path(ROOT) / "build" / "openaivec"
# Its tokeniser downloads its tables from a host that not every machine reaches. litellm has the same files inside.
TABLES = "litellm"
_LOCATE_TABLES = "from importlib.util import find_spec as f; print(f('litellm').submodule_search_locations[0])"
_INSTALL_S = 1_200
_JOB_S = 900


class PeerMissingError(Exception):
    """openaivec could not be installed, or did not do the job."""


def peer_rounds(
    kind: str, endpoint: Running, cores: int, size: Mapping[str, int], options: Mapping[str, int]
) -> tuple[Rounds, str]:
    """Let openaivec ask about `size["openaivec"]` rows in `size["rounds"]` rounds; return them, and a word on them.

    `kind` is "chat" or "embeddings", `options` are those of its UDF. What goes wrong with it is no failure of the
    benchmark: there are no rounds then, and the word says why.
    """
    rounds = Rounds(size.get("openaivec", 0))
    if not rounds.rows:
        return rounds, "openaivec is left out of the short form."
    settings = {**SETTINGS, "spark.master": f"local[{cores}]", "spark.python.worker.reuse": "false"}
    job = {"kind": kind, "rows": rounds.rows, "rounds": size["rounds"], "warm": rounds.rows // 4}
    job |= {"options": dict(options), "settings": settings, "control": endpoint.control_url, "prompt": PROMPT}
    try:
        python = _environment()
        told = json.loads(
            _output([str(python), "-m", "benchmarks.support.peer_job", json.dumps(job)], _JOB_S, endpoint)
        )
    except PeerMissingError as problem:
        return rounds, f"openaivec was not measured: {problem}"
    rounds.seconds = told["seconds"]
    choices = ", ".join(f"{name}={value}" for name, value in options.items())
    return rounds, (
        f"openaivec {told['version']} ({choices}) asks about {rounds.rows:,} rows, in a process and an environment of "
        "its own. Its workers live for one job, because its second job in a worker fails; their start is not counted."
    )


def _environment() -> Path:
    """Return the Python of the environment, made at the first call."""
    python, ready = FOLDER / "bin" / "python", FOLDER / "ready"
    if not ready.exists():
        _output([sys.executable, "-m", "venv", "--clear", str(FOLDER)], _INSTALL_S)
        install = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        _output([*install, "openaivec", f"pyspark=={version('pyspark')}", "pandas<3"], _INSTALL_S)
        _output([*install, "--no-deps", TABLES], _INSTALL_S)
        ready.touch()
    return python


def _output(command: Sequence[str], timeout_s: float, endpoint: Running | None = None) -> str:
    """Run a command in the environment; return its last line. Raises `PeerMissingError` with what it said."""
    surroundings = {**os.environ, "PYSPARK_PYTHON": command[0], "PYTHONPATH": ROOT}
    if endpoint is not None:
        tables = Path(_output([command[0], "-c", _LOCATE_TABLES], timeout_s)) / "litellm_core_utils" / "tokenizers"
        surroundings["TIKTOKEN_CACHE_DIR"] = str(tables)
        surroundings["OPENAI_BASE_URL"] = endpoint.base_url()
    try:
        run = subprocess.run(
            command, cwd=ROOT, env=surroundings, capture_output=True, text=True, timeout=timeout_s, check=True
        )
    except (OSError, subprocess.TimeoutExpired) as problem:
        raise PeerMissingError(f"{type(problem).__name__}: {problem}") from problem
    except subprocess.CalledProcessError as problem:
        said = (problem.stderr or problem.stdout).strip().splitlines() or ["nothing was said"]
        raise PeerMissingError(said[-1]) from problem
    return run.stdout.strip().rpartition("\n")[2]
