"""Compiled scenes on disk: built once, loaded ever after.

    <cache_dir>/<scene>-<digest of the key>.json    names (SceneInfo) and the model's hash
    <cache_dir>/models/<sha256>.mjb                 the model; scenes with equal models share it

The model is written first and the JSON last, each under a temporary name and renamed,
so whatever can be read is whole. A damaged entry fails its hash and is built again.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import os
import re
import time
import types
import typing
import uuid
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import mujoco

from envs.scene import Scene, SceneInfo
from wamsim.errors import OutOfSpace

try:
    import fcntl
except ImportError:  # not a POSIX system: two processes may build the same scene twice
    fcntl = None

FORMAT = 1  # of the JSON file; part of every key
_ABANDONED_S = 24 * 3600.0  # no scene takes a day to write


def load_or_build(cache_dir: Path, key: Mapping[str, Any], build: Callable[[], Scene]) -> Scene:
    """Load a scene, or build and keep it.

    One process builds while others that want the same scene wait for it; a process that
    dies gives its lock back. Loaded and freshly built scenes are equal.

    Args:
        cache_dir: Made when missing.
        key: Everything that the scene depends on, as JSON values. "scene", if there, is
            shown in the file's name.
        build: Makes the scene when the cache has none.
    """
    cache_dir.mkdir(parents=True, exist_ok=True)
    entry = cache_dir / f"{_file_stem(key)}.json"
    scene = _load(entry)
    if scene is not None:
        return scene
    with _lock(entry.with_suffix(".lock")):
        scene = _load(entry)  # another process may have built it meanwhile
        if scene is not None:
            return scene
        built = build()
        _save(entry, key, built)
        # What the first process gets is what all others will get, to the last bit
        # (a .mjb does not keep MjModel.signature, for one).
        return _load(entry) or built


def to_json(info: SceneInfo) -> dict[str, Any]:
    """Write a SceneInfo as JSON values; floats survive bit for bit."""
    return json.loads(json.dumps(dataclasses.asdict(info), allow_nan=False))


def from_json(values: Mapping[str, Any]) -> SceneInfo:
    """Read what `to_json` wrote.

    Raises:
        KeyError, TypeError, ValueError: Not a SceneInfo of this version.
    """
    return _read(SceneInfo, values)


# ------------------------------------------------------------------------- files


def _file_stem(key: Mapping[str, Any]) -> str:
    text = json.dumps({"format": FORMAT, "key": key}, sort_keys=True, allow_nan=False)
    digest = hashlib.sha256(text.encode()).hexdigest()[:16]
    name = re.sub(r"[^A-Za-z0-9_.-]+", "-", str(key.get("scene", "scene")))[:80]
    return f"{name}-{digest}"


def _model_path(entry: Path, digest: str) -> Path:
    return entry.parent / "models" / f"{digest}.mjb"


def _load(entry: Path) -> Scene | None:
    """The cached scene; None when there is none or when it is damaged."""
    try:
        stored = json.loads(entry.read_text())
        path = _model_path(entry, stored["model"])
        with path.open("rb") as file:
            if hashlib.file_digest(file, "sha256").hexdigest() != stored["model"]:
                return None
        info = from_json(stored["info"])
        return Scene(model=mujoco.MjModel.from_binary_path(str(path)), info=info)
    except (OSError, KeyError, TypeError, ValueError, AttributeError):
        return None


def _save(entry: Path, key: Mapping[str, Any], scene: Scene) -> None:
    models = entry.parent / "models"
    models.mkdir(exist_ok=True)
    with _renamed(models) as (temporary, rename):
        mujoco.mj_saveModel(scene.model, str(temporary), None)
        # mj_saveModel says nothing when the disk is full.
        if temporary.stat().st_size != mujoco.mj_sizeModel(scene.model):
            raise OutOfSpace(
                f"the disk is full: a compiled scene of "
                f"{mujoco.mj_sizeModel(scene.model) / 1e6:.0f} MB was cut short. Free some space "
                f"or choose another cache folder: {entry.parent}"
            )
        with temporary.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        rename(_model_path(entry, digest))
    stored = {"format": FORMAT, "key": key, "model": digest, "info": to_json(scene.info)}
    with _renamed(entry.parent) as (temporary, rename):
        temporary.write_text(json.dumps(stored, allow_nan=False))
        rename(entry)


@contextlib.contextmanager
def _renamed(folder: Path) -> Iterator[tuple[Path, Callable[[Path], None]]]:
    """A temporary file in `folder` that is renamed when asked, or else removed."""
    for left in folder.glob(".writing-*"):  # by a process that was killed
        with contextlib.suppress(OSError):
            if time.time() - left.stat().st_mtime > _ABANDONED_S:
                left.unlink()
    temporary = folder / f".writing-{uuid.uuid4().hex}"
    try:
        yield temporary, lambda final: os.replace(temporary, final)
    finally:
        temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def _lock(path: Path) -> Iterator[None]:
    """Hold an exclusive lock; where the file system has none, go on without."""
    with path.open("w") as file:
        if fcntl is not None:
            with contextlib.suppress(OSError):
                fcntl.flock(file, fcntl.LOCK_EX)
        yield


# ------------------------------------------------------------------- dataclasses


def _read(kind: Any, value: Any) -> Any:
    """Rebuild a value of an annotated type from JSON values."""
    if isinstance(kind, type) and dataclasses.is_dataclass(kind):
        hints = typing.get_type_hints(kind)
        if unknown := set(value) - set(hints):
            raise ValueError(f"{kind} has no fields {sorted(unknown)}")
        return kind(**{name: _read(hints[name], item) for name, item in value.items()})
    origin, args = typing.get_origin(kind), typing.get_args(kind)
    if origin is types.UnionType:
        if value is None:
            return None
        return _read(next(a for a in args if a is not type(None)), value)
    if origin is tuple:
        if len(args) == 2 and args[1] is ...:
            return tuple(_read(args[0], item) for item in value)
        if len(args) != len(value):
            raise ValueError(f"expected {len(args)} values, got {len(value)}")
        return tuple(_read(a, item) for a, item in zip(args, value, strict=True))
    return value
