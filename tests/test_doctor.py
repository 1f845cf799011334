"""The doctor's findings on machines that are well, and on ones that are not."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from types import SimpleNamespace

import pytest

from envs import doctor, doctor_probes
from envs.doctor import PINS, SYSTEM_PACKAGES, Setup

ROOT = Path(__file__).resolve().parent.parent


def free(monkeypatch: pytest.MonkeyPatch, n_bytes: int) -> None:
    usage = SimpleNamespace(total=n_bytes, used=0, free=n_bytes)
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: usage)


# ------------------------------------------------------------- constants and sources


def test_pins_are_those_of_the_requirements() -> None:
    lines = (ROOT / "requirements" / "simulators.txt").read_text().splitlines()
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    pins = [re.match(r"([\w-]+)==([\w.]+)", line) for line in [*lines, *project["dependencies"]]]
    assert {pin[1]: pin[2] for pin in pins if pin} == PINS


def test_system_packages_are_those_of_the_file() -> None:
    lines = (ROOT / "system-packages.txt").read_text().splitlines()
    names = [line.partition("#")[0].strip() for line in lines]
    assert tuple(name for name in names if name) == SYSTEM_PACKAGES


def test_defaults_are_those_of_an_evaluation() -> None:
    from envs.evaluation import Resources

    assert Resources().slots == doctor._SLOTS
    assert Resources().workers == Setup().workers


def test_the_doctor_imports_no_simulator() -> None:
    code = (
        "import sys, envs.doctor\n"
        "heavy = ('mujoco', 'robosuite', 'libero', 'torch', 'numba')\n"
        "print([name for name in heavy if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


# -------------------------------------------------------------------------- machines


@pytest.mark.sim
def test_every_check_of_a_machine_that_is_well(tmp_path: Path) -> None:
    found = doctor.checks(Setup(cache_dir=tmp_path / "cache"))
    assert [check.name for check in found] == [
        *PINS, "packages", "OpenGL", "compiled loop", "LIBERO assets", "GPU", "cache folder",
        "shared memory",
    ]  # fmt: skip
    failed = [c for c in found if c.status == "fail" and c.name not in ("GPU", "shared memory")]
    assert failed == []
    by_name = {check.name: check for check in found}
    assert "MUJOCO_GL=egl" in by_name["OpenGL"].found
    assert "env steps a second" in by_name["compiled loop"].found
    assert all(check.advice for check in found if check.status != "ok")


@pytest.mark.sim
def test_a_backend_that_fails_names_one_that_works(monkeypatch: pytest.MonkeyPatch) -> None:
    if doctor.opengl().status == "fail":
        pytest.skip("no OpenGL here at all")
    monkeypatch.setenv("MUJOCO_GL", "vulkan")
    check = doctor.opengl()
    assert check.status == "fail"
    assert check.found == (
        "MUJOCO_GL=vulkan: RuntimeError: invalid value for environment variable MUJOCO_GL: vulkan"
    )
    assert re.match(r"MUJOCO_GL=(egl|osmesa) works here \(.+\): set it\.", check.advice)


def answers(monkeypatch: pytest.MonkeyPatch, found: object) -> None:
    monkeypatch.setattr(doctor, "ask", lambda *args, **kwargs: found)


def test_no_backend_works(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MUJOCO_GL", raising=False)
    answers(monkeypatch, "crashed with signal 11")
    check = doctor.opengl()
    assert (check.status, check.found) == ("fail", "MUJOCO_GL is not set: crashed with signal 11")
    assert "`apt-get install libegl1 libgl1-mesa-dri libgles2`" in check.advice


def test_software_is_fine_unless_there_is_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MUJOCO_GL", "egl")
    drawn = {"vendor": "Mesa", "renderer": "llvmpipe (LLVM 15)", "version": "4.5", "drew": True}
    answers(monkeypatch, drawn)
    monkeypatch.setattr(doctor, "_nvidia", lambda: False)
    assert doctor.opengl().status == "ok"
    assert doctor.opengl().found == "software: Mesa, llvmpipe (LLVM 15) (MUJOCO_GL=egl)"
    monkeypatch.setattr(doctor, "_nvidia", lambda: True)
    assert doctor.opengl().status == "warn"
    assert "NVIDIA_DRIVER_CAPABILITIES" in doctor.opengl().advice
    answers(monkeypatch, {**drawn, "vendor": "NVIDIA", "renderer": "H200"})
    assert doctor.opengl().status == "ok"
    assert doctor.opengl().found == "NVIDIA, H200 (MUJOCO_GL=egl)"


def test_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    none = {"names": [], "torch": "2.13.0+cpu", "cuda": None}
    answers(monkeypatch, {**none, "names": ["A", "B"]})
    assert (doctor.gpu().status, doctor.gpu().found) == ("ok", "A; B")
    answers(monkeypatch, none)
    monkeypatch.setattr(doctor, "_nvidia", lambda: False)
    assert doctor.gpu().status == "ok"
    monkeypatch.setattr(doctor, "_nvidia", lambda: True)
    assert (doctor.gpu().status, "CUDA build" in doctor.gpu().advice) == ("warn", True)


def test_another_version_than_the_pinned_one_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    have = {**PINS, "mujoco": "3.8.1", "bddl": None}
    monkeypatch.setattr(doctor, "_version", lambda name: have.get(name, "99"))
    found = {check.name: check for check in doctor.versions()}
    assert (found["robosuite"].status, found["robosuite"].found) == ("ok", "1.4.0")
    assert found["mujoco"].status == "fail"
    assert found["mujoco"].found.startswith("3.8.1, expected 3.3.2: later versions change LIBERO's")
    assert found["mujoco"].advice == "`pip install mujoco==3.3.2`"
    assert found["bddl"].found.startswith("not installed, expected 1.0.1")
    assert found["bddl"].advice == "`pip install --no-deps bddl==1.0.1`"


def test_packages_that_are_too_old_or_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    needs = ["numpy>=2.0", "torch>=2.6", "mujoco==3.3.2", 'pytest>=8; extra == "dev"', "av>=14"]
    monkeypatch.setattr(doctor.metadata, "requires", lambda name: needs)
    have = {"numpy": "1.26.4", "torch": "2.13.0+cpu"}
    monkeypatch.setattr(doctor, "_version", have.get)
    check = doctor.packages()
    assert check.status == "fail"
    assert check.found == "numpy 1.26.4, expected >=2.0; av missing, expected >=14"
    have.update(numpy="2.4.6", av="18.1.0")
    assert doctor.packages().found == "numpy 2.4.6, torch 2.13.0+cpu"


# --------------------------------------------------------------------------- folders


def test_libero_without_its_assets(tmp_path: Path) -> None:
    check = doctor.libero(tmp_path)
    assert (check.status, check.found) == ("fail", f"not in {tmp_path}")
    assert "hf download lerobot/libero-assets" in check.advice
    assert "WAMSIM_LIBERO_ASSETS=DIR" in check.advice
    for name in ("articulated_objects", "stable_scanned_objects", "turbosquid_objects",
                 "stable_hope_objects"):  # fmt: skip
        (tmp_path / name).mkdir()
    check = doctor.libero(tmp_path)
    assert check.status == "fail"
    assert re.search(r"for 130 tasks; \d+ missing: ", check.found)


@pytest.mark.libero
def test_libero_with_its_assets(libero_assets: Path) -> None:
    check = doctor.libero(libero_assets)
    assert check.status in ("ok", "warn")
    assert ("stand-ins" in check.found) == (check.status == "warn")


def test_a_cache_that_cannot_be_written_or_is_nearly_full(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert doctor.cache(tmp_path / "new" / "folder").status in ("ok", "warn")
    assert list((tmp_path / "new" / "folder").iterdir()) == []
    (tmp_path / "file").write_text("")
    check = doctor.cache(tmp_path / "file" / "cache")
    assert (check.status, "WAMSIM_CACHE" in check.advice) == ("fail", True)
    free(monkeypatch, 2 << 30)
    assert doctor.cache(tmp_path).status == "warn"
    assert "up to 8 GiB" in doctor.cache(tmp_path).advice
    free(monkeypatch, 100 << 20)
    assert doctor.cache(tmp_path).status == "fail"


def test_shared_memory_for_all_workers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # A slot: 1 + 16 looks at two pictures of 256 * 256 * 3 = 6.375 MiB; two slots a worker.
    free(monkeypatch, 64 << 20)  # Docker's default
    assert doctor.shared_memory(5, tmp_path).status == "ok"  # 63.75 MiB
    check = doctor.shared_memory(6, tmp_path)
    assert (check.status, check.found) == ("warn", "64 MiB free; 6 workers need up to 76 MiB")
    assert check.advice == "In Docker run with `--shm-size=1g`, or use `--workers 5`."
    free(monkeypatch, 1 << 20)
    assert doctor.shared_memory(6, tmp_path).status == "fail"
    assert doctor.shared_memory(6, tmp_path / "nothing").status == "ok"


# -------------------------------------------------------------------------- children


def test_a_probe_that_hangs_crashes_or_prints(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def python(script: str) -> None:
        path = tmp_path / "python"
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)
        monkeypatch.setattr(doctor_probes.sys, "executable", str(path))

    python("exec sleep 60")
    assert doctor_probes.ask("gpu", 0.3) == "no answer within 0.3 s"
    python("kill -SEGV $$")
    assert doctor_probes.ask("gpu", 10) == "crashed with signal 11"
    python("exit 3")
    assert doctor_probes.ask("gpu", 10) == "ended with exit code 3"
    python("""echo 'hello'; echo '{"a": 1}'""")
    assert doctor_probes.ask("gpu", 10) == {"a": 1}
    trace = r"Traceback:\n  File x\nOSError: no GL\nException ignored in: <y>\nZ: 1\n"
    python(f"printf '{trace}' >&2; exit 1")
    assert doctor_probes.ask("gpu", 10) == "OSError: no GL"
    python('printf \'{"env": "%s"}\\n\' "$MUJOCO_GL"')
    assert doctor_probes.ask("gpu", 10, env={"MUJOCO_GL": "disabled"}) == {"env": "disabled"}
    assert os.environ.get("MUJOCO_GL") != "disabled"


def test_a_folder_where_the_loop_cannot_be_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    answers(monkeypatch, "RuntimeError: cannot cache function 'f': no locator available for file")
    check = doctor.stepping(Path("anywhere"))
    assert (check.status, "NUMBA_CACHE_DIR" in check.advice) == ("fail", True)
    answers(monkeypatch, {"first_s": 21.4, "steps_per_s": 350.2, "compiled": True,
                          "cache": "/c", "finite": True})  # fmt: skip
    assert doctor.stepping(Path("x")).found == (
        "compiled in 21 s and kept in /c, 350 env steps a second"
    )
