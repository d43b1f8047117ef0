"""What the pods of the emulated cluster compute, and what callers ask them. **Pure.**

The time that it takes is the cluster's business: it is drawn from a profile and slept.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import orjson

from bench.iris import SPECIES, Classifier, measurements


class Model(NamedTuple):
    """A model by what it makes of instances, and the requests to try it with."""

    bodies: list[bytes]  #: of requests with one instance each, taken in turn
    predict: Callable[[list[Any]], list[Any]]  #: a prediction per instance, in order


#: A prediction is its own instance, so that whoever asked can see that the answer is theirs.
ECHO = Model([orjson.dumps({"instances": [number]}) for number in range(1000)], lambda instances: instances)


def of_flowers(classifier: Classifier) -> Model:
    """Names the species of irises: the flowers of the table it was trained on."""

    def predict(instances: list[Any]) -> list[Any]:
        probabilities = classifier.probabilities(np.array(instances, dtype=np.float64))
        return [SPECIES[best] for best in probabilities.argmax(axis=1)]

    return Model([orjson.dumps({"instances": [flower]}) for flower in measurements().tolist()], predict)
