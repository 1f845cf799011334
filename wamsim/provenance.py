"""What a number came from: code, versions and machine, and hashes over plain data.

`collect` describes the present process; a run folder keeps the description and every
episode record carries its hash, so that two machines in one run stay tellable apart.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import platform
import subprocess
import sys
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any, cast

import numpy as np

# Distribution names, as on the package index; these decide physics, pixels and rounding.
PACKAGES = ("numpy", "mujoco", "robosuite", "hf-libero", "torch", "gymnasium", "numba")

# Variables that choose the renderer, the GPU or the order of sums.
ENVIRONMENT = ("MUJOCO_GL", "MUJOCO_EGL_DEVICE_ID", "CUDA_VISIBLE_DEVICES", "OMP_NUM_THREADS")

# 128 bits: no two of any conceivable number of configurations collide (birthday bound 2**64).
HASH_BYTES = 16

# A hung network file system must not hang a run; a healthy checkout answers in milliseconds.
GIT_TIMEOUT_S = 10.0


_VECTORS = ("avx512f", "avx2", "avx")  # flags of /proc/cpuinfo, widest first
_HASHED_WHOLE = 1 << 20  # so that 6 B parameters take a second, not a minute


def plain(value: object, where: str = "value") -> Any:
    """Bring data into the form that JSON gives back, so that equality survives a file.

    NumPy scalars and arrays become numbers and lists, tuples become lists. Floats keep
    every bit: Python writes the shortest text that reads back to the same double.

    Args:
        value: None, bool, int, float, str, NumPy values, and mappings with text keys
            or sequences of these.
        where: Name of the value, for error texts.

    Raises:
        ValueError: A float is NaN or infinite; JSON has no word for it, and no data is None.
        TypeError: Something that JSON cannot hold.
    """
    if type(value) is float and math.isfinite(value):  # nearly all that a record holds
        return value
    if isinstance(value, np.generic | np.ndarray):
        value = cast(object, value.tolist())  # for float32 the exact double
    if value is None or isinstance(value, bool | str):
        return value
    if isinstance(value, int):
        return int(value)
    if isinstance(value, float):
        if not math.isfinite(value):
            raise ValueError(f"{where} is {value}, which JSON cannot hold. Write None for no data.")
        return float(value)
    if isinstance(value, Mapping):
        return _plain_mapping(cast(Mapping[object, object], value), where)
    if isinstance(value, Sequence) and not isinstance(value, bytes | bytearray):
        items = cast(Sequence[object], value)
        return [plain(item, f"{where}[{i}]") for i, item in enumerate(items)]
    raise TypeError(
        f"{where} is a {type(value).__name__}, expected what JSON holds (None, bool, int, float, "
        f"str, list, mapping). Convert it first, e.g. str(path)."
    )


def _plain_mapping(value: Mapping[object, object], where: str) -> dict[str, Any]:
    out: dict[str, Any] = {}
    for key, item in value.items():
        if not isinstance(key, str):
            raise TypeError(
                f"{where} has the key {key!r}, expected text. JSON would change it silently; "
                f"write str(...) yourself."
            )
        out[key] = plain(item, f"{where}.{key}")
    return out


def canonical_json(value: object) -> str:
    """Write data as JSON with sorted keys and no spaces: equal data, equal text."""
    return json.dumps(plain(value), sort_keys=True, separators=(",", ":"), allow_nan=False)


def content_hash(value: object) -> str:
    """Hash plain data: BLAKE2b over its canonical JSON, as 32 hexadecimal digits."""
    return hashlib.blake2b(canonical_json(value).encode(), digest_size=HASH_BYTES).hexdigest()


def provenance_hash(provenance: Mapping[str, object]) -> str:
    """Hash what `collect` gave."""
    return content_hash(provenance)


def version(distribution: str) -> str | None:
    """Give an installed distribution's version without importing it; None when missing."""
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None


def wamsim_version() -> str:
    """Give wamsim's version; "unknown" when it runs from a folder that was never installed."""
    return version("wamsim") or "unknown"


