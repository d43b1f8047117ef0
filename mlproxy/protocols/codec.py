"""What a protocol must be able to do. **Pure.**"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, TypeAlias, TypeVar

import msgspec

from mlproxy.errors import BadRequest

if TYPE_CHECKING:
    from mlproxy.config import Endpoint

#: Text that nobody changes: large ones are views of what the caller sent.
Text: TypeAlias = bytes | memoryview

#: What one caller gets: header lines about the body (none: it is JSON, as nearly always), and the body. (A plain
#: tuple: made per request.)
Answer: TypeAlias = tuple[bytes, bytes]

#: Of priorities, 1 is the most urgent; beyond this one they are no different, and a byte in a record.
LEAST_PRIORITY = 255

#: What every body in JSON says about itself.
JSON_TYPE = b"content-type: application/json\r\n"
#: What a batch in JSON says about its body.
JSON_HEADERS = JSON_TYPE + b"accept: application/json\r\n"


class ParsedRequest(msgspec.Struct, frozen=True):
    """A request's instances, as the caller wrote them. (A Struct: made per request, in a fifth of a tuple's time.)"""

    items: Text  #: the instances, as the codec's `join` takes them
    instances: int  #: how many, at least 1
    lane_key: bytes  #: equal exactly when requests may share a batch; holds what the batch says beside its instances
    own: bytes = b""  #: what this request's answer needs, and its batch does not
    timeout_ns: int = 0  #: the time budget that its body states; 0: none
    priority: int = 0  #: that its body states, at most `LEAST_PRIORITY`; 0: none


class BatchBody(NamedTuple):
    """What a batch's call consists of, beside its address."""

    headers: bytes  #: whole lines, about the body
    buffers: list[Text]  #: together they are the body
    version: str = ""  #: of the model, to be named in the path; empty: the backend's choice
    asked: Any = None  #: what of the batch its reply is to be read by; None: nothing, as nearly always


class Reply(Protocol):
    """A batch's reply, cut so that each caller can be given its own; only its codec looks further into it."""

    @property
    def count(self) -> int:
        """Items, one per instance."""


class Cut(Protocol):
    """A request's instances, any run of which can travel alone."""

    def part(self, first: int, count: int) -> Text:
        """The instances of one part, as `Codec.join` takes them."""


AnyReply = TypeVar("AnyReply", bound=Reply)


class Codec(Protocol[AnyReply]):
    """One protocol."""

    name: str

    def parse_request(self, text: bytes, start: int = 0, json_bytes: int = 0) -> ParsedRequest:
        """Validate a caller's body, ``text`` from ``start`` on, and find its instances. Raises `BadRequest`.

        ``json_bytes`` is how much of the body is JSON, where the caller says that tensors follow in binary.
        """

    def join(self, lane_key: bytes, items: Sequence[Text]) -> BatchBody:
        """The call of a batch with these items."""

    def cut(self, lane_key: bytes, items: Text) -> Cut:
        """The instances of one `ParsedRequest`, to be sent in parts."""

    def split_reply(self, headers: bytes, body: bytes, asked: Any = None) -> AnyReply:
        """Cut the reply to the batch that ``asked``, with those of its header lines that are kept.

        Raises `BackendContract`.
        """

    def render(self, pieces: Sequence[tuple[AnyReply, int, int]], own: bytes) -> Answer:
        """The answer of one caller, to whom of each reply so many items belong: (reply, index of the first, count).

        Raises `BackendContract` when pieces of several replies do not fit together.
        """

    def values(self, pieces: Sequence[tuple[AnyReply, int, int]]) -> Any:
        """What `compare.difference` is to compare of a caller's answer. ValueError: it cannot be read as values."""


def no_tensors() -> BadRequest:
    """The refusal of a body with tensors in binary, where these have no meaning."""
    return BadRequest("Inference-Header-Content-Length: this endpoint takes JSON only, no tensors in binary")


def endpoint_codec(endpoint: Endpoint) -> Codec[Any]:
    """The codec of a configured endpoint."""
    if endpoint.protocol != "custom":
        return codec_for(endpoint.protocol)
    from mlproxy.protocols.custom import Custom

    request, response = endpoint.request, endpoint.response
    return Custom(
        request.items or "", response.items or "", wrap=request.wrap, unwrap=response.unwrap,
        constants=request.constants,
    )  # fmt: skip


def codec_for(protocol: str) -> Codec[Any]:
    """The codec of a protocol whose name says all about it: any but ``custom``."""
    from mlproxy.protocols.json_list import JsonList
    from mlproxy.protocols.kserve_v1 import KServeV1
    from mlproxy.protocols.kserve_v2 import KServeV2
    from mlproxy.protocols.openai_embeddings import OpenAiEmbeddings

    codecs: tuple[type[Codec[Any]], ...] = (KServeV1, KServeV2, JsonList, OpenAiEmbeddings)
    return next(codec for codec in codecs if codec.name == protocol)()
