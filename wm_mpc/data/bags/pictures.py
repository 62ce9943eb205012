"""Pictures of recordings, fitted to the size that a store keeps."""

from __future__ import annotations

import numpy as np

from wm_mpc.core.opencv import cv2


def fit_picture(picture: np.ndarray, size: tuple[int, int], crop: bool) -> np.ndarray:
    """Scale a picture to ``size`` (height, width); pictures of that size stay as they are."""
    height, width = picture.shape[:2]
    if (height, width) == tuple(size):
        return picture
    if crop:
        rows = min(height, round(width * size[0] / size[1]))
        columns = min(width, round(height * size[1] / size[0]))
        top, left = (height - rows) // 2, (width - columns) // 2
        picture = picture[top : top + rows, left : left + columns]
    shrinks = picture.shape[0] > size[0]
    how = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    return cv2.resize(np.ascontiguousarray(picture), (size[1], size[0]), interpolation=how)
