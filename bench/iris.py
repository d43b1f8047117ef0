"""Fisher's iris table, and a classifier trained on it. **Pure.**

150 flowers, fifty of each species, as printed in R. A. Fisher, "The use of multiple measurements in taxonomic
problems", Annals of Eugenics 7 (1936). The widespread UCI copy has errors in the 35th and 38th flower; this has not.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

SPECIES = ("setosa", "versicolor", "virginica")
FEATURES = ("sepal_length", "sepal_width", "petal_length", "petal_width")
FLOWERS_PER_SPECIES = 50

#: A flower is eight digits: sepal length and width, petal length and width, each in tenths of a centimetre.
_FLOWERS = """
51351402 49301402 47321302 46311502 50361402 54391704 46341403 50341502 44291402 49311501
54371502 48341602 48301401 43301101 58401202 57441504 54391304 51351403 57381703 51381503
54341702 51371504 46361002 51331705 48341902 50301602 50341604 52351502 52341402 47321602
48311602 54341504 52411501 55421402 49311502 50321202 55351302 49361401 44301302 51341502
50351303 45231303 44321302 50351606 51381904 48301403 51381602 46321402 53371502 50331402

70324714 64324515 69314915 55234013 65284615 57284513 63334716 49243310 66294613 52273914
50203510 59304215 60224010 61294714 56293613 67314414 56304515 58274110 62224515 56253911
59324818 61284013 63254915 61284712 64294313 66304414 68284814 67305017 60294515 57263510
55243811 55243710 58273912 60275116 54304515 60344516 67314715 63234413 56304113 55254013
55264412 61304614 58264012 50233310 56274213 57304212 57294213 62294313 51253011 57284113

63336025 58275119 71305921 63295618 65305822 76306621 49254517 73296318 67255818 72366125
65325120 64275319 68305521 57255020 58285124 64325323 65305518 77386722 77266923 60225015
69325723 56284920 77286720 63274918 67335721 72326018 62284818 61304918 64285621 72305816
74286119 79386420 64285622 63285115 61265614 77306123 63345624 64315518 60304818 69315421
67315624 69315123 58275119 68325923 67335725 67305223 63255019 65305220 62345423 59305118
"""

#: Newton's method needs about ten steps here. Separable species would push weights to infinity but for a weak ridge.
_NEWTON_STEPS = 12
_RIDGE = 0.1


def measurements() -> NDArray[np.float64]:
    """The table: a row per flower, in centimetres, columns as in `FEATURES`."""
    digits = np.array([list(flower) for flower in _FLOWERS.split()], dtype=np.float64)
    return (digits[:, 0::2] * 10 + digits[:, 1::2]) / 10


def species() -> NDArray[np.int64]:
    """For each row of the table the index of its species in `SPECIES`."""
    return np.repeat(np.arange(len(SPECIES)), FLOWERS_PER_SPECIES)


@dataclass(frozen=True, slots=True)
class Classifier:
    """Softmax regression on standardised features."""

    mean: NDArray[np.float64]
    deviation: NDArray[np.float64]
    weights: NDArray[np.float64]  #: a row per feature and one for the constant, a column per species

    def probabilities(self, flowers: NDArray[np.float64]) -> NDArray[np.float64]:
        """A row per flower, a column per species."""
        return _softmax(_with_constant((flowers - self.mean) / self.deviation) @ self.weights)

    def accuracy(self) -> float:
        """The share of the table's flowers that it names rightly."""
        return float(np.mean(self.probabilities(measurements()).argmax(axis=1) == species()))


def train() -> Classifier:
    """Fit the classifier to the table by Newton's method."""
    flowers = measurements()
    mean, deviation = flowers.mean(axis=0), flowers.std(axis=0)
    inputs = _with_constant((flowers - mean) / deviation)
    weights = np.zeros((inputs.shape[1], len(SPECIES)))
    for _ in range(_NEWTON_STEPS):
        weights -= _newton_step(inputs, np.eye(len(SPECIES))[species()], weights)
    return Classifier(mean, deviation, weights)


def _newton_step(
    inputs: NDArray[np.float64], targets: NDArray[np.float64], weights: NDArray[np.float64]
) -> NDArray[np.float64]:
    """The inverse Hessian of the penalised negative log-likelihood, times its gradient."""
    shares = _softmax(inputs @ weights)
    gradient = inputs.T @ (shares - targets) + _RIDGE * weights
    curvature = np.einsum("ns,st->nst", shares, np.eye(len(SPECIES))) - np.einsum("ns,nt->nst", shares, shares)
    hessian = np.einsum("nf,nst,ng->fsgt", inputs, curvature, inputs).reshape(weights.size, weights.size)
    hessian += _RIDGE * np.eye(weights.size)
    return np.linalg.solve(hessian, gradient.ravel()).reshape(weights.shape)


def _with_constant(inputs: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.hstack([inputs, np.ones((len(inputs), 1))])


def _softmax(scores: NDArray[np.float64]) -> NDArray[np.float64]:
    powers = np.exp(scores - scores.max(axis=1, keepdims=True))
    shares: NDArray[np.float64] = powers / powers.sum(axis=1, keepdims=True)
    return shares
