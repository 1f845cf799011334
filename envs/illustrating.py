"""Draws recorded episodes for the viewer: its `Illustrator`."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from envs.evaluation import Resources
from envs.replay import check_cameras, draw_episode, read_drawable, standard_cameras, suite_options
from wamsim import registry
from wamsim.contracts import Frames, Task
from wamsim.episode import Episode, Record
from wamsim.errors import ConfigurationMismatch, nearest

if TYPE_CHECKING:
    from envs.rendering import Painter
    from envs.scene import SuiteBackend, SuiteOptions

# Scenes that an artist keeps: episodes side by side have one, and somebody who goes from task
# to task comes back. Each holds 100 to 300 MB.
SCENES_KEPT = 2
EPISODES_KEPT = 8  # a second of an episode at a time, so the next message asks for the same file


@dataclass(frozen=True)
class SceneIllustrator:
    """Draws what any installed suite recorded.

    Attributes:
        resources: Folders.
    """

    resources: Resources

    def task(self, config: Mapping[str, Any], record: Record) -> Task:
        """See `wamsim.viewer.illustrator.Illustrator`."""
        from envs.scene import variant

        backend = _backend(record.key.suite, suite_options(config, self.resources))
        suite = backend.suite
        if record.suite_version != suite.version:
            raise ConfigurationMismatch(
                f"recorded with {record.key.suite} version {record.suite_version}, but this "
                f"wamsim has version {suite.version}, whose pictures would be others. Draw it "
                f"with the wamsim that recorded it"
            )
        for task in suite.tasks:
            if task.name == record.key.task:
                return variant(backend, task, record.key)
        raise nearest(record.key.task, [t.name for t in suite.tasks], kind="task")

    def standard_cameras(self, task: Task) -> tuple[str, ...]:
        """See `wamsim.viewer.illustrator.Illustrator`."""
        return standard_cameras(task)

    def artist(self) -> SceneArtist:
        """See `wamsim.viewer.illustrator.Illustrator`."""
        return SceneArtist(self)


@lru_cache(maxsize=64)
def _backend(name: str, options: SuiteOptions) -> SuiteBackend:
    return registry.suite(name, options)


class SceneArtist:
    """Draws with MuJoCo; keeps the last scenes and episodes.

    Args:
        illustrator: Knows the tasks.
    """

    def __init__(self, illustrator: SceneIllustrator) -> None:
        self._illustrator = illustrator
        self._painters: OrderedDict[tuple[object, str], Painter] = OrderedDict()
        self._episodes: OrderedDict[Path, tuple[float, Episode]] = OrderedDict()

    def draw(
        self,
        path: Path,
        config: Mapping[str, Any],
        cameras: Sequence[str],
        size: tuple[int, int],
        steps: Sequence[int],
    ) -> Iterator[Frames]:
        """See `wamsim.viewer.illustrator.Artist`."""
        episode = self._episode(path)
        task = self._illustrator.task(config, episode.record)
        check_cameras(cameras, task)
        painter = self._painter(task, suite_options(config, self._illustrator.resources))
        for shot in draw_episode(painter, episode, cameras, size, steps):
            yield shot.colour

    def _episode(self, path: Path) -> Episode:
        changed = path.stat().st_mtime
        found = self._episodes.pop(path, None)
        if found is None or found[0] != changed:
            found = (changed, read_drawable(path))
        self._episodes[path] = found
        while len(self._episodes) > EPISODES_KEPT:
            self._episodes.popitem(last=False)
        return found[1]

    def _painter(self, task: Task, options: SuiteOptions) -> Painter:
        from envs.rendering import Painter

        key = (options, task.scene_id)
        painter = self._painters.pop(key, None)
        if painter is None:
            while len(self._painters) >= SCENES_KEPT:
                self._painters.popitem(last=False)[1].close()
            painter = Painter(_backend(task.suite, options).scene(task))
        self._painters[key] = painter
        return painter

    def close(self) -> None:
        """Free OpenGL memory."""
        while self._painters:
            self._painters.popitem()[1].close()
