"""What all parts of a configuration have in common. **Pure.**"""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class Section(BaseModel):
    """A mapping of the file: frozen, no unknown keys, written by alias."""

    model_config = ConfigDict(frozen=True, extra="forbid")
