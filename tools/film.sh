#!/usr/bin/env bash
# The film at the top of the README: real episodes over ROS 2 in real time; shown is the longest one that
# reached its goal. EPISODES, SEED, OUT and WM_MPC may be set.
set -euo pipefail
cd "$(dirname "$0")/.."
out=${OUT:-out/film}
"${WM_MPC:-.venv/bin/wm-mpc}" demo --headless --episodes "${EPISODES:-10}" --seed "${SEED:-2024}" --baselines 1 --out "$out"
cp "$out/film.webp" docs/images/demo.webp
cp "$out/report.json" benchmarks/results/film_pusht.json
