"""The Containerfile and what its build may see."""

from __future__ import annotations

import json
import re
import subprocess
from fnmatch import fnmatch
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]


def instructions() -> list[tuple[str, str]]:
    """Every instruction with its arguments, continuation lines joined, comments left out."""
    lines = [line for line in (ROOT / "Containerfile").read_text().splitlines() if not line.lstrip().startswith("#")]
    joined = "\n".join(lines).replace("\\\n", " ")
    return [(word, rest.strip()) for word, _, rest in (line.partition(" ") for line in joined.splitlines() if line)]


def final_stage() -> dict[str, str]:
    """The last stage's instructions; of one that stands several times the last."""
    given = instructions()
    start = max(index for index, (word, _) in enumerate(given) if word == "FROM")
    return dict(given[start:])


def copied() -> list[str]:
    """What is copied from the source tree."""
    sources = [rest.split()[:-1] for word, rest in instructions() if word == "COPY" and "--from=" not in rest]
    return [source.removeprefix("./") for group in sources for source in group]


def ignored(path: str) -> bool:
    """Whether .dockerignore hides the path: the last pattern that matches it, or a folder above it, decides."""
    hidden = False
    for line in (ROOT / ".dockerignore").read_text().splitlines():
        pattern = line.removeprefix("!").removeprefix("**/")
        parts = path.split("/")
        candidates = ["/".join(parts[: end + 1]) for end in range(len(parts))] + parts * line.startswith("**/")
        if line and not line.startswith("#") and any(fnmatch(candidate, pattern) for candidate in candidates):
            hidden = not line.startswith("!")
    return hidden


def test_two_stages_stand_on_the_same_base_which_is_an_argument() -> None:
    given = instructions()
    assert given[0] == ("ARG", "BASE=docker.io/library/python:3.12-slim")
    assert [rest for word, rest in given if word == "FROM"] == ["${BASE} AS builder", "${BASE}"]


def test_it_runs_as_a_numeric_user_that_is_not_root() -> None:
    user = re.fullmatch(r"(\d+):(\d+)", final_stage()["USER"])
    assert user is not None
    assert int(user[1]) > 0
    assert int(user[2]) > 0


def test_nothing_runs_or_is_copied_after_privileges_are_dropped() -> None:
    words = [word for word, _ in instructions()]
    assert not {"RUN", "COPY", "USER"} & set(words[words.index("USER") + 1 :])


def test_it_starts_the_proxy_directly_as_process_one() -> None:
    stage = final_stage()
    assert json.loads(stage["ENTRYPOINT"]) == ["mlproxy"]
    assert json.loads(stage["CMD"]) == ["serve"]
    assert stage["STOPSIGNAL"] == "SIGTERM"


def test_it_exposes_the_default_data_port_and_does_not_set_the_platforms_variables() -> None:
    assert final_stage()["EXPOSE"] == "8080"
    variables = [name for word, rest in instructions() if word == "ENV" for name in re.findall(r"(\w+)=", rest)]
    assert not {"PORT", "K_SERVICE", "K_REVISION", "K_CONFIGURATION"} & set(variables)


def test_nothing_is_fetched_except_by_package_managers() -> None:
    words = {word for word, _ in instructions()}
    text = (ROOT / "Containerfile").read_text()
    assert "ADD" not in words
    assert not re.search(r"\b(curl|wget)\b|https?://", text)


@pytest.mark.parametrize("source", copied())
def test_what_is_copied_exists_and_the_build_may_see_it(source: str) -> None:
    assert (ROOT / source).exists()
    assert not ignored(source)


def test_the_build_sees_both_packages_whole() -> None:
    assert {"mlproxy", "workers"} <= set(copied())
    for package in ("mlproxy", "workers"):
        assert not [path for path in (ROOT / package).rglob("*.py") if ignored(path.relative_to(ROOT).as_posix())]


@pytest.mark.parametrize("path", [".git/config", ".venv/bin/python", "tests/unit/x.py", "mlproxy/__pycache__/x.pyc"])
def test_the_build_does_not_see_the_rest(path: str) -> None:
    assert ignored(path)