def _git(folder: Path, *arguments: str) -> str | None:
    command = ["git", "-C", str(folder), *arguments]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=GIT_TIMEOUT_S, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def git_state(folder: Path) -> dict[str, Any]:
    """Describe the checkout whose top is ``folder``.

    Returns:
        ``commit`` (40 hexadecimal digits) and ``dirty`` (True when a file differs from
        it or is new). Both None when ``folder`` is not itself the top of a checkout: an
        installed package inside somebody else's repository must not claim its commit.
        ``commit`` alone is None before the first commit.
    """
    top = _git(folder, "rev-parse", "--show-toplevel")
    if not top or Path(top).resolve() != folder.resolve():
        return {"commit": None, "dirty": None}
    status = _git(folder, "status", "--porcelain")
    return {
        "commit": _git(folder, "rev-parse", "--verify", "HEAD"),
        "dirty": None if status is None else bool(status),
    }


def _cpu() -> dict[str, Any]:
    """Name the processor; unknown is None.

    One name is sold with different cores ("AMD EPYC"), and libraries choose other kernels for
    them, which round otherwise. So family and model are named, too, and the widest vectors.
    """
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        text = ""
    first = text.partition("\n\n")[0]
    said = {k.strip(): v.strip() for k, _, v in (x.partition(":") for x in first.splitlines())}
    flags = said.get("flags", "").split()
    kind = [said.get(name) for name in ("vendor_id", "cpu family", "model")]
    return {
        "model": said.get("model name") or platform.processor() or None,
        "kind": None if None in kind else "{} family {} model {}".format(*kind),
        "vectors": next((name for name in _VECTORS if name in flags), None),
    }


def _usable_cores() -> int | None:
    # Containers and batch systems often give fewer cores than the machine has.
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()


def _gpus() -> dict[str, Any]:
    """Name the GPUs that torch sees, if the caller has imported torch; never import it here.

    Importing takes seconds and gigabytes, and a run without a network does not need it.
    """
    torch: Any = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_available():
        return {"names": None, "cuda": None}
    names = [str(torch.cuda.get_device_name(i)) for i in range(torch.cuda.device_count())]
    return {"names": names, "cuda": torch.version.cuda}


def collect(extra: Mapping[str, object] | None = None) -> dict[str, Any]:
    """Describe the code, the versions and the machine of this process.

    Nothing in it changes from call to call in one environment (no time, no process id, no
    host name), so that a resumed run on the same machine adds no second description.

    Args:
        extra: What only the caller knows, kept under ``"extra"``: OpenGL strings, checkpoint
            hash. Plain data (see `plain`).

    Returns:
        Plain data: ``wamsim``, ``git``, ``python``, ``packages``, ``platform``, ``cpu``
        (model, kind, vectors, cores, usable_cores), ``gpu``, ``environment`` and ``extra``. What is
        unknown is None.
    """
    return {
        "wamsim": wamsim_version(),
        "git": git_state(Path(__file__).resolve().parents[1]),
        "python": platform.python_version(),
        "packages": {name: version(name) for name in PACKAGES},
        "platform": platform.platform(),
        "cpu": {
            **_cpu(),
            "cores": os.cpu_count(),
            "usable_cores": _usable_cores(),
        },
        "gpu": _gpus(),
        # Read for the record only; nothing below the CLI is configured by the environment.
        "environment": {name: os.environ.get(name) for name in ENVIRONMENT},
        "extra": plain(extra or {}, "extra"),
    }


def weights_hash(policy: Any) -> str | None:
    """Hash the weights that a policy or world model acts with.

    Args:
        policy: Its ``model`` is a torch module, or it has none.

    Returns:
        BLAKE2b over names, shapes and bytes of all tensors, in the precision in use; of
        tensors beyond `_HASHED_WHOLE` numbers a fixed sample stands for the whole. None
        without weights.
    """
    import torch

    model = getattr(policy, "model", None)
    if not isinstance(model, torch.nn.Module):
        return None
    digest = hashlib.blake2b(digest_size=16)
    for name, tensor in sorted(model.state_dict().items()):
        flat = tensor.detach().reshape(-1)
        if len(flat) > _HASHED_WHOLE:
            flat = flat[:: len(flat) // _HASHED_WHOLE + 1]
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
        digest.update(flat.cpu().contiguous().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
