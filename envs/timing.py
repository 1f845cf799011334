"""At which substep a genuine LIBERO observation is sampled.

robosuite 1.4's Observable keeps a timer in floating point; reset and set_init_state
each force one sample and advance it by one substep. So pictures and proprioception of
an env step are taken some substeps before its end, and the phase can move when the
sums round the other way. All of it is a function of the step number alone.
"""

from __future__ import annotations

from functools import lru_cache

FORCED_SAMPLES = 2  # env.reset(), then set_init_state()


@lru_cache(maxsize=64)
def libero_observation_substeps(
    n_steps: int, substeps: int = 25, timestep: float = 0.002, control_hz: float = 20.0
) -> tuple[int, ...]:
    """Give, for env steps 1..n_steps after a start, the substep (1-based) that is observed.

    0 means that the timer did not fire within that step and the observation of the step
    before stands.

    Source: robosuite 1.4.0 utils/observables.py, Observable.update.
    """
    period = 1.0 / control_hz
    since = 0.0
    sampled = True
    for _ in range(FORCED_SAMPLES):
        since += timestep
    out: list[int] = []
    for _ in range(n_steps):
        at = 0
        for k in range(1, substeps + 1):
            since += timestep
            if not sampled and period >= since:
                at = k
                sampled = True
            if since >= period:
                if not sampled:
                    at = k
                since %= period
                sampled = False
        out.append(at)
    return tuple(out)
