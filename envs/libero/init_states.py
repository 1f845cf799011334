"""LIBERO's initial states, read without torch.

``<task>.pruned_init`` is a torch zip file whose ``data.pkl`` holds one pickled float64
array [50, 1 + nq + nv]: time, qpos, qvel. Only the few names that such an array needs
are allowed to unpickle.
"""

from __future__ import annotations

import pickle
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wamsim.errors import AssetsMissing

Array = NDArray[np.float64]

_ALLOWED = {
    ("numpy.core.multiarray", "_reconstruct"),
    ("numpy._core.multiarray", "_reconstruct"),
    ("numpy", "ndarray"),
    ("numpy", "dtype"),
    ("_codecs", "encode"),
}


class _ArrayUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _ALLOWED:
            raise pickle.UnpicklingError(f"{module}.{name} is not part of a NumPy array")
        # numpy.core is the old name of numpy._core; asking for it by that name warns.
        return super().find_class(module.replace("numpy.core", "numpy._core"), name)


def read(path: Path) -> Array:
    """Read a ``.pruned_init`` file.

    Returns:
        float64 [N, 1 + nq + nv].

    Raises:
        AssetsMissing: No such file, or not a file of initial states.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            member = next(n for n in archive.namelist() if n.endswith("data.pkl"))
            with archive.open(member) as file:
                states = _ArrayUnpickler(file).load()
    except (OSError, StopIteration, zipfile.BadZipFile, pickle.UnpicklingError) as error:
        raise AssetsMissing(
            f"cannot read LIBERO's initial states ({error}). Reinstall hf-libero with "
            f"`pip install --no-deps --force-reinstall hf-libero=={_VERSION}`: {path}"
        ) from error
    if not isinstance(states, np.ndarray) or states.ndim != 2 or states.dtype != np.float64:
        raise AssetsMissing(f"expected float64 [N, 1 + nq + nv] in {path}")
    return states


_VERSION = "0.1.4"  # requirements/simulators.txt
