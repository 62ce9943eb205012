"""Questions to the simulator: what would the present plan really do?"""

from __future__ import annotations

from collections.abc import Callable

from rclpy.client import Client

from wm_mpc.core.clock import Clock, monotonic
from wm_mpc.msg import Plan as PlanMessage
from wm_mpc.nodes.trainer.pending_call import PendingCall
from wm_mpc.srv import Rollout

PATIENCE_S = 10.0
"""[s] A rollout takes well below a second; a simulator silent for this long has lost it."""


class Rollouts:
    """One question at a time; what really happens comes as a ``corrected_trajectory``.

    Args:
        client: of ``rollout``.
        frameskip: control steps between two pictures.
        complain: told why there was no good answer, one line.
        clock: monotonic clock.
    """

    def __init__(
        self,
        client: Client,
        frameskip: int,
        complain: Callable[[str], object],
        clock: Clock = monotonic,
    ) -> None:
        self._client, self._frameskip = client, frameskip
        self._complain, self._clock = complain, clock
        self._plan: PlanMessage | None = None
        self._asked: PendingCall | None = None

    def heard(self, plan: PlanMessage) -> None:
        """Note the newest plan."""
        self._plan = plan

    def ask(self) -> None:
        """Take in the last answer, and ask about a plan that came since."""
        if self._asked is not None and not self._settled(self._asked):
            return
        self._asked = None
        plan, self._plan = self._plan, None
        if plan is None or not self._client.service_is_ready():
            return
        request = Rollout.Request(
            actions=[float(value) for value in plan.actions],
            action_dim=plan.action_dim,
            frame_stride=self._frameskip,
        )
        self._asked = PendingCall(self._client, request, PATIENCE_S, self._clock)

    def _settled(self, asked: PendingCall) -> bool:
        """Whether nothing more is to be expected of a question."""
        if asked.overdue:
            asked.give_up()
            self._complain(f"no answer within {PATIENCE_S:g} s; asked again")
            return True
        answer = asked.answer
        if answer is not None and not answer.success:
            self._complain(answer.message)
        return asked.done


__all__ = ["Rollouts"]
