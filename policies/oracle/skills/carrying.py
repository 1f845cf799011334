"""On and In: pick a thing up and put it where the predicate wants it."""

from __future__ import annotations

from dataclasses import replace

from envs.goals import Predicate
from policies.oracle.skills.base import DONE, Failure, Held, Progress, Script, look_again
from policies.oracle.skills.picking import Grasping, is_held, pick
from policies.oracle.skills.placing import Places, put_down
from policies.oracle.view import View

LIFTED = "lifted"
EMPTY = 0.002  # metres between the pads of a hand that holds nothing


class Carrying:
    """Serves On and In."""

    def __init__(self, view: View) -> None:
        self._grasping = Grasping(view)

    def proceed(self, view: View, goal: Predicate, progress: Progress) -> Script:
        """Plan what comes next."""
        if progress.stage == LIFTED and progress.held is not None:
            return self._place(view, goal, progress, progress.held)
        return self._pick(view, goal, progress)

    def failed(self, view: View, progress: Progress) -> bool:
        """Whether the thing has slipped since it was lifted."""
        return (
            progress.stage == DONE
            and progress.held is not None
            and not is_held(view, progress.held)
        )

    def _pick(self, view: View, goal: Predicate, progress: Progress) -> Script:
        thing = view.scene.thing(goal.args[0])
        places = Places(view, goal, view.pose(thing).rot, shared=progress.shared)
        fits = places.fits
        tried = (progress, replace(progress, failures=()))  # all tried: begin with the first
        script = None
        for known in tried if progress.failures else tried[:1]:
            script = script or pick(
                view, self._grasping, thing, known, fits, LIFTED, roofed=places.roofed
            )
        if script is None:
            return look_again(view, progress)
        return script

    def _place(self, view: View, goal: Predicate, progress: Progress, held: Held) -> Script:
        if not is_held(view, held) or view.finger_gap < EMPTY:
            return self._pick(view, goal, _without(progress, held).again())
        offset = view.eef.inverse() @ view.pose(view.scene.thing(held.thing))
        now = replace(held, offset=offset, width=view.finger_gap)
        place = Places(view, goal, now.resting, shared=progress.shared).best(now)
        if place is None:  # another grasp may serve better
            return look_again(view, _without(progress, held))
        return Script(put_down(view, now, place), replace(progress, stage=DONE, held=now))


def _without(progress: Progress, held: Held) -> Progress:
    """Progress that will not take a thing like that again."""
    hand = held.offset.inverse()
    failure = Failure(held.thing, hand.pos, hand.rot)
    return replace(progress, failures=(*progress.failures, failure))
