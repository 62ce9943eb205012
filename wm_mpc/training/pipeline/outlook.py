"""What a training run is going to do, and how long at most, told before it begins."""

from __future__ import annotations

from wm_mpc.training.pipeline.config import WorldModelTraining


def outlook(config: WorldModelTraining, episodes: int) -> str:
    """One line: the stages in order, and the time that limits bound.

    Args:
        config: of the run.
        episodes: of the store.
    """
    stages: list[tuple[str, int, float]] = []
    if config.layout == "patch":
        stages.append(("reader", config.reader_steps, 0.0))
        stages.append(("dynamics", config.patch.steps, config.patch.max_seconds))
    else:
        if config.latents_from is None:
            marks = config.projector == "landmarks"
            stages.append(("landmarks", config.landmarks.steps if marks else 0, 0.0))
            stages.append(("reader", config.reader_steps, 0.0))
        stages.append(("projector", config.joint.steps, config.joint.max_seconds))
        stages.append(("dynamics", config.dynamics.steps, config.dynamics.max_seconds))
    stages.append(("decoder", config.decoder.steps, 0.0))
    told = [f"encode {episodes} episodes"]
    for name, steps, seconds in stages:
        if steps:
            bound = f" or {minutes(seconds)}" if seconds else ""
            told.append(f"{name} {steps} steps{bound}")
    if config.validation.frames:
        told.append("validate")
    limit = sum(seconds for _, _, seconds in stages)
    ends = f"; the limits of time make {minutes(limit)} at most" if limit else ""
    return (
        f"{config.task}: {len(told)} stages: {', '.join(told)}{ends}. Bars tell what is left of a "
        "stage; finished stages are taken up again"
    )


def minutes(seconds: float) -> str:
    """Time for people."""
    return f"{seconds:g} s" if seconds < 120 else f"{seconds / 60:.3g} min"


__all__ = ["outlook"]
