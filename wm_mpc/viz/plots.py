"""Training curves as pictures."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from wm_mpc.core.stats import wilson


def _pyplot(what: str) -> Any:
    """Return pyplot without a display; None, with a word about it, where it is not installed."""
    try:
        import matplotlib
    except ImportError:
        print(f"{what} not drawn: matplotlib is missing (pip install 'wm-mpc[viz]')")
        return None
    matplotlib.use("Agg")
    from matplotlib import pyplot

    return pyplot


def draw_curves(
    path: Path,
    curve: list[list[float]],
    open_loop_rmse: list[float],
    probes: list[list[float]] | None = None,
) -> None:
    """Write a PNG: loss over optimiser steps, held-out open-loop error over model steps.

    Args:
        path: PNG file.
        curve: rows ``[optimiser step, loss, ...]``.
        open_loop_rmse: root mean squared latent error after 1..K model steps.
        probes: rows ``[optimiser step, success]``, drawn over the loss; none where nothing was
            measured.
    """
    plt = _pyplot("training curves")
    if plt is None:
        return
    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.2), layout="constrained")
    left.plot([row[0] for row in curve], [row[1] for row in curve], lw=0.8)
    left.set(xlabel="optimiser step", ylabel="loss", yscale="log")
    if probes:
        success = left.twinx()
        success.plot([row[0] for row in probes], [row[1] for row in probes], "o-", color="C1")
        success.set(ylabel="success rate, selection goals", ylim=(0, 1.03))
    right.plot(range(1, len(open_loop_rmse) + 1), open_loop_rmse, "o-")
    right.set(xlabel="model steps ahead", ylabel="held-out latent RMSE", ylim=(0, None))
    figure.savefig(path, dpi=110)
    plt.close(figure)


def draw_finetuning(
    path: Path, curve: list[list[float]], probes: list[list[float]], start: float | None
) -> None:
    """Write a PNG: loss and closed-loop success over optimiser steps.

    Args:
        path: PNG file.
        curve: rows ``[optimiser step, loss, ...]``.
        probes: rows ``[optimiser step, success]``.
        start: success of the start model, or None.
    """
    plt = _pyplot("training curves")
    if plt is None:
        return
    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.2), layout="constrained")
    left.plot([row[0] for row in curve], [row[1] for row in curve], lw=0.8)
    left.set(xlabel="optimiser step", ylabel="loss", yscale="log")
    right.plot([row[0] for row in probes], [row[1] for row in probes], "o-", label="fine-tuned")
    if start is not None:
        right.axhline(start, ls="--", color="grey", label="start model")
        right.legend()
    right.set(xlabel="optimiser step", ylabel="success rate, selection goals", ylim=(0, 1.03))
    figure.savefig(path, dpi=110)
    plt.close(figure)


def draw_gap(path: Path, found: dict[str, Any]) -> None:
    """Write a PNG of what ``gap.measure_gap`` found: error per step, expert against planner."""
    plt = _pyplot("gap")
    if plt is None:
        return
    figure, axes = plt.subplots(figsize=(6, 4), layout="constrained")
    for i, model in enumerate(dict.fromkeys(row["model"] for row in found["errors"])):
        for where, style in (("expert", "--"), (f"planner of {model}", "-")):
            rows = [
                row for row in found["errors"]
                if (row["model"], row["trajectories"]) == (model, where)
            ]  # fmt: skip
            steps = [row["step"] for row in rows]
            label = f"{model}: {where.partition(' of ')[0]} trajectories"
            axes.plot(steps, [row["error"] for row in rows], style, color=f"C{i}", label=label)
            low, high = zip(*(row["error_ci95"] for row in rows), strict=True)
            axes.fill_between(steps, low, high, color=f"C{i}", alpha=0.15)
    axes.set(xlabel="model steps ahead", ylabel="latent RMSE", ylim=(0, None))
    axes.legend(fontsize=8)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=130)
    plt.close(figure)


def draw_landscape(path: Path, pictures: dict[str, dict[str, Any]]) -> None:
    """Write a PNG of what ``gap.landscape`` found: one panel per model, one scale for all."""
    plt = _pyplot("landscape")
    if plt is None:
        return
    figure, panels = plt.subplots(
        1, len(pictures), figsize=(4 * len(pictures), 3.6), squeeze=False, layout="constrained"
    )
    costs = [value for p in pictures.values() for row in p["cost"] for value in row]
    low, high = min(costs), max(costs)
    levels = [low + (high - low) * (i / 24) ** 2 for i in range(25)]
    for panel, (label, picture) in zip(panels[0], pictures.items(), strict=True):
        drawn = panel.contourf(picture["axis"], picture["axis"], picture["cost"], levels)
        panel.plot(0, 0, "r+")
        panel.set(title=label, xlabel="first direction", ylabel="second direction")
    figure.colorbar(drawn, ax=panels[0].tolist(), label="planning loss")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=130)
    plt.close(figure)


def draw_validation(path: Path, facts: dict[str, Any]) -> None:
    """Write a PNG of a validation: latent over true distance per quantity, open-loop error.

    Args:
        path: PNG file.
        facts: what ``validation.validate`` returned.
    """
    plt = _pyplot("validation")
    if plt is None:
        return
    ranked = [row for row in facts["rank_correlation"] if row.get("curve", {}).get("true")]
    count = len(ranked) + 1
    figure, axes = plt.subplots(1, count, figsize=(3.6 * count, 3.2), layout="constrained")
    panels = [axes] if count == 1 else list(axes)
    for panel, row in zip(panels, ranked, strict=False):
        curve = row["curve"]
        panel.plot(curve["true"], curve["q50"], "o-", ms=3)
        panel.fill_between(curve["true"], curve["q25"], curve["q75"], alpha=0.25)
        panel.set(
            title=f"rank correlation {row['visual']:.2f}", ylim=(0, None),
            xlabel=f"true distance, {row['quantity']} [{row['unit']}]",
            ylabel="visual latent distance (quartiles)",
        )  # fmt: skip
    loop = facts["open_loop"]
    for kind, colour in (("visual", "C0"), ("proprio", "C1")):
        if loop[f"{kind}_rmse"] is not None:
            panels[-1].plot(loop["steps"], loop[f"{kind}_rmse"], "o-", color=colour, label=kind)
            still = loop[f"still_{kind}_rmse"]
            panels[-1].plot(loop["steps"], still, "--", color=colour, label=f"{kind}, no change")
    panels[-1].set(xlabel="model steps ahead", ylabel="latent RMSE, open loop", ylim=(0, None))
    panels[-1].legend(fontsize=7)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def draw_live(path: Path, row: dict[str, Any]) -> None:
    """Write a PNG of a live run: success of the last ``n`` episodes over episodes.

    Args:
        path: PNG file.
        row: of the report of ``wm-mpc live``; changes of the model are marked where it has them.
    """
    plt = _pyplot("live run")
    if plt is None:
        return
    n, success = row["n"], row["success_by_episode"]
    ends = list(range(n, len(success) + 1))
    counts = [sum(success[end - n : end]) for end in ends]
    low, high = zip(*(wilson(count, n) for count in counts), strict=True)
    figure, axes = plt.subplots(figsize=(7, 3.2), layout="constrained")
    for i, change in enumerate(row.get("changes", ())):
        label = None if i else "model changed"
        axes.axvline(change["episode"], color="grey", lw=0.6, alpha=0.5, label=label)
    axes.plot(ends, [count / n for count in counts], label=f"last {n} episodes")
    axes.fill_between(ends, low, high, alpha=0.2, label="95 % interval")
    axes.set(
        xlabel="episodes since the start", ylabel="success rate", xlim=(0, None), ylim=(0, 1.03)
    )
    axes.legend(fontsize=8, loc="lower right")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def plot_curve(rows: list[dict[str, Any]], path: Path) -> None:
    """Success over the share of CEM's time really used, one panel per task."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    tasks = list(dict.fromkeys(r["task"] for r in rows))
    size = (4.5 * len(tasks), 3.5)
    figure, axes = plt.subplots(1, len(tasks), figsize=size, squeeze=False, sharey=True)
    for axis, task in zip(axes[0], tasks, strict=True):
        for planner in dict.fromkeys(r["planner"] for r in rows):
            line = [r for r in rows if (r["task"], r["planner"]) == (task, planner)]
            shares = [100 * r["cem_ratio_wall"] for r in line]
            rates = [100 * r["success_rate"] for r in line]
            low = [100 * (r["success_rate"] - r["success_ci95"][0]) for r in line]
            high = [100 * (r["success_ci95"][1] - r["success_rate"]) for r in line]
            axis.errorbar(shares, rates, (low, high), marker="o", capsize=2, label=planner)
        label = "planning time, % of CEM 300 x 30"
        axis.set(xscale="log", title=task, xlabel=label, ylim=(0, 100))
        axis.grid(alpha=0.3)
    axes[0][0].set_ylabel("success, % (95 % interval)")
    axes[0][-1].legend(fontsize=8)
    figure.tight_layout()
    figure.savefig(path, dpi=120)
    plt.close(figure)


