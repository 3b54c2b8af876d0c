"""Texts about topics with known labels, and local models that label and embed them."""

import json
import random
import zlib
from dataclasses import dataclass

import numpy as np

from spark_llm.serving.protocol.requests import ChatRequest, EmbeddingRequest
from spark_llm.serving.protocol.values import Choice, Texts, Usage, Vectors

TOPICS = {
    "delivery": [
        "parcel",
        "courier",
        "late",
        "arrived",
        "shipping",
        "doorstep",
        "tracking",
        "package",
        "delayed",
        "warehouse",
    ],
    "payment": ["invoice", "card", "charged", "refund", "bank", "twice", "receipt", "price", "discount", "billing"],
    "quality": ["broke", "scratched", "cheap", "plastic", "seam", "stitching", "fell", "apart", "cracked", "material"],
    "service": ["agent", "phone", "rude", "helpful", "answered", "chat", "queue", "polite", "manager", "call"],
}
_FRAMES = (
    "I have to say: {0} and {1}, and then the {2}. Number {n}.",
    "Number {n}. What about the {0}? The {1} was {2}.",
    "My {0}, {1}, {2}! This is my message {n} about it.",
)
DIMENSIONS = 384
PROMPT_TOKENS, COMPLETION_TOKENS = 60, 5  # of each chat request


def text_of(number: int, unclear: float) -> str:
    """Return a text about one topic; this share has a word of another topic, and more weight on neither."""
    dice = random.Random(number)
    topic, other = dice.sample(sorted(TOPICS), 2)
    words = dice.sample(TOPICS[topic], 3)
    if dice.random() < unclear:
        words[1:] = [dice.choice(TOPICS[other]), "thing"]
    return dice.choice(_FRAMES).format(*words, n=number)


def label_of(text: str) -> str:
    """Return the topic with the first word in the text that has one; the first of all topics without such a word."""
    known = {word: topic for topic, words in TOPICS.items() for word in words}
    return next((known[word] for word in _words(text) if word in known), min(TOPICS))


@dataclass(frozen=True)
class Labeller:
    """A chat model that answers a text's label, and for this share of the texts another one."""

    wrong: float = 0.0
    shuffled: bool = False  # whether the text's digest decides which label is the other one
    name: str = "labeller"

    async def chat(self, request: ChatRequest) -> Texts:
        """Return the label as the JSON that the request asks for."""
        label = self.label(request.messages[-1].text)
        schema = (request.response_format or {})["json_schema"]["schema"]
        [field] = schema["properties"]
        return Texts([Choice(json.dumps({field: label}), "stop")], Usage(PROMPT_TOKENS, COMPLETION_TOKENS))

    def label(self, text: str) -> str:
        """Return the label that this model gives."""
        labels, right, digest = sorted(TOPICS), label_of(text), zlib.crc32(text.encode())
        if digest / 2**32 >= self.wrong:
            return right
        return labels[digest % len(labels) if self.shuffled else (labels.index(right) + 1) % len(labels)]


@dataclass(frozen=True)
class WordVectors:
    """An embedding model whose vectors count the words of a text, by their hash; they have the length 1."""

    name: str = "word-vectors"

    async def embed(self, request: EmbeddingRequest) -> Vectors:
        """Return the vector of each text, and a token for each word."""
        words = [_words(text) for text in request.texts]
        return Vectors([_vector(each) for each in words], Usage(sum(map(len, words))))


def _vector(words: list[str]) -> bytes:
    vector = np.zeros(DIMENSIONS, dtype="<f4")
    for word in words:
        vector[zlib.crc32(word.encode()) % DIMENSIONS] += 1
    return (vector / max(1.0, float(np.linalg.norm(vector)))).tobytes()


def _words(text: str) -> list[str]:
    return "".join(char if char.isalnum() else " " for char in text.lower()).split()
