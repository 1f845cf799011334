"""Provenance: hashes over plain data, and a description that imports nothing heavy."""

from __future__ import annotations

import json
import subprocess
import sys
import types
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wamsim import provenance
from wamsim.provenance import canonical_json, collect, content_hash, git_state, plain

JSON_VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=12,
)


@settings(deadline=None)  # a loaded machine is no failure
@given(JSON_VALUES)
def test_plain_data_survives_a_file_bit_for_bit(value: object) -> None:
    again = json.loads(canonical_json(value))
    assert again == plain(value)
    assert canonical_json(again) == canonical_json(value)


def test_plain_brings_numpy_and_tuples_into_json_types() -> None:
    value = {"a": (np.float32(0.1), np.int64(3)), "b": np.arange(2), "c": np.bool_(True)}
    # float32(0.1) is the double 0.10000000149011612.
    assert plain(value) == {"a": [0.10000000149011612, 3], "b": [0, 1], "c": True}
    assert type(plain(np.bool_(True))) is bool


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), np.float32("nan")])
def test_plain_refuses_what_json_has_no_word_for(bad: float) -> None:
    with pytest.raises(ValueError, match=r"options\.rate\[0\] is .*None for no data"):
        plain({"rate": [bad]}, "options")


@pytest.mark.parametrize("bad", [{1: "x"}, Path("x"), b"x", {1, 2}, object()])
def test_plain_refuses_other_types(bad: object) -> None:
    with pytest.raises(TypeError, match=r"expected"):
        plain(bad)


def test_the_hash_ignores_order_and_sees_every_value() -> None:
    one = content_hash({"a": 1, "b": {"c": [1, 2], "d": 0.1}})
    assert one == content_hash({"b": {"d": 0.1, "c": (1, 2)}, "a": 1})
    assert len(one) == 32
    others = [
        {"a": 1, "b": {"c": [2, 1], "d": 0.1}},
        {"a": 1, "b": {"c": [1, 2], "d": 0.1 + 2**-56}},
        {"a": "1", "b": {"c": [1, 2], "d": 0.1}},
        {"a": True, "b": {"c": [1, 2], "d": 0.1}},
    ]
    assert len({one, *map(content_hash, others)}) == 5


def test_the_hash_is_stable_across_versions() -> None:
    # printf '%s' '{"a":[1,2.5,null]}' | b2sum -l 128; another value would orphan every run folder.
    assert content_hash({"a": [1, 2.5, None]}) == "d054837c1561ff17ec7caadb87a6610d"


def test_collect_is_plain_and_the_same_each_time() -> None:
    first = collect(extra={"gl": "software", "checkpoint": None})
    assert first == plain(first)
    assert first == collect(extra={"checkpoint": None, "gl": "software"})
    assert provenance.provenance_hash(first) != provenance.provenance_hash(collect())
    assert first["packages"]["numpy"] == np.__version__
    assert set(first["packages"]) == set(provenance.PACKAGES)
    assert first["cpu"]["cores"] >= first["cpu"]["usable_cores"] >= 1
    assert first["extra"] == {"gl": "software", "checkpoint": None}


def test_processors_of_one_name_are_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    text = """processor\t: 0
vendor_id\t: AuthenticAMD
cpu family\t: 23
model\t\t: 1
model name\t: AMD EPYC
flags\t\t: sse4_2 avx avx2

processor\t: 1
model name\t: another
"""
    monkeypatch.setattr(Path, "read_text", lambda self, **_: text)
    assert provenance._cpu() == {
        "model": "AMD EPYC", "kind": "AuthenticAMD family 23 model 1", "vectors": "avx2",
    }  # fmt: skip
    text = "processor\t: 0\nBogoMIPS\t: 50\n"  # as on ARM
    found = provenance._cpu()
    assert (found["kind"], found["vectors"]) == (None, None)


def test_what_is_not_installed_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(provenance, "PACKAGES", ("numpy", "no-such-distribution"))
    assert collect()["packages"] == {"numpy": np.__version__, "no-such-distribution": None}


def test_the_environment_that_matters_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MUJOCO_GL", "egl")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    environment = collect()["environment"]
    assert (environment["MUJOCO_GL"], environment["CUDA_VISIBLE_DEVICES"]) == ("egl", None)


def test_collect_imports_neither_torch_nor_a_simulator() -> None:
    code = (
        "import sys; from wamsim.provenance import collect; d = collect()\n"
        "assert not {'torch', 'mujoco'} & set(sys.modules), sys.modules.keys()\n"
        "assert d['gpu'] == {'names': None, 'cuda': None}"
    )
    root = Path(__file__).resolve().parents[1]
    subprocess.run([sys.executable, "-c", code], check=True, cwd=root)


def test_gpus_are_named_when_the_caller_has_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    torch = types.ModuleType("torch")
    cuda = types.SimpleNamespace(
        is_available=lambda: True, device_count=lambda: 2, get_device_name=lambda i: f"GPU {i}"
    )
    monkeypatch.setattr(torch, "cuda", cuda, raising=False)
    monkeypatch.setattr(torch, "version", types.SimpleNamespace(cuda="12.8"), raising=False)
    monkeypatch.setitem(sys.modules, "torch", torch)
    assert collect()["gpu"] == {"names": ["GPU 0", "GPU 1"], "cuda": "12.8"}


def _git(folder: Path, *arguments: str) -> str:
    command = ["git", "-C", str(folder), "-c", "user.name=n", "-c", "user.email=e", *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def test_git_state_tells_commit_and_changes(tmp_path: Path) -> None:
    assert git_state(tmp_path) == {"commit": None, "dirty": None}
    _git(tmp_path, "init")
    assert git_state(tmp_path) == {"commit": None, "dirty": False}
    (tmp_path / "package").mkdir()
    (tmp_path / "package" / "a.py").write_text("1")
    assert git_state(tmp_path) == {"commit": None, "dirty": True}
    _git(tmp_path, "add", ".")
    _git(tmp_path, "commit", "-m", "one")
    commit = _git(tmp_path, "rev-parse", "HEAD")
    assert len(commit) == 40
    assert git_state(tmp_path) == {"commit": commit, "dirty": False}
    (tmp_path / "package" / "a.py").write_text("2")
    assert git_state(tmp_path) == {"commit": commit, "dirty": True}
    # Installed inside somebody else's repository: their commit is not ours.
    assert git_state(tmp_path / "package") == {"commit": None, "dirty": None}


def test_without_git_nothing_is_claimed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert git_state(tmp_path) == {"commit": None, "dirty": None}


def test_weights_are_told_apart_by_a_single_bit() -> None:
    import torch

    class Holder:
        def __init__(self) -> None:
            self.model = torch.nn.Linear(3, 2, dtype=torch.bfloat16)

    holder = Holder()
    with torch.no_grad():
        holder.model.weight.fill_(1.0)
        holder.model.bias.fill_(0.0)
    before = provenance.weights_hash(holder)
    assert before == provenance.weights_hash(holder)
    with torch.no_grad():
        holder.model.bias[1] = 1.0
    assert provenance.weights_hash(holder) != before
    assert provenance.weights_hash(object()) is None
