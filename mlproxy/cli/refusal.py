"""How a command refuses what it was given. **Effects**: prints, and ends the command."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import NoReturn

import typer

EXIT_BAD_CONFIGURATION = 2


def refuse(problems: Iterable[str]) -> NoReturn:
    """A line for every problem, and exit code 2."""
    for problem in problems:
        print(problem, file=sys.stderr)  # noqa: T201 - the command's answer
    raise typer.Exit(EXIT_BAD_CONFIGURATION)
