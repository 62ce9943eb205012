"""The window opens only where there is a display."""

from __future__ import annotations

import sys

import pytest

from wm_mpc.core.errors import UserError
from wm_mpc.trials.window import LiveView, has_display


@pytest.mark.skipif(sys.platform != "linux", reason="other systems always have a display")
def test_no_display_is_one_clear_error(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(name, raising=False)
    assert not has_display()
    with pytest.raises(UserError, match="window: no display"):
        LiveView("pusht")
    monkeypatch.setenv("DISPLAY", ":7")
    assert has_display()
