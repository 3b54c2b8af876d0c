"""MiniLM embeds: a small real model in this process.

Its engine is in the extra `local`; it is imported, and the weights fetched, when the model is started.
"""

from collections.abc import Callable
from typing import Any

from spark_llm.serving.models.threaded import Threaded, missing
from spark_llm.serving.models.weights import find_weights
from spark_llm.serving.protocol.errors import Refused
from spark_llm.serving.protocol.requests import EmbeddingRequest, Usage, Vectors

DIMENSIONS = 384
LONGEST_INPUT = 256  # tokens; the rest of a text is left out, as the model's authors do
_BATCH = 32


class MiniLM(Threaded):
    """all-MiniLM-L6-v2 in eight bits: vectors of 384 numbers and length 1, of a text's first 256 tokens.

    Args:
        n_threads: Threads that the engine computes with.
    """

    name = "all-minilm-l6-v2"

    def __init__(self, *, n_threads: int = 2) -> None:
        super().__init__(n_threads, workers=1)
        self._session: Any = None
        self._tokenizer: Any = None

    async def embed(self, request: EmbeddingRequest) -> Vectors:
        """Embed each input."""
        if request.dimensions not in (None, DIMENSIONS):
            raise Refused.bad_request(f"{self.name} has {DIMENSIONS} dimensions and no others.", param="dimensions")
        batches = [request.inputs[at : at + _BATCH] for at in range(0, len(request.inputs), _BATCH)]
        done = await self.in_threads(self._embed, batches)
        return Vectors([vector for vectors, _ in done for vector in vectors], Usage(sum(tokens for _, tokens in done)))

    def _embed(self, gone: Callable[[], bool], texts: list[str]) -> tuple[list[bytes], int]:
        import numpy as np

        if gone():
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
            raise missing("onnxruntime" if "onnx" in str(error) else "tokenizers") from error
        weights = find_weights()
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = self._n_threads
        options.log_severity_level = 3
        self._session = onnxruntime.InferenceSession(
            str(weights.embedding_onnx), options, providers=["CPUExecutionProvider"]
        )
        self._tokenizer = tokenizers.Tokenizer.from_file(str(weights.embedding_tokenizer))
        self._tokenizer.enable_truncation(LONGEST_INPUT)
        self._tokenizer.enable_padding()

    def _stop(self) -> None:
        self._session = self._tokenizer = None
