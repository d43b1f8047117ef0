"""The command line. **Effects.** Everything heavy is imported by the command that needs it."""

from mlproxy.cli.app import app

__all__ = ["app"]
