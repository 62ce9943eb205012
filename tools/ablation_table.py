"""Print the table of tools/ablation.sh from its reports.

python tools/ablation_table.py [RESULTS]

Reads ``ablation_NAME.WEIGHT.json`` (wm-mpc eval); WEIGHT is that of proprioception in the goal
cost.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

ROWS = {
    "patch": "patch tokens as they are, ViT",
    "projector": "projector trained jointly, no straightening",
    "straightened": "the same with straightening",
    "no_inverse": "with straightening, without inverse dynamics",
    "no_guard": "with straightening, without variance and covariance guards",
    "teacher_forced": "with straightening, dynamics by teacher forcing instead of 3-step rollouts",
    "landmarks": "landmarks",
}
WEIGHTS = {"0.3": "with proprioception", "0": "without"}


def table(results: Path) -> list[str]:
    """A row per latent: success with and without proprioception in the goal cost."""
    lines = [
        "| latent | " + " | ".join(f"success, {words}" for words in WEIGHTS.values()) + " | "
        "final error, median |",
        "|---" * (len(WEIGHTS) + 2) + "|",
    ]
    for name, words in ROWS.items():
        cells, errors = [], []
        for weight in WEIGHTS:
            path = results / f"ablation_{name}.{weight}.json"
            if not path.is_file():
                cells.append("-")
                continue
            row = json.loads(path.read_text())["results"][0]
            low, high = (100 * bound for bound in row["success_ci95"])
            cells.append(
                f"{row['successes']}/{row['n']} = {100 * row['success_rate']:.0f} % "
                f"[{low:.0f}, {high:.0f}]"
            )
            errors.append(f"{row['final_error']['median']:.1f}")
        if errors:
            cells.append(" / ".join(errors) + " px")
            lines.append(f"| {words} | " + " | ".join(cells) + " |")
    return lines


if __name__ == "__main__":
    print("\n".join(table(Path(sys.argv[1] if len(sys.argv) > 1 else "benchmarks/results"))))
