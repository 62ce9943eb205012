"""Keeps the first and the last episodes of a live run, for the film strips of its page."""

from __future__ import annotations

from collections import deque

import numpy as np
from sensor_msgs.msg import Image

from wm_mpc.core.clock import stamp_seconds
from wm_mpc.data.decoding import image_to_rgb
from wm_mpc.evaluation.episodes import Episode
from wm_mpc.msg import TaskState
from wm_mpc.tasks.environments import make_env
from wm_mpc.trials.observer import Observer
from wm_mpc.trials.page import kept_episode

GOALS = 4
"""Goal pictures remembered: an episode's own may come before or after its first state."""
AFTER_S = 0.02
"""[s] by which a goal may be stamped after the first state of its episode."""


class LivePictures(Observer):
    """Watches whatever episodes come, one after the other.

    Args:
        task: simulated task.
        every: control steps from one kept picture to the next.
        most: episodes kept of the beginning, and of the end.

    Attributes:
        first, last: complete episodes, in order; an episode is in one of them only.
    """

    def __init__(self, task: str, every: int, most: int) -> None:
        self._task, self._every, self._most = make_env(task).unwrapped, every, most
        self._number: int | None = None
        self._whole = False
        self._goals: deque[tuple[float, np.ndarray]] = deque(maxlen=GOALS)
        self.first: list[Episode] = []
        self.last: deque[Episode] = deque(maxlen=most)
        super().__init__("live_pictures")

    def _on_state(self, message: TaskState) -> None:
        if message.episode != self._number:
            self._finish()
            self._number, self._whole = message.episode, message.step <= 1
            with self._lock:
                newest = dict(list(self._images.items())[-2:])
                self._clear(message.seed)
                self._images.update(newest)
        super()._on_state(message)

    def _on_goal(self, message: Image) -> None:
        self._goals.append(
            (stamp_seconds(message.header.stamp), image_to_rgb(message, "goal_image"))
        )

    def _finish(self) -> None:
        """Keep the episode that ended, if it was seen from its start."""
        recording = self.recording()
        if not self._whole or len(recording.moments) < 2:
            return
        episode = kept_episode(recording, self._task, self._every)
        began = recording.moments[0].stamp
        own = [goal for stamp, goal in self._goals if stamp <= began + AFTER_S]
        episode.goal = own[-1] if own else None
        (self.first if len(self.first) < self._most else self.last).append(episode)


__all__ = ["LivePictures"]
