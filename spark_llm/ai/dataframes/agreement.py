"""How often a small model agrees with a large one, and above which probability it may decide. Knows no Spark.

The held-out texts were asked, and the small model did not learn from them. A threshold on its probability is good
enough if the lower bound of its agreement above it reaches the agreement asked for. The bound is that of Clopper and
Pearson (Biometrika 26, 1934), one-sided. A few thresholds are tried, whose numbers of held-out texts do not depend on
the answers. The risk of a wrong bound is split evenly among them (Bonferroni), so all bounds hold at once.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

CONFIDENCE = 0.95  # that no bound of a frame is above the true agreement
THRESHOLDS = 8  # that are tried at most
_RISK = (1 - CONFIDENCE) / THRESHOLDS  # of each bound
_HELD_OUT = 25  # texts for each part of disagreement that is allowed; see docs/decisions/0046
_HALVINGS = 60


class Agreement(NamedTuple):
    """The agreement of the held-out texts whose probability is above a threshold.

    Attributes:
        threshold: The small model decides where its probability is above this.
        texts: The held-out texts above it.
        agreed: Those of them where both models gave the same label.
        lower_bound: The lower confidence bound of the agreement.
    """

    threshold: float
    texts: int
    agreed: int
    lower_bound: float

    @property
    def measured(self) -> float:
        """The share of agreement."""
        return self.agreed / self.texts


def lower_bound(agreed: int, texts: int, risk: float = _RISK) -> float:
    """Return the agreement that is so low that as many agree with this probability only (Clopper and Pearson)."""
    if not agreed:
        return 0.0
    low, high = 0.0, 1.0
    logs = _log_binomials(texts, texts - agreed)
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        low, high = (low, middle) if _tail(logs, texts, middle) > risk else (middle, high)
    return low


def _tail(logs: npt.NDArray[np.float64], texts: int, agreement: float) -> float:
    """Return the probability of as few disagreements as `logs` has, or fewer."""
    if agreement in (0.0, 1.0):
        return agreement
    wrong = np.arange(len(logs))
    return float(np.exp(logs + wrong * math.log1p(-agreement) + (texts - wrong) * math.log(agreement)).sum())


def _log_binomials(texts: int, most: int) -> npt.NDArray[np.float64]:
    """Return the logarithms of `texts` over 0, 1, … `most`."""
    steps = np.arange(1, most + 1)
    return np.concatenate([[0.0], np.cumsum(np.log((texts - steps + 1) / steps))])


def fewest_held_out(agreement: float) -> int:
    """Return how many held-out texts show an agreement if all of them agree."""
    return max(1, math.ceil(math.log(_RISK) / math.log(agreement)))


def default_sample(agreement: float) -> int:
    """Return how many texts to ask for an agreement: half of them to learn from, and half to hold out."""
    return 2 * math.ceil(round(_HELD_OUT / (1 - agreement), 6))


def agreements(probabilities: Sequence[float], agrees: Sequence[bool], agreement: float) -> list[Agreement]:
    """Return the agreement of the held-out texts above each threshold that is tried, from strict to loose.

    The list is empty where there are too few texts to show this agreement. With the last threshold, the small model
    decides everything.
    """
    order = np.argsort(-np.asarray(probabilities, dtype=np.float64), kind="stable")
    ordered = np.asarray(probabilities, dtype=np.float64)[order]
    agreed = np.concatenate([[0], np.cumsum(np.asarray(agrees, dtype=bool)[order])])
    found = {}
    for count in _counts(len(ordered), fewest_held_out(agreement)):
        threshold = float(ordered[count]) if count < len(ordered) else 0.0
        above = int((ordered > threshold).sum())  # fewer where texts have the same probability
        if above:
            found[threshold] = Agreement(threshold, above, int(agreed[above]), lower_bound(int(agreed[above]), above))
    return list(found.values())


def _counts(texts: int, fewest: int) -> list[int]:
    """Return the numbers of texts above each threshold: each larger by the same factor."""
    if texts < fewest:
        return []
    return sorted({round(count) for count in np.geomspace(fewest, texts, THRESHOLDS)})


def loosest(found: Sequence[Agreement], agreement: float) -> Agreement | None:
    """Return the loosest threshold whose bound reaches the agreement; None if none does."""
    return next((each for each in reversed(found) if each.lower_bound >= agreement), None)
