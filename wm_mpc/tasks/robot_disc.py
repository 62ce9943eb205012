"""The robot as a disc in the picture: where it hides the object."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import numpy as np
from annotated_types import Gt, Lt

from wm_mpc.core.fields import Checked
from wm_mpc.core.opencv import cv2


@dataclass(frozen=True)
class RobotDisc(Checked):
    """Where a round robot appears in the picture.

    The centre is offset + scale * proprioception, in fractions of the image side.

    Attributes:
        x_index, y_index: entries of the raw proprioception that move the robot along the picture's
            x and y.
        x_scale, x_offset, y_scale, y_offset: affine map to fractions of the image side.
        radius: radius as a fraction of the image side, > 0.
    """

    x_index: int
    y_index: int
    x_scale: float
    x_offset: float
    y_scale: float
    y_offset: float
    radius: Annotated[float, Gt(0), Lt(1)]

    def centre(self, proprio: np.ndarray, size: int) -> np.ndarray:
        """Centre [px] in a picture of side ``size``, ``(2,)``."""
        x = self.x_offset + self.x_scale * proprio[self.x_index]
        y = self.y_offset + self.y_scale * proprio[self.y_index]
        return np.array([x * size, y * size])

    def mask(self, proprio: np.ndarray, size: int, grow: float = 0.0) -> np.ndarray:
        """Pixels the robot covers, bool ``(size, size)``; ``grow`` [px] widens the disc."""
        mask = np.zeros((size, size), np.uint8)
        x, y = np.round(self.centre(proprio, size) * 16).astype(int)
        cv2.circle(mask, (int(x), int(y)), round((self.radius * size + grow) * 16), 1, -1, shift=4)
        return mask > 0
