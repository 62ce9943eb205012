"""Draws what the model imagines: latents of a plan, decoded, side by side."""

from __future__ import annotations

import queue
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np

from wm_mpc.core.errors import UserError, one_line
from wm_mpc.nodes.view.board import Board


class Imagination:
    """Decodes plans in a thread of its own, one at a time; what comes meanwhile is left out.

    Args:
        folder: model folder with ``decoder.safetensors``.
        board: where the strip goes.

    Raises:
        UserError: no decoder there, or one that does not load.
    """

    def __init__(self, folder: Path, board: Board) -> None:
        import torch

        from wm_mpc.models.decoder import Decoder

        torch.set_num_threads(1)
        self._torch = torch
        self._decoder = Decoder.load(folder)
        self._board = board
        self._size = int(np.prod(self._decoder.config.latent_shape))
        self._next: queue.Queue[Any] = queue.Queue(maxsize=1)
        self._free_at = 0.0
        threading.Thread(target=self._run, name="imagine", daemon=True).start()

    def offer(self, stamp: float, dt: float, control_steps: int, flat: Any) -> None:
        """Draw a plan if the last strip has been lived through.

        Args:
            stamp: [s] when the plan begins.
            dt: [s] one control step.
            control_steps: length of the plan.
            flat: latents, row-major ``(model steps + 1) x latent``.
        """
        values = np.asarray(flat, np.float32)
        now = time.monotonic()
        if now < self._free_at or not len(values) or len(values) % self._size:
            return
        count = len(values) // self._size
        duration = dt * control_steps
        try:
            self._next.put_nowait((stamp, duration / max(1, count - 1), values, count))
        except queue.Full:
            return
        self._free_at = now + duration

    def _run(self) -> None:
        while True:
            stamp, step_s, values, count = self._next.get()
            shape = (count, *self._decoder.config.latent_shape)
            latents = self._torch.from_numpy(values.copy()).reshape(shape)
            pictures = self._decoder.decode(latents).numpy()
            self._board.show("imagined", np.concatenate(list(pictures), axis=1))
            self._board.tell("imagined", {"stamp": stamp, "step_s": step_s, "count": count})


def imagination(folder: Path, board: Board) -> Imagination | str:
    """An :class:`Imagination`, or in one line why there is none."""
    try:
        return Imagination(folder, board)
    except (UserError, ValueError, OSError) as error:
        return one_line(error)


__all__ = ["Imagination", "imagination"]
