import numpy as np
import pytest

from wm_mpc.control.pacing import ImagePacer, Schedule

PERIOD = 0.1


def test_schedule_keeps_its_grid_whatever_the_jitter() -> None:
    rng = np.random.default_rng(0)
    schedule, now, steps = Schedule(PERIOD), 5.0, []
    for _ in range(200):
        wait = schedule.wait(now)
        if wait == 0.0:
            steps.append(now)
            now += rng.uniform(0.0, 0.09)
        else:
            now += wait + rng.uniform(0.0, 0.005)
    offsets = np.array(steps) - 5.0 - PERIOD * np.arange(len(steps))
    assert (offsets >= -1e-9).all() and (offsets <= 0.006).all()
    assert schedule.missed == 0


def test_schedule_leaves_out_what_it_missed() -> None:
    schedule = Schedule(PERIOD)
    assert schedule.wait(0.0) == 0.0
    assert schedule.wait(0.75) == 0.0
    assert schedule.missed == 6
    assert schedule.wait(0.76) == pytest.approx(0.04)


def test_schedule_survives_a_clock_that_jumps_back() -> None:
    schedule = Schedule(PERIOD)
    schedule.wait(1000.0)
    assert schedule.wait(3.0) == 0.0


def simulate(images: np.ndarray, until: float, pacer: ImagePacer) -> list[tuple[float, float]]:
    """Steps and the image each one used (nan: none), waking at every image and every timeout."""
    now, used, steps = 0.0, -1, []
    while now < until:
        newest = int(np.searchsorted(images, now, side="right")) - 1
        wait = pacer.wait(now, fresh=newest > used)
        if wait == 0.0:
            steps.append((now, images[newest] if newest > used else np.nan))
            used = newest
            continue
        following = images[images > now + 1e-12]
        now = min(now + max(wait, 1e-6), following[0] if len(following) else np.inf)
    return steps


@pytest.mark.parametrize("jitter", [0.0, 0.005, 0.008])
def test_steps_follow_a_camera_of_the_same_rate_at_once(jitter: float) -> None:
    rng = np.random.default_rng(1)
    images = 0.03 + PERIOD * np.arange(100) + rng.uniform(0, jitter, 100)
    steps = simulate(images, 9.9, ImagePacer(PERIOD))[2:]
    assert all(image == image for _, image in steps)
    assert max(step - image for step, image in steps) <= 0.001 + jitter
    assert len(steps) == pytest.approx(98, abs=2)


@pytest.mark.parametrize("rate", [30.0, 60.0, 120.0])
def test_a_faster_camera_does_not_drive_the_robot_faster(rate: float) -> None:
    images = np.arange(0, 10, 1 / rate)
    steps = np.array([step for step, _ in simulate(images, 10, ImagePacer(PERIOD))])
    assert np.diff(steps).min() >= 0.9 * PERIOD - 1e-9
    assert len(steps) <= 10 / (0.9 * PERIOD) + 1


def test_steps_go_on_without_images() -> None:
    images = np.concatenate([PERIOD * np.arange(10), 2.0 + PERIOD * np.arange(10)])
    steps = np.array([step for step, _ in simulate(images, 3.0, ImagePacer(PERIOD))])
    assert np.diff(steps).max() <= 1.25 * PERIOD + 1e-6


def test_an_image_after_a_blind_step_is_used_at_once() -> None:
    images = np.array([0.0, 0.13, 0.23])
    steps = simulate(images, 0.24, ImagePacer(PERIOD))
    assert steps[1][0] == pytest.approx(0.125, abs=1e-5) and steps[1][1] != steps[1][1]
    assert steps[2] == (pytest.approx(0.13), 0.13)


@pytest.mark.parametrize("kind", [Schedule, ImagePacer])
def test_period_must_be_positive(kind: type) -> None:
    with pytest.raises(ValueError, match="period: 0 s; more than 0"):
        kind(0)
