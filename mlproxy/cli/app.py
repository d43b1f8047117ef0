"""``mlproxy serve``, ``check`` and ``demo``. **Effects.**"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

from mlproxy import __version__

if TYPE_CHECKING:
    from mlproxy.config import Configuration

EXIT_BAD_CONFIGURATION = 2

app = typer.Typer(
    name="mlproxy", no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False,
    help="Adaptive batching reverse proxy for machine-learning inference.",
)  # fmt: skip


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"mlproxy {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Print it.")] = False,
) -> None:
    """Options before the command."""


@app.command()
def serve(
    config: Annotated[
        Path | None, typer.Option("--config", "-c", metavar="FILE", help="YAML file; also $MLPROXY_CONFIG.")
    ] = None,
    backend: Annotated[list[str] | None, typer.Option(metavar="URL", help="Model server; may be repeated.")] = None,
    name: Annotated[str | None, typer.Option(help="Name of the endpoint, as it stands in URLs. [model]")] = None,
    protocol: Annotated[str | None, typer.Option(help="kserve-v1 or json-list. [kserve-v1]")] = None,
    slo: Annotated[str | None, typer.Option(metavar="DURATION", help="Latency objective. [500ms]")] = None,
    policy: Annotated[str | None, typer.Option(help="none or static. [static]")] = None,
    max_size: Annotated[int | None, typer.Option(help="Instances per batch. [64]")] = None,
    max_linger: Annotated[str | None, typer.Option(metavar="DURATION", help="Longest wait for company. [0s]")] = None,
    max_inflight: Annotated[int | None, typer.Option(help="Backend calls at once. [4]")] = None,
    host: Annotated[str | None, typer.Option(help="Address of the data port. [0.0.0.0]")] = None,
    port: Annotated[int | None, typer.Option(help="Data port. [$PORT or 8080]")] = None,
    workers: Annotated[str | None, typer.Option(metavar="N", help="Ingress workers, or auto. [auto]")] = None,
    admin_port: Annotated[int | None, typer.Option(help="Admin port. [8081]")] = None,
    log_level: Annotated[str | None, typer.Option(help="debug, info, warning or error. [info]")] = None,
    access_log: Annotated[
        bool | None, typer.Option("--access-log/--no-access-log", help="One line per response. [off]")
    ] = None,
) -> None:
    """Run the proxy, from a file or for one backend."""
    flags: dict[str, Any] = {
        "backend": backend or None, "name": name, "protocol": protocol, "slo": slo, "policy": policy,
        "max_size": max_size, "max_linger": max_linger, "max_inflight": max_inflight, "server.host": host,
        "server.port": port, "server.workers": _number(workers), "admin.port": admin_port,
        "logging.level": log_level, "logging.access": access_log,
    }  # fmt: skip
    path = config or (Path(os.environ["MLPROXY_CONFIG"]) if os.environ.get("MLPROXY_CONFIG") else None)
    configuration = _load(path, {key: value for key, value in flags.items() if value is not None})
    _check_workers_beside()
    from workers.supervisor import run

    raise typer.Exit(run(configuration))


@app.command()
def check(file: Annotated[Path, typer.Argument(help="YAML file.")]) -> None:
    """Check a configuration file: prints what it configures, or every problem at once."""
    configuration = _load(file, {})
    from rich.console import Console

    from mlproxy.cli.summary import summary

    Console().print(summary(configuration))


@app.command()
def demo() -> None:
    """A model server, the proxy and traffic on this machine: see what batching does. Takes about 25 s."""
    import mlproxy

    source = Path(mlproxy.__file__).parent.parent
    if not (source / "bench" / "demo.py").exists():
        typer.echo("The demo lives beside the source: clone the repository and run `make demo`.", err=True)
        raise typer.Exit(1)
    sys.path.insert(0, str(source))
    from bench.demo import main

    raise typer.Exit(main())


def _number(text: str | None) -> int | str | None:
    return int(text) if text is not None and text.isdecimal() else text


def _load(path: Path | None, overrides: dict[str, object]) -> Configuration:
    from mlproxy.config import load_configuration
    from mlproxy.errors import ConfigurationError

    if path is None and "backend" not in overrides and not os.environ.get("MLPROXY_BACKEND"):
        _refuse(["give -c FILE, or --backend URL for a single endpoint"], "mlproxy")
    try:
        return load_configuration(path, os.environ, overrides)
    except ConfigurationError as error:
        _refuse(error.problems, str(path) if path else "mlproxy")


def _refuse(problems: list[str], where: str) -> NoReturn:
    for problem in problems:
        print(f"{where}: {problem}", file=sys.stderr)  # noqa: T201 - the command's answer
    raise typer.Exit(EXIT_BAD_CONFIGURATION)


def _check_workers_beside() -> None:
    """`workers` is a common name: run only the one that came with this package."""
    import mlproxy
    import workers

    ours = Path(mlproxy.__file__).parent.parent
    if Path(workers.__file__ or "").parent.parent != ours:
        typer.echo(f"the package `workers` was found in {workers.__file__}, not beside mlproxy in {ours}", err=True)
        raise typer.Exit(1)
