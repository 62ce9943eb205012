#!/usr/bin/env bash
# Measures the bundled models: the tables of docs/benchmarks.md but those of the gap, the live
# runs and the demo.
#
#   tools/benchmarks.sh [TASK ...]         default: pusht point_maze wall
#
# Reports go to RESULTS (default: benchmarks/results); what is there already is not repeated. One
# process with one thread per task: give it a core of its own, timings are part of the tables.
# PARTS (default: all) chooses among eval, bench, curve, long and validate, which needs DATA/TASK.
set -euo pipefail

RESULTS=${RESULTS:-benchmarks/results}
GOALS=${GOALS:-100}
CURVE_GOALS=${CURVE_GOALS:-30}
LONG_GOALS=${LONG_GOALS:-40}
SEED=${SEED:-21}
PARTS=${PARTS:-eval bench curve long validate}
DATA=${DATA:-out/models/data}
WM_MPC=${WM_MPC:-wm-mpc}
ASSETS=${ASSETS:-wm_mpc/assets}

measure() { # report, then the command
  local report=$RESULTS/$1.json
  shift
  [[ -f $report ]] && return
  echo "+ $* --report $report"
  "$@" --report "$report"
}

for task in ${*:-pusht point_maze wall}; do
  starts=8
  [[ $task == wall ]] && starts=16
  for part in $PARTS; do
    case $part in
    eval)
      measure "eval_$task" "$WM_MPC" eval --task "$task" --planner adam --goals "$GOALS" \
        --seed "$SEED" --budget-fraction 0 --options iterations=20 "starts=$starts" --threads 1
      ;;
    bench)
      baselines=
      [[ $task == point_maze ]] && baselines=,none,random
      measure "bench_$task" "$WM_MPC" bench --task "$task" \
        --planners "cem,mppi,gd,adam,grasp,latco,hybrid$baselines" --goals "$GOALS" \
        --seed "$SEED" --replan-every 5 --threads 1
      ;;
    curve)
      measure "curve_$task" "$WM_MPC" bench --task "$task" --planners cem,adam --curve \
        --goals "$CURVE_GOALS" --seed "$SEED" --replan-every 5 --threads 1
      ;;
    long)
      [[ $task == pusht ]] || continue
      measure long_horizon "$WM_MPC" bench --task pusht --mode open_loop \
        --goal-offsets 40,50,60,70,80 --planners cem,gd,grasp,latco --goals "$LONG_GOALS" \
        --seed "$SEED" --budget-fraction 0 --threads 1 \
        --options grasp.iterations=400 latco.iterations=400 gd.iterations=300
      ;;
    validate)
      measure "validate_$task" "$WM_MPC" validate "$ASSETS/$task" --data "$DATA/$task" --threads 1
      ;;
    *)
      echo "PARTS: '$part'; eval, bench, curve, long and validate expected" >&2
      exit 2
      ;;
    esac
  done
done
