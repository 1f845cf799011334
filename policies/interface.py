"""What a network looks through and speaks, as options choose it: cameras and conventions.

Imports no torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from wamsim.conventions import ACTIONS, PROPRIOS, ActionConvention, ProprioConvention
from wamsim.errors import WamsimError, nearest


def check_interface(
    family: str,
    *,
    cameras: tuple[str, ...] | None = None,
    action: str | None = None,
    proprio: str | None = None,
    actions: Mapping[str, ActionConvention] = ACTIONS,
    proprios: Mapping[str, ProprioConvention] = PROPRIOS,
) -> None:
    """Refuse values that no model could be built with; None is always right.

    Whether a suite has the cameras is checked when one is named (`wamsim.fitting`).

    Args:
        family: For the error text.
        cameras: In the model's order.
        action, proprio: Names of conventions.
        actions, proprios: Those that the family knows.

    Raises:
        UnknownName: A convention that is not known, with the nearest one.
        WamsimError: No camera at all, or one twice.
    """
    if cameras is not None and (not cameras or len(set(cameras)) != len(cameras)):
        raise WamsimError(
            f"cameras={','.join(cameras)!r} of {family} must name one camera or more, each once, "
            f"separated by commas: --set cameras=agentview,eye_in_hand"
        )
    if action is not None and action not in actions:
        raise nearest(action, actions, kind="action convention")
    if proprio is not None and proprio not in proprios:
        raise nearest(proprio, proprios, kind="proprioception convention")


def chosen(**options: Any) -> dict[str, Any]:
    """Give those options that are not None."""
    return {name: value for name, value in options.items() if value is not None}


def keep_trained(family: str, asked: Mapping[str, Any], config: Any) -> None:
    """Refuse options that contradict what a checkpoint was trained with.

    Args:
        family: For the error text.
        asked: Attributes of the configuration, as the options want them.
        config: The checkpoint's own.

    Raises:
        WamsimError: Names the first one.
    """
    for name, wanted in asked.items():
        has = getattr(config, name)
        if has != wanted:
            option = name.removesuffix("_name")  # as some families call the field
            raise WamsimError(
                f"the checkpoint of {family} was trained with {option}={has!r}, the option says "
                f"{wanted!r}. Leave the option out, take another checkpoint, or run untrained "
                f"weights (--set checkpoint=untrained)."
            )
