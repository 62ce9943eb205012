"""``mpc_node``: camera image in, robot command out.

A lifecycle node. *configure* loads the model, measures the CEM reference and warms everything up;
*activate* opens the topics and starts the control thread; *deactivate* brings the robot to rest
and closes them; *cleanup* frees the model; *shutdown* does both for good. The executor's thread
receives messages, the control thread thinks; a mailbox lies between them.
"""

from __future__ import annotations

import gc
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rclpy.callback_groups import ReentrantCallbackGroup
from rclpy.lifecycle import LifecycleNode, LifecycleState, TransitionCallbackReturn

from wm_mpc.control.controller import Controller
from wm_mpc.control.engine import Engine
from wm_mpc.control.gate import EmergencyStop
from wm_mpc.control.guard import UpdateGuard
from wm_mpc.control.observation import Goal
from wm_mpc.control.safety import CommandFilter
from wm_mpc.control.stamps import StampWatch
from wm_mpc.control.tick import State
from wm_mpc.core import opencv
from wm_mpc.core.clock import monotonic
from wm_mpc.core.errors import UserError, one_line
from wm_mpc.core.files import user_path
from wm_mpc.core.pauses import Gaps, no_pause
from wm_mpc.core.scheduling import PausedCollector, check_fifo, use_cores
from wm_mpc.data.decoding import image_to_rgb
from wm_mpc.models.world_model import WorldModel, names_encoder
from wm_mpc.nodes.common import qos
from wm_mpc.nodes.common.background import Bell, in_background
from wm_mpc.nodes.common.messages import CommandFormat
from wm_mpc.nodes.common.spin import run_node
from wm_mpc.nodes.mpc.config import MpcNodeConfig
from wm_mpc.nodes.mpc.inputs import Inputs
from wm_mpc.nodes.mpc.loop import REST_TICKS, ControlLoop
from wm_mpc.nodes.mpc.mailbox import Mailbox
from wm_mpc.nodes.mpc.outputs import Outputs
from wm_mpc.nodes.mpc.reach_goal import ReachGoalServer
from wm_mpc.nodes.mpc.settings import Settings
from wm_mpc.nodes.mpc.telemetry import Complaints
from wm_mpc.nodes.mpc.tuner import Tuner
from wm_mpc.srv import LoadModel, SetGoal

_OVER = "mpc_node: shut down; start it again"


