"""Parameters of ``view``."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from typing import Annotated

from annotated_types import Ge, Le

from wm_mpc.core.fields import Checked


@dataclass(frozen=True)
class ViewConfig(Checked):
    """Where the page is served and what it shows.

    Attributes:
        host: address that the page listens on; anything but loopback needs the token that is
            printed at start.
        port: TCP port; 0: any free one, which is printed.
        token: word that opens the page from elsewhere; empty: drawn at start.
        rate_hz: [1/s] most updates that one browser is sent.
        jpeg_quality: of the pictures, in percent.
        controller: name of the node that is watched and told to pause or to change parameters.
        model: folder with the decoder that draws imagined latents; empty: the bundled model of
            ``task``, and no such pictures where it has none.
        task: task of the bundled model; empty: a robot.
        keep_s: [s] of camera pictures that can be picked as a goal.
        goals_from: rosbag2 whose pictures can be picked as goals too; empty: none.
        goals_topic: its camera topic, by full name or ending.
        nice: niceness of the process, 0 (as others) to 19 (only when nobody else): looking waits
            for the control loop.
    """

    host: str = "127.0.0.1"
    port: Annotated[int, Ge(0), Le(65535)] = 8765
    token: str = ""
    rate_hz: Annotated[float, Ge(0.5), Le(60.0)] = 20.0
    jpeg_quality: Annotated[int, Ge(10), Le(100)] = 85
    controller: str = "mpc_node"
    model: str = ""
    task: str = ""
    keep_s: Annotated[float, Ge(1.0), Le(600.0)] = 60.0
    goals_from: str = ""
    goals_topic: str = "image"
    nice: Annotated[int, Ge(0), Le(19)] = 10

    def __post_init__(self) -> None:
        super().__post_init__()
        try:
            ipaddress.ip_address(self.host)
        except ValueError:
            raise ValueError(
                f"host: {self.host!r}; an address such as 127.0.0.1 or 0.0.0.0 expected"
            ) from None

    @property
    def loopback(self) -> bool:
        """Whether only this machine can reach the page."""
        return ipaddress.ip_address(self.host).is_loopback


__all__ = ["ViewConfig"]
