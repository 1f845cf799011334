"""When an observation is sampled: by hand, and against robosuite's own timer."""

from __future__ import annotations

import pytest

from envs.timing import libero_observation_substeps


def test_libero_samples_at_the_24th_of_25_substeps() -> None:
    # Period 0.05 s. Two forced samples put the timer at 0.004 s; substep 23 brings it to
    # 0.004 + 23 * 0.002 = 0.05, which starts a new period; substep 24 is its first sample.
    # At the step's end the timer stands at 0.004 again.
    assert libero_observation_substeps(5) == (24, 24, 24, 24, 24)


def test_ten_steps_a_second() -> None:
    # Period 0.1 s, timer at 0.01 s: 0.01 + 18 * 0.005 = 0.1, so substep 19 samples.
    found = libero_observation_substeps(3, substeps=20, timestep=0.005, control_hz=10.0)
    assert found == (19, 19, 19)


def test_a_slower_sensor_shows_every_second_step_anew() -> None:
    # Period 0.1 s over steps of 0.05 s. The timer is at 0.004 + 25 * 0.002 = 0.054 after one
    # step and reaches 0.1 at substep 23 of the second, whose substep 24 samples.
    found = libero_observation_substeps(4, control_hz=10.0)
    assert found == (0, 24, 0, 24)


def test_a_longer_run_begins_like_a_shorter_one() -> None:
    assert libero_observation_substeps(2048)[:600] == libero_observation_substeps(600)


@pytest.mark.filterwarnings("ignore:The 'warn' method:DeprecationWarning")  # robosuite's own
@pytest.mark.parametrize(
    ("substeps", "timestep", "control_hz"),
    [
        (25, 0.002, 20.0),
        (50, 0.002, 10.0),
        (10, 0.002, 50.0),
        (10, 0.005, 20.0),
        (5, 0.01, 20.0),
        (33, 0.001, 30.0),  # sums that round: the phase moves
        (17, 0.003, 20.0),
        (25, 0.002, 30.0),  # sensors faster than the steps
        (25, 0.002, 7.0),  # and slower
    ],
)
def test_as_robosuites_observable_does(substeps: int, timestep: float, control_hz: float) -> None:
    from robosuite.utils.observables import Observable, sensor

    clock = {"substep": 0}

    @sensor(modality="clock")
    def read(_: dict) -> float:
        return float(clock["substep"])

    observable = Observable(name="clock", sensor=read, sampling_rate=control_hz)
    for _ in range(2):  # reset, then set_init_state
        observable.update(timestep=timestep, obs_cache={}, force=True)
    expected = []
    for step in range(1500):
        before = observable.obs
        for k in range(1, substeps + 1):
            clock["substep"] = step * substeps + k
            observable.update(timestep=timestep, obs_cache={})
        fired = observable.obs != before
        expected.append(int(observable.obs) - step * substeps if fired else 0)
    found = libero_observation_substeps(1500, substeps, timestep, control_hz)
    assert list(found) == expected
