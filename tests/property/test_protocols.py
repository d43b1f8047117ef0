"""Every protocol conforms: each caller gets what it would get alone, and none can touch another's request."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mlproxy.errors import BadRequest
from mlproxy.protocols import codec_for
from mlproxy.testing.conformance import PROPERTIES, Dialect, Property
from mlproxy.testing.json_texts import values
from tests.property.custom_dialect import Bare, Nested
from tests.property.dialects import Columns, Listed, Rows
from tests.property.embedding_dialect import Embeddings
from tests.property.tensor_dialect import Tensors

DIALECTS: list[Dialect] = [Rows(), Listed(), Columns(), Embeddings(), Nested(), Bare(), Tensors()]
#: Shrinking a failure takes its time.
pytestmark = pytest.mark.timeout(300)
#: A busy machine is no reason to fail: speed is not tested here.
many = settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.too_slow])


@pytest.mark.parametrize("dialect", DIALECTS, ids=lambda dialect: type(dialect).__name__.lower())
@pytest.mark.parametrize("holds", PROPERTIES, ids=lambda holds: holds.__name__)
@many
@given(data=st.data())
def test_a_protocol_conforms(holds: Property, dialect: Dialect, data: st.DataObject) -> None:
    holds(dialect, data)


@many
@given(data=st.data())
def test_a_key_that_a_caller_says_twice_is_refused(data: st.DataObject) -> None:
    again = data.draw(st.sampled_from([b'"instances"', b'"\\u0069nstances"', b'"k"', b'"\\u006b"']))
    pieces = [b'"instances":[1]', b'"k":%b' % data.draw(values), b"%b:%b" % (again, data.draw(values))]
    body = b"{%b}" % b" , ".join(data.draw(st.permutations(pieces)))
    with pytest.raises(BadRequest):
        codec_for("kserve-v1").parse_request(body)
