"""Time alignment: camera, proprioception and commands become episodes at the control period.

The steps follow the camera: a step lies one control period after the step before, moved onto the
nearest frame within the image tolerance, so that neither jitter nor a camera clock that runs a
little fast or slow adds up. At every step the proprioception is read off at that instant and the
command at ``command_phase`` of the step that begins there, so that a command that leaves some
milliseconds after its image belongs to that image.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from wm_mpc.data.bags.buffer import SampleBuffer
from wm_mpc.data.bags.config import AlignConfig

OFF_STEP = "frames off their step"


@dataclass
class Episode:
    """A run of aligned steps: ``T`` actions, ``T + 1`` stamps, and images at some of them."""

    meta: dict = field(default_factory=dict)
    stamps: list[int] = field(default_factory=list)
    images: list[Any] = field(default_factory=list)
    image_steps: list[int] = field(default_factory=list)
    proprio: list[np.ndarray] = field(default_factory=list)
    states: list[np.ndarray] = field(default_factory=list)
    actions: list[np.ndarray] = field(default_factory=list)
    end: str = ""

    def stride(self, default: int) -> int:
        """Steps from one frame to the next: the marker's word, or the default."""
        told = self.meta.get("frame_stride", default)
        return told if isinstance(told, int) and told >= 1 else default

    def trim(self) -> None:
        """Cut what follows the last frame, and the action whose outcome was not seen."""
        steps = self.image_steps[-1] + 1 if self.image_steps else 0
        for values in (self.stamps, self.proprio, self.states):
            del values[steps:]
        del self.actions[max(0, steps - 1) :]


