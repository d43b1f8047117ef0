"""The programs that the benchmarks need beside Python: wrk, nginx, a C compiler. **Effects**: may install packages."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

from bench.processes import PROJECT

BUILD = PROJECT / "bench" / ".build"
#: Debian's package of each program.
_PACKAGES = {"wrk": "wrk", "nginx": "nginx-light", "cc": "gcc"}


class ToolMissing(RuntimeError):
    """A program is not there and cannot be installed; the message says what to type."""


def provide(*programs: str) -> None:
    """Make sure that all ``programs`` are there: as root from Debian's packages, else `ToolMissing`."""
    missing = [program for program in programs if find(program) is None]
    if not missing:
        return
    packages = [_PACKAGES[program] for program in missing]
    command = ["apt-get", "install", "-y", "-qq", "--no-install-recommends", *packages]
    if os.geteuid() != 0 or shutil.which("apt-get") is None:
        raise ToolMissing(f"{', '.join(missing)} missing. On Debian or Ubuntu: sudo {' '.join(command[:3] + packages)}")
    print(f"installing {', '.join(packages)}")
    environment = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
    # Debian starts a service that it installs; this benchmark starts its own nginx, on a port of its own.
    policy = Path("/usr/sbin/policy-rc.d")
    forbid = not policy.exists()
    try:
        if forbid:
            policy.write_text("#!/bin/sh\nexit 101\n")
            policy.chmod(0o755)
        subprocess.run(["apt-get", "update", "-qq"], check=True, env=environment, stdout=subprocess.DEVNULL)
        subprocess.run(command, check=True, env=environment, stdout=subprocess.DEVNULL)
    except subprocess.CalledProcessError as error:
        raise ToolMissing(f"{' '.join(error.cmd)} failed; install {', '.join(packages)} by hand") from error
    finally:
        if forbid:
            policy.unlink(missing_ok=True)


def find(program: str) -> str | None:
    """Its path. Debian puts nginx where only root's search path looks."""
    return shutil.which(program) or shutil.which(program, path="/usr/sbin:/usr/local/sbin")


def version(program: str) -> str:
    """What it says of itself."""
    flag = "-v" if program in ("nginx", "wrk") else "--version"
    said = subprocess.run([find(program) or program, flag], capture_output=True, text=True, check=False)
    return ((said.stdout + said.stderr).splitlines() or ["?"])[0].removeprefix("nginx version: ").strip()


def stub_backend() -> Path:
    """The C stub backend, compiled unless it is newer than its source."""
    source, program = PROJECT / "bench" / "stub" / "stub_backend.c", BUILD / "stub_backend"
    if not program.exists() or program.stat().st_mtime < source.stat().st_mtime:
        BUILD.mkdir(exist_ok=True)
        subprocess.run([find("cc") or "cc", "-O2", "-Wall", "-o", str(program), str(source)], check=True)
    return program
