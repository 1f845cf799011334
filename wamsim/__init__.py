"""wamsim: does a world-action model do the task, and did it see coming what happened?

Importing it registers every suite's tasks with Gymnasium (``wamsim/<suite>-<task>-v1``), as
Gymnasium asks of packages since it gave up plugins (release notes of v1.0.0a1). What is
registered comes from entry points of group ``wamsim.environments``, so this package knows no
simulator and other packages can add theirs.
"""

from importlib.metadata import entry_points


def _register_environments() -> None:
    for point in entry_points(group="wamsim.environments"):
        point.load()()


_register_environments()