class Aligner:
    """Takes samples in the order of a bag and gives finished episodes.

    Attributes:
        buffers: role (``image``, ``proprio``, ``command``, ``state``) -> its samples.
        counts: what became of steps, frames and episodes, by name.
        gaps: up to 50 ``(stamp [ns], reason)`` where episodes had to end.

    Args:
        config: methods and tolerances.
        roles: the roles there will be samples of; ``image`` and ``command`` at least.
        keep_image: called with the chosen frame's sample; its result goes into the episode. Frames
            that no step
            wants never get there, so decoding belongs here.
    """

    def __init__(
        self,
        config: AlignConfig,
        roles: tuple[str, ...],
        keep_image: Callable[[Any], Any] = lambda image: image,
    ) -> None:
        self.buffers = {role: SampleBuffer(_ns(config.reorder_s)) for role in roles}
        self.counts: Counter[str] = Counter()
        self.gaps: list[tuple[int, str]] = []
        self._proprio = [role for role in roles if role.startswith("proprio")]
        self._config = config
        self._keep_image = keep_image
        self._period = _ns(config.period_s)
        self._image_tolerance = _ns(config.image_tolerance_s)
        self._step_tolerance = _ns(config.step_tolerance * config.period_s)
        self._proprio_tolerance = _ns(config.proprio_tolerance_s)
        self._command_tolerance = _ns(config.command_tolerance_s)
        self._command_at = int(config.command_phase * self._period)
        self._look_ahead = (
            max(self._image_tolerance, self._proprio_tolerance, self._command_at)
            + (self._command_tolerance if config.command_method != "zoh" else 0)
            + _ns(config.reorder_s)
        )
        self._boundaries: list[tuple[int, str, dict]] = []
        self._meta: dict = {}
        self._meta_used = True
        self._episode: Episode | None = None
        self._next = 0
        self._missing = 0
        self._after: Counter[str] = Counter()

    def push(self, role: str, stamp: int, value: Any) -> Iterator[Episode]:
        """Take in a sample; yield the episodes that it completes."""
        if self.buffers[role].push(stamp, value):
            yield from self.restart("clock set back")
            return
        if self._after:
            topic = "proprio" if role in self._proprio else role
            self.counts[f"frames without {topic}"] += self._after.pop(topic, 0)
        yield from self._advance(finishing=False)
        if self._episode is None and not self.buffers["image"]:
            self._forget(stamp - _ns(self._config.patience_s + self._config.reorder_s))

    def boundary(self, stamp: int, reason: str, meta: dict | None = None) -> None:
        """Begin a new episode at ``stamp``; ``meta`` describes it."""
        self._boundaries.append((stamp, reason, meta or {}))
        self._boundaries.sort(key=lambda item: item[0])

    def restart(self, reason: str) -> Iterator[Episode]:
        """End everything: what comes next is of another time."""
        yield from self.finish(reason)
        for buffer in self.buffers.values():
            buffer.clear()
        self._boundaries.clear()

    def finish(self, reason: str = "end of bag") -> Iterator[Episode]:
        """Yield what the samples at hand still give; nothing more will come."""
        yield from self._advance(finishing=True)
        yield from self._close(reason)
        self.counts["frames without an episode"] += len(self.buffers["image"])
        for role, frames in self._after.items():
            self.counts[f"frames after the last {role}"] += frames
        self._after.clear()

    def _ready(self, stamp: int) -> bool:
        """Tell whether all that a step at ``stamp`` depends on has arrived, or never will."""
        newest = [buffer.newest for buffer in self.buffers.values()]
        need = stamp + self._look_ahead
        if all(value is not None and value >= need for value in newest):
            return True
        frontier = max(value for value in newest if value is not None)
        return frontier >= need + _ns(self._config.patience_s)

    def _advance(self, finishing: bool) -> Iterator[Episode]:
        images = self.buffers["image"]
        while images or self._episode:
            if self._episode is None:
                self._next = images.stamps[0]
            if not finishing and not self._ready(self._next):
                return
            found = self._frame()
            if finishing and found is None and not images:
                return
            stamp = self._next if found is None else images.stamps[found]
            if self._boundaries and self._boundaries[0][0] <= stamp:
                at, reason, meta = self._boundaries.pop(0)
                yield from self._close(reason)
                # several boundaries may open one episode; their facts add up
                self._meta = {**({} if self._meta_used else self._meta), **meta}
                self._meta_used = False
                self.counts["frames before an episode"] += images.forget_before(at)
                continue
            yield from self._step(stamp, found)

    def _frame(self) -> int | None:
        """Index of the frame that belongs to the next step, or None."""
        images = self.buffers["image"]
        found = images.nearest(self._next, self._image_tolerance)
        if found is None or self._episode is None or not self._step_tolerance:
            return found
        if abs(images.stamps[found] - self._next) <= self._step_tolerance:
            return found
        self.counts[OFF_STEP] += 1
        return None

    def _step(self, stamp: int, found: int | None) -> Iterator[Episode]:
        """Add one step to the running episode, or end it where something is missing."""
        images, config = self.buffers["image"], self._config
        frame = None if found is None else images.values[found]
        proprio = state = None
        if self._proprio:
            proprio = self._read_proprio(stamp)
        if "state" in self.buffers:
            state = self._read("state", stamp, "nearest")
        lacking = next(
            (
                role
                for role, value in (("proprio", proprio), ("state", state))
                if (role in self.buffers or (role == "proprio" and self._proprio))
                and value is None
            ),
            None,
        )
        if lacking:
            # without a frame either, nothing was recorded at all
            yield from self._close(f"{lacking} gap" if found is not None else "gap", stamp)
            self._without(lacking, stamp)
            return
        command = self.buffers["command"].read(
            stamp + self._command_at, config.command_method, self._command_tolerance
        )
        if command is None and self._episode is None:
            self._without("command", stamp)
            return
        if self._episode is None:
            self._episode = Episode(meta=dict(self._meta))
            self._meta_used = True
        episode = self._episode
        if found is not None:
            self._add_frame(episode, frame)
        self._missing = 0 if found is not None else self._missing + 1
        episode.stamps.append(stamp)
        if proprio is not None:
            episode.proprio.append(proprio)
        if state is not None:
            episode.states.append(state)
        self._next = stamp + self._period
        if command is None:
            yield from self._close("command gap", stamp)
        elif self._missing >= episode.stride(config.frame_stride) * (config.max_missing + 1):
            yield from self._close("image gap", stamp)
        elif len(episode.stamps) > config.max_steps:
            yield from self._close("longest allowed")
            # the last observation also begins the next episode, so that no transition is lost
            images.forget_before(stamp if found is not None else stamp + 1)
            self._forget(stamp)
            return
        else:
            episode.actions.append(command)
        self.counts["frames between steps"] += max(
            0, images.forget_before(stamp + 1) - (found is not None)
        )
        self._forget(stamp)

    def _without(self, role: str, stamp: int) -> None:
        """Let go of the frames up to ``stamp``; whether they are lost, later samples tell.

        A camera that was recorded before the controller started, or after it ended, lost nothing.
        """
        frames = self.buffers["image"].forget_before(stamp + 1)
        roles = self._proprio if role == "proprio" else [role]
        first = [self.buffers[name].first for name in roles]
        newest = [self.buffers[name].newest for name in roles]
        if any(value is None or stamp < value for value in first):
            self.counts[f"frames before the first {role}"] += frames
        elif any(value is not None and stamp > value for value in newest):
            self._after[role] += frames
        else:
            self.counts[f"frames without {role}"] += frames

    def _add_frame(self, episode: Episode, sample: Any) -> None:
        frame = self._keep_image(sample)
        if frame is None:
            self.counts["frames undecodable"] += 1
            return
        episode.images.append(frame)
        episode.image_steps.append(len(episode.stamps))

    def _read_proprio(self, stamp: int) -> Any | None:
        """Numbers of all publishers, one after another; None where one of them has none."""
        found = [self._read(role, stamp, self._config.proprio_method) for role in self._proprio]
        if any(value is None for value in found):
            return None
        return found[0] if len(found) == 1 else np.concatenate(found)

    def _read(self, role: str, stamp: int, method: str) -> Any | None:
        return self.buffers[role].read(stamp, method, self._proprio_tolerance)

    def _forget(self, stamp: int) -> None:
        """Let go of samples that no later step can want."""
        for role, tolerance in (
            *((role, self._proprio_tolerance) for role in self._proprio),
            ("state", self._proprio_tolerance),
            ("command", self._command_tolerance),
        ):
            if role in self.buffers:
                self.buffers[role].forget_before(stamp - tolerance)

    def _close(self, reason: str, gap_at: int | None = None) -> Iterator[Episode]:
        """End the running episode; yield it when it is long enough."""
        episode, self._episode = self._episode, None
        self._missing = 0
        if episode is None:
            return
        if gap_at is not None and len(self.gaps) < 50:
            self.gaps.append((gap_at, reason))
        seen = len(episode.stamps)
        episode.trim()
        episode.end = reason
        steps = len(episode.actions)
        self.counts["steps after the last frame"] += seen - len(episode.stamps)
        if steps < self._config.min_steps:
            self.counts["episodes too short"] += 1
            self.counts["steps in episodes too short"] += steps
            return
        self.counts["episodes"] += 1
        self.counts["steps"] += steps
        self.counts["frames"] += len(episode.images)
        expected = steps // episode.stride(self._config.frame_stride) + 1
        self.counts["missing frames"] += max(0, expected - len(episode.images))
        self.counts[f"ended: {reason}"] += 1
        yield episode


def _ns(seconds: float) -> int:
    return round(seconds * 1e9)
