"""OpenCV, imported when it is first used: plain pictures need none of it."""

from __future__ import annotations

import importlib
from typing import Any

from wm_mpc.core.errors import UserError


class _OpenCV:
    """Stands for the module ``cv2``."""

    def __getattr__(self, name: str) -> Any:
        try:
            module = importlib.import_module("cv2")
        except ImportError as error:
            raise UserError(
                f"opencv: {error}; needed for compressed, YUV and Bayer pictures and for drawing; "
                "apt install python3-opencv, or pip install 'wm-mpc[vision]'"
            ) from None
        return getattr(module, name)


cv2 = _OpenCV()


def available() -> bool:
    """Import it now, where it is installed; whether it is."""
    try:
        return bool(cv2.__version__)
    except UserError:
        return False


__all__ = ["available", "cv2"]
