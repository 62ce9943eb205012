"""Markers of a plan: path, places, words, and a chart of the actions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from builtin_interfaces.msg import Duration, Time
from geometry_msgs.msg import Point
from std_msgs.msg import ColorRGBA
from visualization_msgs.msg import Marker, MarkerArray

from wm_mpc.viz.plan_picture import COLOURS
from wm_mpc.viz.scene import GOAL, PLAN

LIFETIME_S = 1
"""[s] after which a marker goes by itself, so that nothing old is shown."""


class Shapes:
    """Collects the markers of one message.

    Args:
        frame_id: of all of them.
        stamp: when the plan begins.
        size_m: [m] side of what is drawn; widths follow it.
    """

    def __init__(self, frame_id: str, stamp: Time, size_m: float) -> None:
        self.array = MarkerArray()
        self._frame, self._stamp, self._size = frame_id, stamp, size_m

    def path(self, points: np.ndarray) -> None:
        """The chosen plan's path ``(n, 3)`` [m], with a dot per step."""
        self._add("plan", Marker.LINE_STRIP, points, PLAN, 0.008)
        self._add("steps", Marker.SPHERE_LIST, points[1:], PLAN, 0.02)

    def others(self, paths: Sequence[np.ndarray]) -> None:
        """Paths of candidates, thin."""
        if len(paths):
            self._add("candidates", Marker.LINE_LIST, _pairs(paths), PLAN, 0.003, 0.35)

    def robot(self, point: np.ndarray) -> None:
        """Where the robot is."""
        self._add("robot", Marker.SPHERE_LIST, point[None], COLOURS[0], 0.04)

    def goal(self, point: np.ndarray) -> None:
        """Where the goal has it."""
        self._add("goal", Marker.SPHERE_LIST, point[None], GOAL, 0.05, 0.7)

    def chart(self, actions: np.ndarray) -> None:
        """Actions ``(T, action_dim)`` as curves in the x-y plane, of the chart's size at most."""
        scale = np.abs(actions[np.isfinite(actions)]).max(initial=0.0) or 1.0
        x = np.linspace(0, self._size, len(actions))
        for j, values in enumerate(actions.T):
            y = self._size * (0.5 + 0.5 * values / scale)
            points = np.stack([x, y, np.zeros_like(x)], 1)[np.isfinite(values)]
            colour = COLOURS[j % len(COLOURS)]
            self._add("actions", Marker.LINE_STRIP, points, colour, 0.008, number=j)

    def words(self, text: str, place: np.ndarray) -> None:
        """Words that face whoever looks."""
        grey, nowhere = (230, 230, 230), np.zeros((0, 3))
        marker = self._add("state", Marker.TEXT_VIEW_FACING, nowhere, grey, 0.05)
        marker.text = text
        marker.pose.position = _point(place)

    def _add(
        self,
        space: str,
        kind: int,
        points: np.ndarray,
        colour: Any,
        width: float,
        alpha: float = 1.0,
        number: int = 0,
    ) -> Marker:
        marker = Marker(ns=space, id=number, type=kind, action=Marker.ADD)
        marker.header.frame_id, marker.header.stamp = self._frame, self._stamp
        marker.pose.orientation.w = 1.0
        thick = width * self._size
        marker.scale.x = marker.scale.y = marker.scale.z = thick
        red, green, blue = (part / 255 for part in colour)
        marker.color = ColorRGBA(r=red, g=green, b=blue, a=alpha)
        marker.lifetime = Duration(sec=LIFETIME_S)
        marker.points = [_point(point) for point in points]
        self.array.markers.append(marker)
        return marker


def _pairs(paths: Sequence[np.ndarray]) -> np.ndarray:
    """Line segments of several paths, two points each."""
    return np.concatenate([np.repeat(path, 2, axis=0)[1:-1] for path in paths])


def _point(values: np.ndarray) -> Point:
    x, y, z = (float(value) for value in values)
    return Point(x=x, y=y, z=z)


__all__ = ["Shapes"]
