"""``wm-mpc eval``: closed-loop success in the true simulator, with intervals."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from wm_mpc.cli.measuring import Measuring, settings_of
from wm_mpc.core.fields import NonNegativeFloat
from wm_mpc.core.provenance import write_report
from wm_mpc.evaluation.pages import eval_page
from wm_mpc.evaluation.rows import format_row
from wm_mpc.evaluation.settings import EvalSettings
from wm_mpc.viz.report_page import write_page


@dataclass(frozen=True)
class Config(Measuring, EvalSettings):
    """Evaluate one planner on one task in the true simulator.

    Attributes:
        task: a task's name, module:TASK, or a gymnasium id.
        planner: cem, mppi, gd, adam, ilqr, grasp, latco, hybrid, or a baseline: none, random,
            replay.
        budget_fraction: planning time per tick as a share of the CEM reference's; 0: no deadline.
            Unset: 0.1, and no deadline for cem, which is the reference itself.
    """

    task: str = "pusht"
    planner: str = "adam"
    budget_fraction: NonNegativeFloat | None = field(default=None, kw_only=True)

    @property
    def settings(self) -> EvalSettings:
        """What is measured."""
        fraction = self.budget_fraction
        if fraction is None:
            fraction = 0.0 if self.planner == "cem" else 0.1
        spec = EvalSettings(**(settings_of(self) | {"budget_fraction": fraction}))
        return spec if spec.plans else replace(spec, budget_fraction=0.0, options=())


def run(config: Config) -> int:
    """Evaluate, print the row, write report and page; the exit code."""
    config.use_threads()
    spec, model, reference = config.settings, None, None
    if spec.plans:
        model, reference = config.prepare(spec.task, spec)
    found = config.measure(spec, model, reference)
    print(format_row(found.row))
    if config.report is not None:
        facts = None if reference is None else reference.as_dict()
        write_report(config.report, config.seed, [found.row], cem_reference=facts)
        write_page(config.report, lambda: eval_page(found))
    return 0