def test_secrets_are_mounted_and_never_copied() -> None:
    run = next(rest for word, rest in instructions() if word == "RUN" and "pip install" in rest)
    assert "--mount=type=secret,id=pip.conf" in run
    assert "PIP_CONFIG_FILE" not in [rest.partition("=")[0] for word, rest in instructions() if word in ("ARG", "ENV")]


def test_the_image_script_is_an_executable_posix_shell_script() -> None:
    script = ROOT / "deploy" / "image.sh"
    assert script.stat().st_mode & 0o111
    assert script.read_text().startswith("#!/bin/sh\n")
    subprocess.run(["sh", "-n", str(script)], check=True, timeout=10)


def test_without_a_working_engine_the_script_says_what_is_missing_and_what_to_install(tmp_path: Path) -> None:
    """A docker client whose engine does not answer is passed over with a sentence."""
    for name in ("dirname", "sed", "tail"):
        (tmp_path / name).symlink_to(_which(name))
    (tmp_path / "docker").write_text("#!/bin/sh\necho 'Cannot connect to the engine' >&2\nexit 1\n")
    (tmp_path / "docker").chmod(0o755)
    finished = subprocess.run(
        [_which("sh"), str(ROOT / "deploy" / "image.sh")], env={"PATH": str(tmp_path)}, capture_output=True, text=True,
        timeout=20, check=False,
    )  # fmt: skip
    assert finished.returncode == 1
    assert "skipping docker, which is installed but does not work: Cannot connect to the engine" in finished.stderr
    assert "no working podman, buildah or docker here" in finished.stderr


def test_a_broken_storage_does_not_hide_the_engine_that_works(tmp_path: Path) -> None:
    """buildah fails, docker works: docker builds, with name and base from the environment."""
    for name in ("dirname", "sed", "tail"):
        (tmp_path / name).symlink_to(_which(name))
    log = tmp_path / "log"
    (tmp_path / "buildah").write_text("#!/bin/sh\necho 'no storage' >&2\nexit 125\n")
    (tmp_path / "docker").write_text(f'#!/bin/sh\necho "$*" >> {log}\n')
    for name in ("buildah", "docker"):
        (tmp_path / name).chmod(0o755)
    subprocess.run(
        [_which("sh"), str(ROOT / "deploy" / "image.sh")], capture_output=True, timeout=20, check=True,
        env={"PATH": str(tmp_path), "IMAGE": "example/proxy:1", "BASE": "example/base"},
    )  # fmt: skip
    build = log.read_text().splitlines()[-1]
    assert build == "build --file Containerfile --tag example/proxy:1 --build-arg BASE=example/base ."


@pytest.mark.parametrize("engine", ["podman", "buildah", "docker"])
def test_a_base_that_cannot_be_fetched_is_told_with_what_to_do(tmp_path: Path, engine: str) -> None:
    for name in ("dirname", "sed", "tail"):
        (tmp_path / name).symlink_to(_which(name))
    script = (
        "#!/bin/sh\n"
        'case "$1 $2" in\n'
        "    'image inspect' | 'inspect --type') exit 1 ;;\n"
        "    pull*) echo 'trying'; echo 'a stack of words' >&2; echo 'no such host' >&2; exit 125 ;;\n"
        "    build*) echo built >&2 ;;\n"
        "esac\n"
    )
    (tmp_path / engine).write_text(script)
    (tmp_path / engine).chmod(0o755)
    finished = subprocess.run(
        [_which("sh"), str(ROOT / "deploy" / "image.sh")], capture_output=True, text=True, timeout=20, check=False,
        env={"PATH": str(tmp_path), "BASE": "registry.invalid/base"},
    )  # fmt: skip
    assert finished.returncode == 1
    fetching, cannot, name_another, load_one = finished.stderr.splitlines()
    assert "fetching the base image registry.invalid/base" in fetching
    assert "registry.invalid/base cannot be fetched: no such host" in cannot
    assert "BASE=registry.example.com/python:3.12-slim make image" in name_another
    assert engine in load_one


def _which(name: str) -> str:
    return subprocess.run(["sh", "-c", f"command -v {name}"], capture_output=True, text=True, check=True).stdout.strip()
