"""One picture of every task: a suite at a glance."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, ImageDraw

from wamsim import registry
from wamsim.captions import typeface, wrapped
from wamsim.contracts import EpisodeKey, Frames, Task
from wamsim.errors import nearest

if TYPE_CHECKING:
    from envs.scene import SuiteBackend, SuiteOptions

COLUMNS = 6
SIZE_PX = 256  # of a picture
MANY, SMALL_PX = 40, 176  # from so many tasks on smaller ones: libero_90 stays below 1 MB
LIBEROS = "galleryview"  # a camera that LIBERO's scenes alone have
_GAP, _LETTERS, _LINES = 8, 13, 2
_PAPER, _INK, _MUTED = (250, 250, 248), (28, 28, 30), (110, 110, 114)
_QUALITY = 88  # JPEG: 26 pictures in less than 400 kB


def draw_sheet(
    name: str,
    options: SuiteOptions,
    out: Path,
    *,
    tasks: Sequence[str] = (),
    camera: str | None = None,
    trial: int = 0,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Path:
    """Draw how a suite's tasks begin, with their words, into one JPEG.

    Args:
        name: Suite.
        options: What suites are built with.
        out: Folder; the file is ``<suite>.jpg``.
        tasks: Names of those to show; all when empty.
        camera: From where; None takes what the suite has for people to look through.
        trial: Whose initial state is shown, after settling.
        progress: Called with (drawn, all).

    Raises:
        UnknownName: The suite, a task or the camera is not there.
        AssetsMissing, RenderingUnavailable: See there.
    """
    backend = registry.suite(name, options)
    known = {task.name: task for task in backend.suite.tasks}
    for wanted in tasks:
        if wanted not in known:
            raise nearest(wanted, tuple(known), kind=f"task of {name}")
    chosen = [known[t] for t in tasks] if tasks else list(known.values())
    cells: list[tuple[Frames, Task]] = []
    size = SIZE_PX if len(chosen) < MANY else SMALL_PX
    for number, task in enumerate(chosen):
        cells.append(_first_look(backend, task, camera, trial, size))
        progress(number + 1, len(chosen))
    out.mkdir(parents=True, exist_ok=True)
    path = out / f"{name}.jpg"
    _laid_out(backend.suite.id, cells).save(path, quality=_QUALITY, subsampling=0, optimize=True)
    return path


def _first_look(
    backend: SuiteBackend, task: Task, camera: str | None, trial: int, size: int
) -> tuple[Frames, Task]:
    from envs.goals import parse
    from envs.rendering import Painter
    from envs.runtime import Simulation
    from envs.scene import variant

    key = EpisodeKey(task.suite, task.name, trial)
    task = variant(backend, task, key)
    if camera is not None and camera not in task.cameras:
        raise nearest(camera, task.cameras, kind=f"camera of {task.suite}")
    scene = backend.scene(task)
    sim = Simulation(scene, parse(task.goal), action=task.action.name)
    sim.start(backend.start(scene, task, key, 0))
    for _ in range(task.settle_steps):
        sim.step(np.array(task.action.hold, np.float64))
    seen = sim.glimpse()
    view = camera or familiar_camera(task.cameras)
    painter = Painter(scene)
    try:
        return painter.draw(seen.seen_qpos, seen.lit, view, (size, size))[0], task
    finally:
        painter.close()


def familiar_camera(cameras: Sequence[str]) -> str:
    """The camera that people know a suite by: our own suites have one last, for people alone.

    LIBERO's others stand in walls or far away in some scenes.
    """
    return cameras[0] if LIBEROS in cameras or len(cameras) < 3 else cameras[-1]


def _laid_out(title: str, cells: Sequence[tuple[Frames, Task]]) -> Image.Image:
    size = len(cells[0][0])
    columns = min(COLUMNS if size == SIZE_PX else COLUMNS + 4, len(cells))
    rows = -(-len(cells) // columns)
    words, head = typeface(_LETTERS), typeface(2 * _LETTERS)
    text = round(_LINES * _LETTERS * 1.35) + _GAP
    top = 2 * _LETTERS + 3 * _GAP
    note = ", stand-in visuals" if any(task.stand_in_visuals for _, task in cells) else ""
    heading = f"{title}: {len(cells)} task{'s' if len(cells) > 1 else ''}{note}"
    width = max(columns * (size + _GAP), math.ceil(head.getlength(heading)) + _GAP) + _GAP
    sheet = Image.new("RGB", (width, top + rows * (size + text + _GAP)), _PAPER)
    draw = ImageDraw.Draw(sheet)
    draw.text((_GAP, _GAP), heading, font=head, fill=_INK)
    for number, (picture, task) in enumerate(cells):
        row, column = divmod(number, columns)
        left = _GAP + column * (size + _GAP)
        down = top + row * (size + text + _GAP)
        sheet.paste(Image.fromarray(picture), (left, down))
        lines = wrapped(task.instruction, words, size, _LINES)
        for i, line in enumerate(lines):
            at = (left, down + size + _GAP // 2 + round(i * _LETTERS * 1.35))
            draw.text(at, line, font=words, fill=_MUTED)
    return sheet
