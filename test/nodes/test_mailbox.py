import threading
import time

import numpy as np
import pytest

from wm_mpc.nodes.mpc.mailbox import Mailbox


def proprio(value: float) -> np.ndarray:
    return np.array([value])


def test_only_the_newest_image_is_kept_and_taken_once() -> None:
    box = Mailbox(needs_proprio=False)
    box.put_image(1.0, "old")
    box.put_image(2.0, "new")
    assert box.take()[:2] == (2.0, "new")
    assert box.take() is None and not box.complete


def test_an_image_is_complete_with_proprioception_as_young() -> None:
    box = Mailbox(needs_proprio=True)
    box.put_image(1.0, "image")
    assert not box.complete
    box.put_proprio(0.9, proprio(0))
    assert not box.complete
    box.put_proprio(1.0, proprio(1))
    assert box.complete


@pytest.mark.parametrize(("stamp", "nearest"), [(0.0, 1.0), (2.4, 2.0), (2.6, 3.0), (9.0, 3.0)])
def test_the_nearest_proprioception_comes_with_the_image(stamp: float, nearest: float) -> None:
    box = Mailbox(needs_proprio=True)
    for value in (1.0, 3.0, 2.0):
        box.put_proprio(value, proprio(value))
    box.put_image(stamp, "image")
    _, _, values, offset = box.take()
    assert values[0] == nearest and offset == pytest.approx(abs(stamp - nearest))


def test_without_proprioception_the_image_comes_alone() -> None:
    box = Mailbox(needs_proprio=True)
    box.put_image(1.0, "image")
    assert box.take() == (1.0, "image", None, np.inf)


def test_a_clock_that_jumped_back_drops_what_was_before() -> None:
    box = Mailbox(needs_proprio=True)
    box.put_proprio(1000.0, proprio(1))
    box.put_proprio(0.1, proprio(2))
    box.put_image(0.3, "image")
    assert not box.complete


def test_news_before_waiting_are_not_slept_over() -> None:
    box = Mailbox(needs_proprio=False)
    box.put_image(1.0, "image")
    began = time.monotonic()
    assert box.wait(30.0) is False
    assert time.monotonic() - began < 10.0


def test_waiting_ends_with_news_from_another_thread() -> None:
    box = Mailbox(needs_proprio=False)
    timer = threading.Timer(0.05, box.urge)
    timer.start()
    assert box.wait(30.0) is True
    timer.join()
