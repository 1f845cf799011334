"""Every error that a user can cause, each with a sentence that says what to do.

`wamsim_cli` turns a `WamsimError` into its message and exit code 2; anything
else is a defect of ours and keeps its traceback.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class WamsimError(Exception):
    """Base of all errors that are the caller's to mend."""


class UnknownName(WamsimError):
    """A suite, task, policy, camera or variant that nobody registered."""


class ConventionMismatch(WamsimError):
    """A policy and a suite that do not speak the same action or proprioception."""


class AssetsMissing(WamsimError):
    """Files of a benchmark that must be downloaded are not where we looked."""


class RenderingUnavailable(WamsimError):
    """No OpenGL context could be made on this machine."""


class PolicyFault(WamsimError):
    """A policy returned what its card does not promise (shape, horizon, type)."""


class ConfigurationMismatch(WamsimError):
    """A run folder holds episodes of another configuration."""


class RunFolderBusy(WamsimError):
    """Another live process is writing to the same run folder."""


class RecordCorrupt(WamsimError):
    """An episode file or run.json is truncated, altered or from a newer version."""


class WorkerLost(WamsimError):
    """A simulation worker died; the rollout runs its episodes again once."""


class OutOfSpace(WamsimError):
    """The disk is full; finished episodes stay, nothing half-written remains."""


def nearest(name: str, known: Iterable[str], *, kind: str, hint: str = "") -> UnknownName:
    """Build the error for an unknown name, naming what was probably meant.

    Args:
        name: What the caller asked for.
        known: All names that would have worked.
        kind: What it names, for the sentence: "suite", "policy", ...
        hint: One more sentence (how to list the known names).
    """
    known = sorted(known)
    close = difflib.get_close_matches(name, known, n=3, cutoff=0.4)
    text = f"unknown {kind} {name!r}."
    if close:
        text += f" Did you mean {' or '.join(repr(c) for c in close)}?"
    elif known:
        shown = ", ".join(known[:12]) + (", ..." if len(known) > 12 else "")
        text += f" Known: {shown}."
    return UnknownName(f"{text} {hint}".strip())
