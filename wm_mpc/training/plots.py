"""Training curves as pictures."""

from __future__ import annotations

from pathlib import Path


def draw_curves(path: Path, curve: list[list[float]], open_loop_rmse: list[float]) -> None:
    """Write a PNG: loss over optimiser steps, held-out open-loop error over model steps.

    Args:
        path: PNG file.
        curve: rows ``[optimiser step, loss]``.
        open_loop_rmse: root mean squared latent error after 1..K model steps.
    """
    try:
        import matplotlib
    except ImportError:
        print("training curves not drawn: matplotlib is missing (pip install 'wm-mpc[viz]')")
        return
    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.2), layout="constrained")
    left.plot([row[0] for row in curve], [row[1] for row in curve], lw=0.8)
    left.set(xlabel="optimiser step", ylabel="rollout loss", yscale="log")
    right.plot(range(1, len(open_loop_rmse) + 1), open_loop_rmse, "o-")
    right.set(xlabel="model steps ahead", ylabel="held-out latent RMSE", ylim=(0, None))
    figure.savefig(path, dpi=110)
    plt.close(figure)
