"""Where a backend is, and how its certificate is checked. **Effects**: reads the authorities' file."""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from urllib.parse import urlsplit

from mlproxy.config import Tls


@dataclass(frozen=True, slots=True)
class BackendUrl:
    """A validated ``http(s)://host[:port][/prefix]``."""

    scheme: str
    host: str
    port: int
    prefix: str  #: path before every request path, without a slash at its end

    @classmethod
    def parse(cls, text: str) -> BackendUrl:
        """From the text that the configuration has checked."""
        parts = urlsplit(text)
        port = parts.port or (443 if parts.scheme == "https" else 80)
        return cls(parts.scheme, parts.hostname or "", port, parts.path.rstrip("/"))

    def __str__(self) -> str:
        return f"{self.scheme}://{self.authority}{self.prefix}"

    @property
    def authority(self) -> str:
        """The ``Host`` header: the port is left out where it is the scheme's own."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == (443 if self.scheme == "https" else 80) else f"{host}:{self.port}"


def tls_context(tls: Tls) -> ssl.SSLContext:
    """The client context for https backends."""
    context = ssl.create_default_context(cafile=tls.ca_file)
    if not tls.verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context
