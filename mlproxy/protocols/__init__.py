"""Protocols: request bytes to instances to batch bytes and back, never a socket. **Pure.**

Bodies are spliced, not re-encoded: what a caller's instance looked like in bytes is what the backend gets, and each
prediction comes back byte for byte.
"""

from mlproxy.protocols.codec import Answer, Codec, ParsedRequest, Reply, codec_for

__all__ = ["Answer", "Codec", "ParsedRequest", "Reply", "codec_for"]
