"""One recorded trajectory, as arrays: what simulators produce, stores keep and training reads."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np


@dataclass
class Trajectory:
    """A run of ``T`` control steps.

    Attributes:
        images: uint8 ``(F, H, W, 3)`` RGB; image ``j`` shows the world at step ``image_steps[j]``.
        image_steps: int64 ``(F,)``, strictly increasing in ``[0, T]``; ``arange(T + 1)`` when
            every step has a frame.
        actions: float32 ``(T, action_dim)``, raw units of the task, applied from step ``t`` to
            ``t + 1``.
        proprio: float32 ``(T + 1, proprio_dim)``, raw units of the task.
        stamps: float64 ``(T + 1,)`` [s], strictly increasing.
        state: float64 ``(T + 1, state_dim)`` true simulator snapshots, or None (robots have none).
            Never a training input.
        meta: JSON-able facts: ``task``, ``seed``, ``policy``, ``source``.
    """

    images: np.ndarray
    image_steps: np.ndarray
    actions: np.ndarray
    proprio: np.ndarray
    stamps: np.ndarray
    state: np.ndarray | None = None
    meta: dict = field(default_factory=dict)

    def __len__(self) -> int:
        """Number of control steps ``T``."""
        return len(self.actions)

    def validate(self) -> Trajectory:
        """Check shapes, types, finiteness and order.

        Returns:
            self, so that calls chain.

        Raises:
            ValueError: one line naming the field, its value and what was expected.
        """
        t = len(self.actions)
        if t < 1:
            raise ValueError(f"actions: {t} steps; at least 1 expected")
        if self.images.dtype != np.uint8 or self.images.ndim != 4 or self.images.shape[-1] != 3:
            raise ValueError(
                f"images: {self.images.dtype} {self.images.shape}; uint8 (F, H, W, 3) expected"
            )
        steps = self.image_steps
        if len(steps) != len(self.images):
            raise ValueError(f"image_steps: {len(steps)} entries for {len(self.images)} images")
        if len(steps) and (steps[0] < 0 or steps[-1] > t or np.any(np.diff(steps) <= 0)):
            raise ValueError(
                f"image_steps: must increase strictly within [0, {t}], "
                f"got {steps[:5]}...{steps[-1]}"
            )
        for name, rows in (("proprio", t + 1), ("stamps", t + 1), ("state", t + 1)):
            value = getattr(self, name)
            if value is not None and len(value) != rows:
                raise ValueError(f"{name}: {len(value)} rows; {rows} expected for {t} actions")
        for name in ("actions", "proprio", "stamps", "state"):
            value = getattr(self, name)
            if value is not None and not np.isfinite(value).all():
                bad = int(np.argwhere(~np.isfinite(value).reshape(len(value), -1).all(1))[0, 0])
                raise ValueError(f"{name}: not finite at step {bad}")
        if np.any(np.diff(self.stamps) <= 0):
            bad = int(np.argmax(np.diff(self.stamps) <= 0)) + 1
            raise ValueError(
                f"stamps: step {bad} at {self.stamps[bad]:.6f} s is not after step {bad - 1}"
            )
        return self
