"""MiniLM: a small real embedding model in this process.

Its engine is in the extra `local`. The engine is imported, and the weights fetched, when the model starts.
"""

from collections.abc import Callable
from typing import Any

from spark_llm.serving.models.threaded import ThreadedModel, missing_package_error
from spark_llm.serving.models.weights import find_weights
from spark_llm.serving.protocol.errors import Refused
from spark_llm.serving.protocol.requests import EmbeddingRequest
from spark_llm.serving.protocol.values import Usage, Vectors

DIMENSIONS = 384
MAX_INPUT_TOKENS = 256  # the rest of a text is cut off, as the model's authors do
_BATCH_SIZE = 32


class MiniLM(ThreadedModel):
    """all-MiniLM-L6-v2 in eight bits: vectors of 384 numbers and length 1, of a text's first 256 tokens.

    Args:
        n_threads: Threads of the engine. Several wait for each other in loops, and help only on cores that are idle.
    """

    name = "all-minilm-l6-v2"

    def __init__(self, *, n_threads: int = 1) -> None:
        super().__init__(n_threads, workers=1)
        self._session: Any = None
        self._tokenizer: Any = None

    async def embed(self, request: EmbeddingRequest) -> Vectors:
        """Return the vector of each input."""
        if request.dimensions not in (None, DIMENSIONS):
            raise Refused.bad_request(f"{self.name} has {DIMENSIONS} dimensions and no others.", param="dimensions")
        batches = [request.texts[at : at + _BATCH_SIZE] for at in range(0, len(request.texts), _BATCH_SIZE)]
        embedded = await self.run_in_threads(self._embed, batches)
        return Vectors(
            [vector for vectors, _ in embedded for vector in vectors],
            Usage(sum(tokens for _, tokens in embedded)),
        )

    def _embed(self, is_cancelled: Callable[[], bool], texts: list[str]) -> tuple[list[bytes], int]:
        import numpy as np

        if is_cancelled():
            return [], 0
        encoded = self._tokenizer.encode_batch(texts)
        ids = np.array([each.ids for each in encoded], dtype=np.int64)
        mask = np.array([each.attention_mask for each in encoded], dtype=np.int64)
        inputs = {"input_ids": ids, "attention_mask": mask, "token_type_ids": np.zeros_like(ids)}
        (states,) = self._session.run(["last_hidden_state"], inputs)
        weights = mask[:, :, None].astype(np.float32)
        means = (states * weights).sum(axis=1) / weights.sum(axis=1)
        vectors = means / np.linalg.norm(means, axis=1, keepdims=True)
        return [vector.astype("<f4").tobytes() for vector in vectors], int(mask.sum())

    def _start(self) -> None:
        try:
            import onnxruntime
            import tokenizers
        except ImportError as error:
            raise missing_package_error("onnxruntime" if "onnx" in str(error) else "tokenizers") from error
        weights = find_weights()
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = self._n_threads
        options.log_severity_level = 3
        self._session = onnxruntime.InferenceSession(
            str(weights.embedding_onnx), options, providers=["CPUExecutionProvider"]
        )
        self._tokenizer = tokenizers.Tokenizer.from_file(str(weights.embedding_tokenizer))
        self._tokenizer.enable_truncation(MAX_INPUT_TOKENS)
        self._tokenizer.enable_padding()

    def _stop(self) -> None:
        self._session = self._tokenizer = None
