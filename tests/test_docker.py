"""The images, as far as they can be checked without Docker: one way to install, in both."""

from __future__ import annotations

import fnmatch
import json
import re
import tomllib
from pathlib import Path

import pytest
from packaging.specifiers import SpecifierSet

ROOT = Path(__file__).resolve().parent.parent
KINDS = ("cpu", "gpu")
SAME = "# --- the same in both (tests/test_docker.py) ---\n"
KNOWN = {"FROM", "ENV", "RUN", "WORKDIR", "COPY", "VOLUME", "ENTRYPOINT", "CMD"}


def text(kind: str) -> str:
    return (ROOT / "docker" / f"{kind}.Dockerfile").read_text()


def instructions(kind: str) -> list[tuple[str, str]]:
    joined = text(kind).replace("\\\n", " ")
    lines = [line for line in joined.splitlines() if line.strip() and not line.startswith("#")]
    return [(name, rest.strip()) for name, _, rest in (line.partition(" ") for line in lines)]


def test_all_but_the_beginning_is_the_same() -> None:
    cpu, gpu = (text(kind).partition(SAME)[2] for kind in KINDS)
    assert cpu
    assert cpu == gpu


@pytest.mark.parametrize("kind", KINDS)
def test_only_known_instructions_and_one_entry(kind: str) -> None:
    names = [name for name, _ in instructions(kind)]
    assert set(names) <= KNOWN
    assert names[0] == "FROM"
    assert (names.count("FROM"), names.count("ENTRYPOINT"), names.count("COPY")) == (1, 1, 1)
    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
    (command,) = (json.loads(rest) for name, rest in instructions(kind) if name == "ENTRYPOINT")
    assert command[0] in scripts


@pytest.mark.parametrize("kind", KINDS)
def test_python_is_one_that_the_project_takes(kind: str) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    (image,) = (rest for name, rest in instructions(kind) if name == "FROM")
    version = re.fullmatch(r"python:(\d+\.\d+)-slim-\w+", image)
    assert version
    assert version[1] in SpecifierSet(project["requires-python"])


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_installed_is_the_makefiles_to_say(kind: str) -> None:
    runs = [rest for name, rest in instructions(kind) if name == "RUN"]
    assert sum(rest.startswith("make install ") for rest in runs) == 1
    assert not any("pip " in rest for rest in runs)
    packages = [m[1].split() for m in re.finditer(r"apt-get install ([^&]*)", " ".join(runs))]
    assert [[p for p in words if p[0] != "-"] for words in packages] == [["make", "git"]]
    makefile = (ROOT / "Makefile").read_text()
    assert re.search(r"^install: ", makefile, re.MULTILINE)
    for name in ("system-packages.txt", "constraints.txt", "requirements/simulators.txt"):
        assert name in makefile
        assert (ROOT / name).is_file()


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_that_is_needed_is_left_out(kind: str) -> None:
    ignored = (ROOT / "docker" / f"{kind}.Dockerfile.dockerignore").read_text().split()
    needed = [
        "pyproject.toml", "Makefile", "constraints.txt", "system-packages.txt", "README.md",
        "LICENSE", "requirements/simulators.txt", "results/reference.mk", "wamsim_cli.py",
        "wamsim/viewer/page/index.html", "envs/bimanual/seeds.json", "policies/__init__.py",
    ]  # fmt: skip
    for name in needed:
        assert (ROOT / name).is_file()
        parents = [name, *map(str, Path(name).parents)]
        assert not any(fnmatch.fnmatch(p, pattern) for p in parents for pattern in ignored), name
    assert ".venv" in ignored  # it would be the host's


def test_the_driver_is_named_in_json() -> None:
    found = re.search(r"printf '(.*?)\\n'", text("gpu"))
    assert found
    assert json.loads(found[1])["ICD"]["library_path"] == "libEGL_nvidia.so.0"
    environment = [rest for name, rest in instructions("gpu") if name == "ENV"]
    assert "NVIDIA_DRIVER_CAPABILITIES=compute,utility,graphics" in environment
