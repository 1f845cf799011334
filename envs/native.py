"""libmujoco's C functions inside compiled loops.

numba resolves an `ExternalFunction` by its symbol when a loop is linked. The symbols
are the addresses in the very libmujoco that the `mujoco` package has loaded, so a
compiled loop and Python step the same `mjModel` and `mjData`. Symbols, unlike raw
addresses in closures, let numba keep the compiled loop on disk for the next worker.
"""

from __future__ import annotations

import ctypes
import glob
import os

import llvmlite.binding as llvm
import mujoco
from numba import types

_ptr = types.intp
_SIGNATURES = {
    # name: return type, arguments (mujoco.h 3.3.2); pointers travel as integers
    "mj_step1": types.void(_ptr, _ptr),
    "mj_step2": types.void(_ptr, _ptr),
    "mj_forwardSkip": types.void(_ptr, _ptr, types.int32, types.int32),
    "mj_checkPos": types.void(_ptr, _ptr),
    "mj_checkVel": types.void(_ptr, _ptr),
    "mj_checkAcc": types.void(_ptr, _ptr),
    "mj_Euler": types.void(_ptr, _ptr),
    "mj_jacSite": types.void(_ptr, _ptr, _ptr, _ptr, types.int32),
}


def _library_path() -> str:
    folder = os.path.dirname(mujoco.__file__)
    for pattern in ("libmujoco.so.*", "libmujoco.*.dylib", "mujoco.dll"):
        found = sorted(glob.glob(os.path.join(folder, pattern)))
        if found:
            return found[0]
    raise ImportError(f"libmujoco is not in {folder}; reinstall mujoco=={mujoco.__version__}")


_library = ctypes.CDLL(_library_path())
for _name in _SIGNATURES:
    _address = ctypes.cast(getattr(_library, _name), ctypes.c_void_p).value
    assert _address is not None
    llvm.add_symbol(_name, _address)

mj_step1 = types.ExternalFunction("mj_step1", _SIGNATURES["mj_step1"])
mj_step2 = types.ExternalFunction("mj_step2", _SIGNATURES["mj_step2"])
mj_forwardSkip = types.ExternalFunction("mj_forwardSkip", _SIGNATURES["mj_forwardSkip"])
mj_checkPos = types.ExternalFunction("mj_checkPos", _SIGNATURES["mj_checkPos"])
mj_checkVel = types.ExternalFunction("mj_checkVel", _SIGNATURES["mj_checkVel"])
mj_checkAcc = types.ExternalFunction("mj_checkAcc", _SIGNATURES["mj_checkAcc"])
mj_Euler = types.ExternalFunction("mj_Euler", _SIGNATURES["mj_Euler"])
mj_jacSite = types.ExternalFunction("mj_jacSite", _SIGNATURES["mj_jacSite"])
