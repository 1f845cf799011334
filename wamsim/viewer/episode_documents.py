"""What the page shows of one episode: actions, robot, value, and imagined beside real."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from wamsim.contracts import EpisodeKey, Outcome, Task
from wamsim.conventions import Gripper
from wamsim.episode import array_names, read_episode
from wamsim.errors import WamsimError
from wamsim.imagination.episodes import query_scores
from wamsim.imagination.latents import NotFinite
from wamsim.imagination.pictures import PEAK
from wamsim.imagination.scores import QueryScores
from wamsim.reality import IMAGINATION_NOTE
from wamsim.viewer import sheets
from wamsim.viewer.film import PREVIEW_EVERY, PREVIEW_FPS, PREVIEW_SIZE, VIDEO_SIZE
from wamsim.viewer.illustrator import Illustrator
from wamsim.viewer.run_documents import (
    Document,
    clock,
    episode_name,
    preview_url,
    sheet_url,
    strip_url,
    video_url,
)
from wamsim.viewer.shelf import Seen

_CURVES = ("actions", "query_steps", "robot_state", "value", "timing_act_s")

# Robot-state fields that are shown: title, unit.
_FIELDS: Mapping[str, tuple[str, str]] = {
    "eef_pos": ("end effector position", "m"),
    "eef_quat": ("end effector orientation (xyzw)", ""),
    "gripper_qpos": ("finger positions", "m"),
    "gripper_open": ("gripper opening", ""),
    "joint_pos": ("arm joints", "rad"),
}
_LABELS: Mapping[str, Sequence[str]] = {
    "eef_pos": ("x", "y", "z"),
    "eef_quat": ("x", "y", "z", "w"),
    "gripper_qpos": ("left", "right"),
}


def episode_document(seen: Seen, illustrator: Illustrator) -> Document:
    """Show one episode.

    Args:
        seen: The episode.
        illustrator: Knows its task.

    Raises:
        RecordCorrupt: The file's arrays cannot be read.
    """
    run, record, path = seen.run, seen.record, seen.file.path
    key = record.key
    task: Task | None = None
    fault: str | None = None
    try:
        task = illustrator.task(seen.config, record)
    except WamsimError as error:
        fault = str(error)
    names = array_names(path)
    arrays = read_episode(path, only=[n for n in _CURVES if n in names]).arrays
    if "seen_qpos" not in names:
        fault = fault or "This episode has no recorded states, so there is no video of it."
    drawable = fault is None
    steps = arrays.get("query_steps", np.zeros(0, np.int32))
    value = arrays.get("value")
    standard = illustrator.standard_cameras(task) if task else ()
    return {
        "name": episode_name(run.id, key),
        "live": False,
        "run": {
            "id": run.id,
            "name": run.name,
            "policy": run.label,
            "seed": record.run_seed,
            "state": run.state,
        },
        "suite": key.suite,
        "suite_version": record.suite_version,
        "task": key.task,
        "trial": key.index,
        "instruction": record.instruction,
        "goal": task.goal if task else None,
        "outcome": record.outcome.value,
        "reason": record.reason,
        "steps": record.steps,
        "success_step": record.success_step,
        "limit": task.max_steps if task else None,
        "stand_in": record.stand_in_visuals,
        "privileged": record.privileged,
        "attempt": record.attempt,
        "initial_state": record.initial_state,
        "perturbation": record.perturbation,
        "started": clock(record.timings.get("started_unix_s")),
        "wall_s": record.timings.get("wall_s"),
        "latency_s": record.timings.get("latency_s"),
        "fps": task.control_hz if task else None,
        "frames": record.steps + 1 if drawable else 0,
        "video_message": fault,
        "cameras": [
            {
                "name": camera,
                "url": video_url(run.id, key, camera),
                "width": VIDEO_SIZE,
                "height": VIDEO_SIZE,
                "standard": camera in standard,
            }
            for camera in (task.cameras if task and drawable else ())
        ],
        "preview": {
            "url": preview_url(run.id, key),
            "fps": PREVIEW_FPS,
            "every": PREVIEW_EVERY,
            "frames": -(-(record.steps + 1) // PREVIEW_EVERY),
            "width": PREVIEW_SIZE,
            "height": PREVIEW_SIZE,
        }
        if drawable
        else None,
        "actions": _actions(arrays.get("actions"), task),
        "state": _state(arrays.get("robot_state"), task),
        "queries": {"steps": steps.tolist(), "latency_s": numbers(arrays.get("timing_act_s", []))},
        "value": {"steps": steps[: len(value)].tolist(), "values": numbers(value)}
        if value is not None and len(value)
        else None,
        "imagination": _imagination(seen, names),
    }


def numbers(values: object) -> Any:
    """Write numbers for a page: six digits, null for what is not finite."""
    return _digits(np.asarray(values, np.float64).tolist())


def _digits(x: Any) -> Any:
    if isinstance(x, list):
        return [_digits(v) for v in cast(list[Any], x)]
    return float(f"{x:.6g}") if math.isfinite(x) else None


def _actions(actions: NDArray[Any] | None, task: Task | None) -> Document | None:
    if actions is None or actions.ndim != 2 or not len(actions):
        return None
    n = actions.shape[1]
    convention = task.action if task and task.action.dim == n else None
    labels = list(convention.labels) if convention else [f"action {i}" for i in range(n)]
    grips = convention is not None and convention.gripper is not Gripper.NONE
    return {
        "convention": convention.name if convention else None,
        "labels": labels,
        "low": list(convention.low) if convention else [None] * n,
        "high": list(convention.high) if convention else [None] * n,
        "gripper": [i for i, name in enumerate(labels) if grips and "grip" in name],
        "values": numbers(actions.T),
    }


def _state(raw: NDArray[Any] | None, task: Task | None) -> list[Document]:
    if raw is None or task is None or raw.ndim != 2 or raw.shape[1] != task.robot_state.dim:
        return []
    out: list[Document] = []
    for name, values in task.robot_state.split(raw).items():
        arm, field = _field(name)
        if field is None:
            continue
        title, unit = _FIELDS[field]
        width = values.shape[1]
        labels = _LABELS.get(field, ())
        out.append(
            {
                "name": name,
                "title": f"{arm} {title}".strip(),
                "unit": unit,
                "labels": list(labels) if len(labels) == width else [str(i) for i in range(width)],
                "values": numbers(values.T),
            }
        )
    return out


def _field(name: str) -> tuple[str, str | None]:
    """Split "left_eef_pos" into the arm and a field that is shown, if it is one."""
    for field in _FIELDS:
        if name == field or name.endswith(f"_{field}"):
            return name.removesuffix(field).rstrip("_").replace("_", " "), field
    return "", None


# --------------------------------------------------------------------- imagination


def _imagination(seen: Seen, names: set[str]) -> list[Document]:
    record, path = seen.record, seen.file.path
    notes = cast(Mapping[str, Mapping[str, Any]], record.notes.get(IMAGINATION_NOTE, {}))
    if not notes or record.outcome is Outcome.ERROR:
        return []
    fault: str | None = None
    scores: Mapping[str, QueryScores] = {}
    try:
        scores = query_scores(seen.run.folder, path)
    except NotFinite as error:
        fault = str(error)
    out: list[Document] = []
    for index, prefix in enumerate(sorted(notes)):
        note = notes[prefix]
        one: Document = {
            "index": index,
            "imaginer": note["imaginer"],
            "world_model": bool(prefix),
            "horizons": list(note["horizons"]),
            "execute": note["execute"],
            "cameras": list(note.get("cameras", [])),
            "fault": fault,
        }
        found = scores.get(prefix)
        if found is None:
            one |= {"steps": [], "executed": [], "summary": None, "pictures": None}
        else:
            one |= _scores(found)
            about = sheets.describe(path, prefix, note, names)
            one["pictures"] = (
                None if about is None else _pictures(seen.run.id, record.key, index, about)
            )
        out.append(one)
    return out


def _scores(found: QueryScores) -> Document:
    cells = found.cells
    nothing = np.full(found.compared.shape, np.nan)

    def of(name: str) -> NDArray[np.float64]:
        return cells.get(name, nothing)

    with np.errstate(divide="ignore", invalid="ignore"):
        error = of("error") / of("power")
        still = of("still_error") / of("power")
    drawn = "imagined_mse" in cells
    ceiling = "ceiling_mse" in cells
    return {
        "steps": found.steps.tolist(),
        "executed": found.compared.tolist(),
        "similarity": numbers(of("cosine")),
        "still": numbers(of("still_cosine")),
        "error": numbers(error),
        "still_error": numbers(still),
        "recall": numbers(of("recall")),
        "psnr": numbers(_decibels(of("imagined_mse"))) if drawn else None,
        "ssim": numbers(of("imagined_ssim")) if drawn else None,
        "ceiling_psnr": numbers(_decibels(of("ceiling_mse"))) if ceiling else None,
        "ceiling_ssim": numbers(of("ceiling_ssim")) if ceiling else None,
        "summary": _summary(found, error),
    }


def _decibels(mse: NDArray[np.float64]) -> NDArray[np.float64]:
    with np.errstate(divide="ignore", invalid="ignore"):
        return 20 * np.log10(PEAK) - 10 * np.log10(mse)


def _summary(found: QueryScores, relative: NDArray[np.float64]) -> Document:
    """The whole episode: ratios of sums, as `wamsim.imagination` makes them."""
    sums = {
        name: float(np.nansum(found.cells[name])) if name in found.cells else 0.0
        for name in ("error", "still_error", "power")
    }

    def ratio(above: str, below: str) -> float | None:
        return sums[above] / sums[below] if sums[below] else None

    def mean(name: str) -> float | None:
        cell = found.cells.get(name)
        return None if cell is None or np.isnan(cell).all() else float(np.nanmean(cell))

    skill = ratio("error", "still_error")
    broke: int | None = None
    if not np.isnan(relative).all():
        worst = np.max(np.nan_to_num(relative, nan=-np.inf), axis=1)
        broke = int(found.steps[int(np.argmax(worst))])
    return {
        "error": ratio("error", "power"),
        "still_error": ratio("still_error", "power"),
        "skill": None if skill is None else 1 - skill,
        "similarity": mean("cosine"),
        "still": mean("still_cosine"),
        "broke": broke,
    }


def _pictures(run: str, key: EpisodeKey, index: int, about: sheets.Sheets) -> Document:
    height, width = about.cell
    small = about.strip_cell
    return {
        "kind": about.kind,
        "note": about.note,
        "cameras": list(about.cameras),
        "cell": {"width": width, "height": height},
        "rows": list(about.rows),
        "columns": list(about.horizons),
        "sheets": [sheet_url(run, key, index, q) for q in range(about.queries)],
        "retrieval": f"retrieval/{run}/{key.suite}/{key.task}/{key.index}/{index}"
        if about.kind == sheets.RETRIEVAL
        else None,
        "strip": {
            "url": strip_url(run, key, index),
            "rows": list(about.rows),
            "columns": about.queries,
            "horizon": about.horizons[about.strip_horizon],
            "cell": {"width": small[1], "height": small[0]},
        }
        if about.kind == sheets.DECODED
        else None,
    }
