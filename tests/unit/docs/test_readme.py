"""What the README tells people to paste works when it is pasted, and what it shows is what they will see."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import typer

from bench.demo import MODEL, POLICIES, RATE_PER_S, SECONDS, Outcome, figures
from bench.live.runs import Run
from bench.load import Result
from mlproxy.cli import app
from mlproxy.config.load import load_configuration
from mlproxy.simulate import Report

ROOT = Path(__file__).parents[3]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    """The fenced blocks of a language."""
    return re.findall(rf"^```{language}\n(.*?)^```", README, re.MULTILINE | re.DOTALL)


def commands(program: str) -> list[list[str]]:
    """The arguments of every time that ``program`` is run."""
    lines = [shlex.split(line, comments=True) for block in blocks("sh") for line in block.splitlines()]
    return [words[1:] for words in lines if words and words[0] == program]


def test_the_file_can_be_pasted_and_configures_a_server_on_this_machine(tmp_path: Path) -> None:
    (block,) = blocks("yaml")
    (tmp_path / "mlproxy.yaml").write_text(block)
    configuration = load_configuration(tmp_path / "mlproxy.yaml", {}, {})
    assert configuration.endpoints[0].backend.urls == ("http://127.0.0.1:9000",)
    for arguments in commands(".venv/bin/mlproxy"):
        assert {word for word in arguments if word.endswith(".yaml")} <= {"mlproxy.yaml"}


def test_every_command_of_the_program_and_every_flag_exists() -> None:
    group = typer.main.get_command(app)
    given = commands(".venv/bin/mlproxy")
    assert {arguments[0] for arguments in given} == {"serve", "check"}
    for name, *arguments in given:
        command = group.commands[name]  # type: ignore[attr-defined] # a group, typed as a command
        command.make_context(name, list(arguments))


def test_every_make_target_exists() -> None:
    targets = re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    named = re.findall(r"\bmake ([a-z]+)\b", "\n".join(re.findall(r"`make[^`]*`|^make .*", README, re.MULTILINE)))
    assert set(named) >= {"demo", "model", "test", "image"}
    assert set(named) <= set(targets)


def test_the_table_of_the_demo_has_the_words_of_the_demo() -> None:
    table = README[README.index("| | one by one | batched |") : README.index("## Use it")]
    rows = [line.split(" | ")[0].removeprefix("| ") for line in table.splitlines()[2:] if line.startswith("| ")]
    nothing: dict[str, Any] = dict.fromkeys(Report.__dataclass_fields__, 0)
    report = Report(**nothing)
    shown = figures(Outcome(policy=POLICIES[0], run=Run(report, Result(due=1), (0.0, 0.0)), later=report))
    assert rows
    assert set(rows) <= set(shown)


def test_the_words_around_it_are_the_demo_s() -> None:
    words = README[README.index("make demo ") : README.index("| | one by one | batched |")]
    assert f"{len(POLICIES) * SECONDS:g} s of traffic" in words
    assert f"{RATE_PER_S:g} requests/s" in words
    assert f"{MODEL.a_ms:g} ms + {MODEL.b_ms:g} ms per instance" in words
