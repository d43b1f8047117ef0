"""The iris table, the classifier trained on it, and what its server reads and answers."""

from __future__ import annotations

import numpy as np
import orjson
import pytest

from bench.iris import SPECIES, measurements, species, train
from bench.model_server import BadInput, predictions, read_flowers


def test_the_table_is_fishers() -> None:
    flowers = measurements()
    assert flowers.shape == (150, 4)
    assert np.bincount(species()).tolist() == [50, 50, 50]
    assert flowers.mean(axis=0).round(3).tolist() == [5.843, 3.057, 3.758, 1.199]
    assert flowers.std(axis=0, ddof=1).round(4).tolist() == [0.8281, 0.4359, 1.7653, 0.7622]


def test_each_species_has_its_known_means() -> None:
    means = [measurements()[species() == index].mean(axis=0).round(3).tolist() for index in range(3)]
    assert means == [[5.006, 3.428, 1.462, 0.246], [5.936, 2.77, 4.26, 1.326], [6.588, 2.974, 5.552, 2.026]]


def test_the_two_flowers_that_the_uci_copy_has_wrong_are_right() -> None:
    assert measurements()[[34, 37]].tolist() == [[4.9, 3.1, 1.5, 0.2], [4.9, 3.6, 1.4, 0.1]]


def test_the_classifier_names_most_flowers_rightly() -> None:
    assert train().accuracy() > 0.95


def test_probabilities_sum_to_one_for_each_flower() -> None:
    probabilities = train().probabilities(measurements())
    assert probabilities.shape == (150, 3)
    assert np.allclose(probabilities.sum(axis=1), 1.0)


def test_predictions_come_in_the_order_of_the_instances() -> None:
    flowers = read_flowers(b'{"instances": [[6.3, 3.3, 6.0, 2.5], [5.1, 3.5, 1.4, 0.2], [5.7, 2.8, 4.1, 1.3]]}')
    answer = orjson.loads(predictions(train(), flowers))
    assert [prediction["class"] for prediction in answer["predictions"]] == [SPECIES[2], SPECIES[0], SPECIES[1]]


@pytest.mark.parametrize(
    "body",
    [
        b"", b"[", b"[]", b"{}", b'{"instances": {}}', b'{"instances": []}', b'{"instances": [1, 2, 3, 4]}',
        b'{"instances": [[1, 2, 3]]}', b'{"instances": [[1, 2, 3, 4], [1, 2, 3, 4, 5]]}',
        b'{"instances": [[1, 2, 3, "4"]]}', b'{"instances": [[1, 2, 3, true]]}', b'{"instances": [[1, 2, 3, 1e300]]}',
        b'{"instances": [[1, 2, 3, null]]}',
    ],
)  # fmt: skip
def test_anything_but_flowers_is_refused(body: bytes) -> None:
    with pytest.raises(BadInput):
        read_flowers(body)