def plot_latency(
    rows: list[dict[str, Any]], path: Path, way: dict[str, Any] | None = None
) -> None:
    """Median time of a tick's parts, one stacked bar per row of the latency report.

    Args:
        rows: of the report.
        path: PNG file.
        way: gate and wire behind every tick (``gate_ms``, ``wire_ms``); None: not measured.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    names = [f"{r['model']} {r['planner']} x{r['starts']}\n{r['kernel']}" for r in rows]
    figure, axis = plt.subplots(figsize=(7, 1 + 0.5 * len(rows)))
    left = [0.0] * len(rows)
    for part in ("decode", "encode", "plan", "filter"):
        widths = [r["parts"][part]["p50"] for r in rows]
        axis.barh(names, widths, left=left, label=part)
        left = [a + b for a, b in zip(left, widths, strict=True)]
    for part in ("gate", "wire") if way else ():
        width = way[f"{part}_ms"]["p50"]
        axis.barh(names, width, left=left, label=part, hatch="///", alpha=0.7)
        left = [a + width for a in left]
    tails = [r["parts"]["tick"]["p99"] for r in rows]
    axis.plot(tails, names, "k|", markersize=12, label="p99 of the tick")
    axis.set_xlabel("ms")
    axis.invert_yaxis()
    axis.tick_params(labelsize=7)
    axis.legend(fontsize=8)
    figure.tight_layout()
    figure.savefig(path, dpi=120)
    plt.close(figure)