class MpcNode(LifecycleNode):
    """See the module. Parameters are those of the configuration dataclasses read here."""

    def __init__(self) -> None:
        super().__init__("mpc_node", automatically_declare_parameters_from_overrides=True)
        self._bell, self._gaps = Bell(self), Gaps()
        self._loading = ""
        self._tuner = Tuner(self, self._bell, self._gaps, lambda: not self._loading)

        self._generation = 0
        self._fault = ""
        self._starts_when_loaded = self._start_failed = self._over = False
        self._complain = Complaints(self.get_logger().error)
        self._stop = EmergencyStop(0.0, monotonic)
        self._gate_stop = EmergencyStop(0.0, monotonic)
        self._latched = False
        self._goals_since_ns = 0
        self._prepared: Engine | None = None
        self._controller: Controller | None = None
        self._filter: CommandFilter | None = None
        self._loop: ControlLoop | None = None
        self._abandoned: ControlLoop | None = None

        self._outputs = Outputs(self, self._bell, self.settings.limits.dry_run)
        qos.hear_every(self, "e_stop", partial(self._on_e_stop, self._stop, "e_stop"))
        # A button that does not repeat itself is not heard by a node that starts later; the gate
        # remembers it, and waits, once it is let go, for a controller that rests.
        state = "e_stop_state"
        qos.hear_every(self, state, partial(self._on_e_stop, self._gate_stop, state))
        # One model is loaded at a time; who asks meanwhile is told so at once.
        many = ReentrantCallbackGroup()
        self.create_service(
            LoadModel, "load_model", self._on_load_model, qos_profile=qos.MANY_CALLS,
            callback_group=many,
        )  # fmt: skip
        self.create_service(
            SetGoal, "set_goal", self._on_set_goal, qos_profile=qos.MANY_CALLS
        )
        self._reach_goal = ReachGoalServer(self, self, self._outputs, self._bell)
        self.create_timer(1.0, self._on_second)

    @property
    def settings(self) -> Settings:
        """Parameters as they are now."""
        return self._tuner.settings

    @property
    def config(self) -> MpcNodeConfig:
        """What the node reads and writes."""
        return self.settings.node

    @property
    def planner_options(self) -> Any:
        """Configuration of the planner."""
        return self.settings.options

    # ---- life ----------------------------------------------------------------------------------

    def start(self) -> None:
        """Configure and activate, where the parameters say so."""
        if not self.config.autostart:
            return
        # Until the node is configured for the first time, by this or by anybody, a better model
        # may still start it. After that it is up to whoever takes it down to bring it up again.
        self._starts_when_loaded = True
        succeeded = TransitionCallbackReturn.SUCCESS
        if self.trigger_configure() != succeeded or self.trigger_activate() != succeeded:
            self._start_failed = self.config.exit_on_failed_start

    def stop(self) -> None:
        """Come to rest and free the model."""
        if self._loop is not None:
            self.trigger_deactivate()
        self._reach_goal.destroy()

    def come_to_rest(self) -> None:
        """Say rest from any thread, where ``stop`` cannot run."""
        loop = self._loop
        if loop is not None:
            loop.stop(0.5)
            self._outputs.flush()

    @property
    def failed(self) -> bool:
        """Whether the control thread died, or the node could not start and shall not wait.

        Then the process ends, for its supervisor to see.
        """
        loop = self._loop
        return self._start_failed or loop is not None and bool(loop.heartbeat.died)

    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Load, measure, warm up."""
        torch.set_num_threads(self.config.threads)
        opencv.available()  # a compressed picture must not import it in the first tick
        # One that the node cannot be configured with is not tried a second time.
        prepared, self._prepared = self._prepared, None
        try:
            use_cores(self.config.cores)
            check_fifo(self.config.fifo_priority)
            engine = prepared or self._build(self.config.model_path)
            interface, period = engine.model.config, self.settings.engine.period_s
            command_format = CommandFormat(
                self.config.command_type,
                self.config.command_names,
                interface.action_dim,
                period,
            )
            self._filter = CommandFilter(
                self.settings.limits, interface.action_low, interface.action_high, period
            )
            if self._latched:  # cleaning up and configuring anew let go of no e-stop
                self._filter.e_stop(True)
                self._filter.e_stop(self._pressed)
            self._controller = Controller(engine, self.settings.controller, self.settings.limits)
            self._guard = UpdateGuard(self.settings.guard, period)
        except Exception as error:  # a node that cannot work says why and waits for better
            return self._refuse("configure", error)
        self._fault, self._starts_when_loaded = "", False
        self._mailbox, self._stamps = Mailbox(interface.proprio_dim > 0), StampWatch()
        self._inputs = Inputs(
            self, self.config, self._controller, self._mailbox, self._stamps, self.set_goal,
            self._complain,
        )  # fmt: skip
        self._outputs.open(command_format)
        self._present(engine)
        self._tuner.attach(self._controller, self._filter)
        # What lives now lives long: keep the collector from walking it in the middle of a tick.
        gc.collect()
        gc.freeze()
        return super().on_configure(state)

    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Open the topics and start to tick."""
        try:
            self.settings.limits.require_for_hardware()
            if self._abandoned is not None and self._abandoned.hangs:
                raise UserError("planner: hung since the last activation; restart mpc_node")
        except ValueError as error:
            return self._refuse("activate", error)
        self._fault = ""
        self._outputs.begin()
        if self._pressed:
            self._filter.e_stop(True)
        self._inputs.goals_since_ns = self._goals_since_ns
        self._inputs.open()
        self._loop = ControlLoop(
            self._controller,
            self._filter,
            self._mailbox,
            self._outputs.tick,
            self.seconds,
            self.config.max_proprio_offset_s,
            self.get_parameter("use_sim_time").value,
            self._complain,
            guard=self._guard,
            gaps=self._gaps,
            stamps=self._stamps,
            afterwards=self._outputs.afterwards,
            collector=PausedCollector(),
            fifo_priority=self.config.fifo_priority,
            nice=self.config.nice,
        )
        answer = super().on_activate(state)
        self._loop.start()
        return answer

    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Come to rest, then close the topics."""
        self._rest()
        return super().on_deactivate(state)

    def on_cleanup(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Free the model; the node stays down until somebody configures it."""
        answer = super().on_cleanup(state)
        self._free()
        return answer

    def on_shutdown(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Come to rest and free the model, for good."""
        self._starts_when_loaded, self._over = False, True
        if self._loop is not None:
            self._rest()
        answer = super().on_shutdown(state)
        if self._controller is not None:
            self._free()
        return answer

    def _rest(self) -> None:
        loop, self._loop = self._loop, None
        loop.stop()
        self._abandoned = loop
        self._outputs.flush()
        self._inputs.close()
        self._controller.clear_goal()
        self._bell.ring()

    def _free(self) -> None:
        self._latched = self._filter.e_stopped
        self._controller = self._filter = None
        self._tuner.detach()
        self._outputs.close()
        gc.unfreeze()

    def _refuse(self, step: str, error: Exception) -> TransitionCallbackReturn:
        self._fault = one_line(error)
        self.get_logger().error(f"{step}: {self._fault}")
        self._on_second()
        return TransitionCallbackReturn.FAILURE

    # ---- models --------------------------------------------------------------------------------

    def _build(self, path: Path) -> Engine:
        """Load a model and prepare everything for it; takes seconds; any thread.

        What the running engine has already is used again: an update then costs milliseconds, and
        beside a running loop they are spent in its pauses.

        Raises:
            UserError: it cannot be used, or predicts worse than the running model.
        """
        if self._over:
            raise UserError(_OVER)
        running = self._controller.engine if self._controller else None
        pause = self._gaps.wait if self._loop is not None else None
        rest = pause or no_pause
        rest()
        encoder = None
        if running is not None and names_encoder(path, running.model.encoder):
            encoder = running.model.encoder
        model = WorldModel.load(path, encoder, device=self.config.device)
        reference = running.reference if running and running.same_shape(model) else None
        engine = Engine.build(
            model, self.settings.engine, self.settings.objective, self.settings.options, reference,
            warm_encoder=encoder is None, pause=pause,
        )  # fmt: skip
        rest()
        reason = self._guard.refuses(engine) if running is not None else ""
        if reason:
            raise UserError(reason)
        self._generation += 1
        engine.generation = self._generation
        return engine

    def _present(self, engine: Engine) -> None:
        self.get_logger().info(
            f"model {engine.model.hash} (generation {engine.generation}), planner "
            f"{engine.planner.name}: CEM reference {engine.reference.seconds * 1e3:.1f} ms, "
            f"budget {engine.budget.seconds * 1e3:.1f} ms per tick"
        )

    async def _on_load_model(
        self, request: LoadModel.Request, response: LoadModel.Response
    ) -> LoadModel.Response:
        while self._tuner.busy:  # soon done
            await self._bell.next()
        if self._loading:
            response.message = f"load_model: busy with {self._loading}; call again later"
            return self._active_model(response)
        self._loading = request.path or str(self.config.model_path)
        try:
            path = user_path(request.path) if request.path else self.config.model_path
            with self._gaps.work():
                engine = await in_background(self._bell, lambda: self._build(path))
                remains = self._take_over(engine)
            response.success = True
            response.message = f"model {engine.model.hash} from {path}{remains}"
        except Exception as error:  # the running model stays, whatever was wrong with the new one
            response.message = one_line(error)
            self.get_logger().error(f"load_model: {response.message}")
        finally:
            self._loading = ""
        self._tuner.tune()
        return self._active_model(response, engine if response.success else None)

    def _active_model(
        self, response: LoadModel.Response, new: Engine | None = None
    ) -> LoadModel.Response:
        """Answer that names the model in use from now on, if there is one."""
        if self._controller is not None:
            active = new or self._controller.engine
            response.model_hash, response.generation = active.model.hash, active.generation
        return response

    def _take_over(self, engine: Engine) -> str:
        """Use an engine: at once where the loop runs, else from the next activation on.

        A node that somebody took down, or never brought up, stays down: whoever offers a model
        cannot know whether the robot may move. Only a start-up that failed goes on with it.

        Returns:
            What is left to do before it drives; empty: nothing.

        Raises:
            UserError: start-up fails with this model too.
            ValueError: the model was trained for another robot.
        """
        if self._over:  # it was shut down while the engine was built
            raise UserError(_OVER)
        if self._controller is not None:
            self._controller.swap_model(engine)
            self._present(engine)
        else:
            self._prepared = engine
            if self._starts_when_loaded:
                self.start()
                if self._controller is None:
                    raise UserError(self._fault)
        if self._loop is not None:
            return ""
        steps = "activate" if self._controller is not None else "configure and activate"
        return f": prepared; {steps} mpc_node to use it"

    # ---- goals and the e-stop, in the executor's thread -----------------------------------------

    def _on_set_goal(
        self, request: SetGoal.Request, response: SetGoal.Response
    ) -> SetGoal.Response:
        try:
            proprio = np.array(request.proprio) if request.proprio else None
            image = image_to_rgb(request.goal_image, "goal_image")
            self.set_goal(image, proprio, request.tolerance)
            response.success = True
        except UserError as error:
            response.message = str(error)
        return response

    @property
    def _pressed(self) -> bool:
        """Whether a button, or the gate, says so."""
        return self._stop.pressed or self._gate_stop.pressed

    def _on_e_stop(
        self, stop: EmergencyStop, topic: str, engaged: bool, sender: bytes, sent: int
    ) -> None:
        """Stop at once; letting go only allows a goal that is sent after it."""
        before = self._pressed
        present = None if engaged else qos.publishers_of(self, topic)
        stop.hear(engaged, sender, sent, present)
        pressed = self._pressed
        if pressed == before:
            return
        if not pressed:
            # By the sender's clock, as are goals: what is sent right after it counts.
            self._goals_since_ns = sent or time.time_ns()
        if self._filter is not None:
            self._filter.e_stop(pressed)
        if self._loop is not None:
            self._inputs.goals_since_ns = self._goals_since_ns
            self._loop.halt()

    # ---- goals: the driver of ``reach_goal`` ---------------------------------------------------

    def set_goal(self, image: np.ndarray, proprio: np.ndarray | None, tolerance: float) -> Goal:
        """Pursue a goal; a new goal also releases an e-stop that was let go.

        Raises:
            UserError: not active, e-stop engaged, or a picture or number that cannot be used.
        """
        if self._loop is None:
            raise UserError("controller: not active; configure and activate mpc_node first")
        try:
            goal = self._controller.check_goal(image, proprio, tolerance)
        except ValueError as error:
            raise UserError(str(error)) from None
        stood = self._filter.e_stopped
        if not self._filter.reset():
            raise UserError("e_stop: engaged; send false first")
        if stood:
            self._loop.rest_first = REST_TICKS
        self._controller.pursue(goal)
        return goal

    def current_goal(self) -> Goal | None:
        """Goal pursued now; None when idle or not active."""
        return self._controller.goal if self._loop is not None else None

    def clear_goal(self) -> None:
        """Become idle."""
        if self._controller is not None:
            self._controller.clear_goal()

    def seconds(self) -> float:
        """Node clock [s]."""
        return self.get_clock().now().nanoseconds * 1e-9

    def _on_second(self) -> None:
        """Diagnostics, and a status where no tick publishes one."""
        if self._loop is None:
            state, reason = State.UNCONFIGURED, "inactive: configure and activate"
            if self._over:
                reason = _OVER
            elif self._fault:
                state, reason = State.FAULT, self._fault
            elif self._controller is not None:
                state, reason = State.IDLE, "inactive: activate"
            self._outputs.idle(state, reason)
        self._outputs.diagnose()
        self._tuner.tune()
        self._tuner.remeasure()


def main(args: list[str] | None = None) -> int:
    """Run the node; exit code 0 after SIGINT or SIGTERM, 2 for unusable parameters."""
    return run_node(MpcNode, args)


if __name__ == "__main__":
    sys.exit(main())
