"""What is the same is sent once, and everybody gets their own."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from mlproxy.engine import Batch, Member
from mlproxy.engine.request import split
from tests.unit.engine.world import Worded
from workers.batcher.coalesce import Coalesced, coalesce, own_pieces

#: A member: its instances, and whether it is part of a larger request.
MEMBERS = st.lists(st.tuples(st.lists(st.sampled_from("ab"), min_size=1, max_size=3), st.booleans()), min_size=1)


@settings(max_examples=50, deadline=None)
@given(MEMBERS)
def test_everybody_gets_the_items_of_their_own_instances(drawn: list[tuple[list[str], bool]]) -> None:
    members: list[Member] = []
    for number, (instances, is_part) in enumerate(drawn):
        request = Worded(number, b"", len(instances), 1, 0, word=" ".join(instances).encode())
        members.append(split(request, len(instances))[0] if is_part else request)
    batch = Batch(1, b"", members, sum(member.count for member in members), "full")
    sent, places = coalesce(batch, [" ".join(instances).encode() for instances, _ in drawn])
    reply = [instance for text in sent for instance in text.decode().split()]  # type: ignore[union-attr]
    whole = {tuple(instances) for instances, is_part in drawn if not is_part}
    assert len(sent) == len(whole) + sum(is_part for _, is_part in drawn)
    first = 0
    for instances, _ in drawn:
        ((own, at, count),) = own_pieces([(Coalesced(reply, places), first, len(instances))])
        assert own[at : at + count] == instances
        first += len(instances)
