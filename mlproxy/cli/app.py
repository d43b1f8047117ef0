"""The commands: ``mlproxy serve``, ``check``, ``demo`` and ``simulate``. **Effects.**"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mlproxy import __version__
from mlproxy.cli.refusal import refuse
from mlproxy.cli.simulate import simulate

if TYPE_CHECKING:
    from mlproxy.config import Configuration

app = typer.Typer(
    name="mlproxy", no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None,
    help="An adaptive batching reverse proxy for machine-learning inference.",
    epilog="Try it: mlproxy serve --backend http://127.0.0.1:9000 --name iris",
)  # fmt: skip


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"mlproxy {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Options before the command."""


@app.command(epilog="All of these, and further keys, can stand in the file or the environment: docs/configuration.md.")
def serve(
    config: Annotated[
        Path | None, typer.Option("--config", "-c", metavar="FILE", help="YAML file. Default: $MLPROXY_CONFIG.")
    ] = None,
    backend: Annotated[
        list[str] | None, typer.Option(metavar="URL", help="Model server, instead of a file; may be repeated.")
    ] = None,
    name: Annotated[str | None, typer.Option(metavar="NAME", help="The model's name in URLs. Default: model.")] = None,
    protocol: Annotated[
        str | None,
        typer.Option(
            metavar="WORD",
            help="kserve-v1, kserve-v2, json-list or openai-embeddings (custom needs a file). Default: kserve-v1.",
        ),
    ] = None,
    slo: Annotated[str | None, typer.Option(metavar="DURATION", help="Latency objective. Default: 500ms.")] = None,
    policy: Annotated[str | None, typer.Option(metavar="WORD", help="slo, aimd, static or none. Default: slo.")] = None,
    max_size: Annotated[str | None, typer.Option(metavar="N", help="Instances per batch. Default: 128.")] = None,
    max_linger: Annotated[
        str | None, typer.Option(metavar="DURATION", help="Longest wait for company. Default: what --slo leaves.")
    ] = None,
    max_inflight: Annotated[str | None, typer.Option(metavar="N", help="Backend calls at once. Default: 4.")] = None,
    host: Annotated[
        str | None, typer.Option(metavar="ADDRESS", help="Address of the data port. Default: 0.0.0.0.")
    ] = None,
    port: Annotated[str | None, typer.Option(metavar="N", help="Data port. Default: $PORT or 8080.")] = None,
    workers: Annotated[
        str | None, typer.Option(metavar="N", help="Ingress workers, or auto: by CPUs. Default: auto.")
    ] = None,
    admin_port: Annotated[
        str | None, typer.Option(metavar="N", help="Port of metrics, status and API. Default: 8081.")
    ] = None,
    log_level: Annotated[
        str | None, typer.Option(metavar="WORD", help="debug, info, warning or error. Default: info.")
    ] = None,
    access_log: Annotated[
        bool | None, typer.Option("--access-log/--no-access-log", help="One line per response. Default: off.")
    ] = None,
) -> None:
    """Run the proxy, as a file says or for one model server.

    Without a file, --name to --max-inflight describe the one endpoint.
    """
    flags: dict[str, Any] = {
        "backend": backend or None, "name": name, "protocol": protocol, "slo": slo, "policy": policy,
        "max_size": max_size, "max_linger": max_linger, "max_inflight": max_inflight, "host": host, "port": port,
        "workers": workers, "admin_port": admin_port, "log_level": log_level, "access_log": access_log,
    }  # fmt: skip
    path = config or (Path(os.environ["MLPROXY_CONFIG"]) if os.environ.get("MLPROXY_CONFIG") else None)
    configuration = _load(path, flags)
    _check_workers_beside()
    from workers.supervisor import run

    raise typer.Exit(run(configuration))


@app.command()
def check(file: Annotated[Path, typer.Argument(metavar="FILE", help="YAML file.")]) -> None:
    """Check a configuration file, starting nothing.

    Prints what it configures, or every problem at once and ends with 2. The environment counts, as it does for serve.
    """
    configuration = _load(file, {})
    from mlproxy.cli.summary import print_summary

    print_summary(configuration)


@app.command()
def demo() -> None:
    """See what batching does, in 25 s on this machine."""
    import mlproxy

    source = Path(mlproxy.__file__).parent.parent
    if not (source / "bench" / "demo.py").exists():
        typer.echo("The demo lives beside the source: clone the repository and run `make demo`.", err=True)
        raise typer.Exit(1)
    sys.path.insert(0, str(source))
    from bench.demo import main

    raise typer.Exit(main())


app.command()(simulate)


def _load(path: Path | None, flags: dict[str, Any]) -> Configuration:
    from mlproxy.config.load import load_configuration
    from mlproxy.errors import ConfigurationError

    try:
        return load_configuration(path, os.environ, flags)
    except ConfigurationError as error:
        refuse(error.problems)


def _check_workers_beside() -> None:
    """`workers` is a common name: run only the one that came with this package."""
    import mlproxy
    import workers

    ours = Path(mlproxy.__file__).parent.parent
    if Path(workers.__file__ or "").parent.parent != ours:
        typer.echo(f"the package `workers` was found in {workers.__file__}, not beside mlproxy in {ours}", err=True)
        raise typer.Exit(1)
