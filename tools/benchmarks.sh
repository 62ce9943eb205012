#!/usr/bin/env bash
# Measures the bundled models: the tables of docs/benchmarks.md but those of the gap, the latents,
# the live runs and the demo. tools/benchmark_tables.py prints them.
#
#   [JOBS=N] tools/benchmarks.sh [TASK ...]         default: pusht point_maze wall
#
# A row, or the rows of one planner, is one process with one thread, pinned to a core of its own;
# JOBS of them run at a time, no two on one physical core while there are others. Timings are part
# of the tables: nothing else should run. Reports go to RESULTS; what is there already is not
# measured again. The output of each run lies in LOGS. Exit code 1: at least one run failed.
# PARTS (default: all) chooses among curve, bench, eval, long and validate, which needs DATA/TASK.
#
# Runs from a checkout as it is: PYTHON needs torch and what wm-mpc[sim] asks for, but no ROS.
set -euo pipefail
cd "$(dirname "$0")/.."

PYTHON=${PYTHON:-python3}
JOBS=${JOBS:-1}
RESULTS=${RESULTS:-benchmarks/results}
LOGS=${LOGS:-out/benchmarks}
GOALS=${GOALS:-100}
LONG_GOALS=${LONG_GOALS:-$((GOALS < 40 ? GOALS : 40))}
SEED=${SEED:-21}
PARTS=${PARTS:-curve bench eval long validate}
PLANNERS=${PLANNERS:-cem mppi gd adam ilqr grasp latco hybrid}
CURVES=${CURVES:-cem adam}
DATA=${DATA:-out/models/data}
ASSETS=${ASSETS:-wm_mpc/assets}
export OMP_NUM_THREADS=1 MKL_NUM_THREADS=1 PYTHONUNBUFFERED=1
export PYTHONPATH=$PWD${PYTHONPATH:+:$PYTHONPATH}

names=() commands=()
plan() { # report, then the arguments of wm-mpc, none with a space in it
  names+=("$1")
  commands+=("${*:2}")
}

plan_task() { # part, task
  local task=$2 starts=8 planner goal baselines=
  case $1 in
  curve)
    for planner in $CURVES; do
      plan "curve_$task.$planner" bench --task "$task" --planners "$planner" --no-table --curve \
        --goals "$GOALS" --seed "$SEED" --replan-every 5 --threads 1
    done
    ;;
  bench)
    [[ $task == point_maze ]] && baselines="none random"
    for planner in $PLANNERS $baselines; do
      plan "bench_$task.$planner" bench --task "$task" --planners "$planner" \
        --goals "$GOALS" --seed "$SEED" --replan-every 5 --threads 1
    done
    ;;
  eval)
    [[ $task == wall ]] && starts=16
    for goal in posture picture; do
      plan "eval_$task.$goal" eval --task "$task" --planner adam --goal "$goal" \
        --goals "$GOALS" --seed "$SEED" --budget-fraction 0 \
        --options iterations=20 "starts=$starts" --threads 1
    done
    ;;
  long)
    [[ $task == pusht ]] || return 0
    for planner in cem gd grasp latco; do
      plan "long_horizon.$planner" bench --task pusht --mode open_loop \
        --goal-offsets 40,50,60,70,80 --planners "$planner" --goals "$LONG_GOALS" \
        --seed "$SEED" --budget-fraction 0 --threads 1 \
        --options grasp.iterations=400 latco.iterations=400 gd.iterations=300
    done
    ;;
  validate)
    if [[ -d $DATA/$task ]]; then
      plan "validate_$task" validate "$ASSETS/$task" --data "$DATA/$task" --threads 1
    else
      echo "validate $task: left out, $DATA/$task is not there" >&2
    fi
    ;;
  *)
    echo "PARTS: '$1'; curve, bench, eval, long and validate expected" >&2
    exit 2
    ;;
  esac
}

cores() { # the CPUs this process may use, one of each physical core first
  "$PYTHON" - <<'PYTHON'
import os
from pathlib import Path

where = Path("/sys/devices/system/cpu")
usable = sorted(os.sched_getaffinity(0))
seen, first, second = set(), [], []
for cpu in usable:
    topology = where / f"cpu{cpu}" / "topology"
    try:
        core = tuple((topology / n).read_text() for n in ("physical_package_id", "core_id"))
    except OSError:
        core = cpu
    (second if core in seen else first).append(cpu)
    seen.add(core)
print(*first, *second)
PYTHON
}

worker() { # core: takes what nobody else has taken, in order
  local core=$1 i name report pin=()
  command -v taskset > /dev/null && pin=(taskset -c "$core")
  for i in "${!names[@]}"; do
    name=${names[i]} report=$RESULTS/${names[i]}.json
    [[ -f $report ]] && continue
    mkdir "$scratch/$name" 2> /dev/null || continue
    echo "+ core $core: wm-mpc ${commands[i]} --report $report"
    # shellcheck disable=SC2086 # the words of a command
    if "${pin[@]}" "$PYTHON" -m wm_mpc.cli ${commands[i]} \
      --report "$report" > "$LOGS/$name.log" 2>&1; then
      rm -f "$RESULTS/$name.md" # tools/benchmark_tables.py prints the whole table
      [[ ! -f $RESULTS/$name.png ]] || mv "$RESULTS/$name.png" "$LOGS"
    else
      echo "$name: failed: $(tail -n 1 "$LOGS/$name.log")" >&2
      touch "$scratch/failed"
    fi
  done
}

for part in $PARTS; do # the longest first
  for task in ${*:-pusht point_maze wall}; do plan_task "$part" "$task"; done
done
mkdir -p "$RESULTS" "$LOGS"
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
trap 'kill 0' INT TERM
read -ra cpus <<< "$(cores)"
if ((JOBS < 1 || JOBS > ${#cpus[@]})); then
  echo "JOBS: $JOBS; 1 to ${#cpus[@]} expected, a core each" >&2
  exit 2
fi
for ((k = 0; k < JOBS; k++)); do worker "${cpus[k]}" & done
wait
[[ ! -f $scratch/failed ]]
