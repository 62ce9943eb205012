#!/usr/bin/env bash
# Fine-tunes models by both methods, measures the train-test gap and fills the table of
# arXiv 2512.09929: open loop and MPC; GD, Adam, CEM; base, online, adversarial, both. BASE/TASK is
# the start model (tools/train_models.sh leaves it in out/models/base; default: the bundled ones).
#
#   tools/train_test_gap.sh DATA [OUT]     DATA/pusht, DATA/wall, DATA/point_maze: stores of experts
#
# Reports go to RESULTS (default: OUT/results). What is there already is not repeated; interrupted
# training resumes; a finished model in OUT/TASK.METHOD is used as it is. TASKS, METHODS, GOALS,
# PLANNERS, OPTIONS (of the planners) and STEPS make it shorter.
set -euo pipefail

DATA=$1
OUT=${2:-out/train_test_gap}
RESULTS=${RESULTS:-$OUT/results}
TASKS=${TASKS:-wall point_maze pusht}
METHODS=${METHODS:-online adversarial both}
PLANNERS=${PLANNERS:-gd,adam,cem}
OPTIONS=${OPTIONS:-cem.samples=100 cem.elites=10 cem.iterations=10}
GOALS=${GOALS:-100}
STEPS=${STEPS:-4000}
WM_MPC=${WM_MPC:-wm-mpc}
BASE=${BASE:-wm_mpc/assets}
TOKENS=${TOKENS:-$OUT/tokens}
EPISODES=${EPISODES:-0} # to fine-tune on; 0: all

ONLINE=(--finetune.lr 1e-3 --online.rollouts 300 --online.every 500 --online.ratio 1 1
  --curriculum.rollout 1 3)
ADVERSARIAL=(--finetune.lr 5e-4 --curriculum.rollout 1 3)

run() {
  echo "+ $*"
  "$@"
}

folder() { # task method
  if [[ $2 == base ]]; then echo "$BASE/$1"; else echo "$OUT/$1.$2"; fi
}

for task in $TASKS; do
  models=()
  for method in base $METHODS; do
    model=$(folder "$task" "$method")
    models+=("$method=$model")
    [[ -f $model/world_model.json ]] && continue
    options=("${ONLINE[@]}")
    [[ $method == adversarial ]] && options=("${ADVERSARIAL[@]}")
    [[ $task == pusht ]] && options+=(--augment)
    run "$WM_MPC" finetune "$task" --method "$method" --model "$BASE/$task" --data "$DATA/$task" \
      --out "$model" --tokens "$TOKENS/$task" --episodes "$EPISODES" --finetune.threads 1 \
      --finetune.steps "$STEPS" --selection.goals 0 "${options[@]}"
  done
  report=$RESULTS/gap_$task
  if [[ ! -f $report.json ]]; then
    # the last 2 % of the episodes were held out by every training
    run "$WM_MPC" gap "$task" --data "$DATA/$task" --tokens "$TOKENS/$task" \
      --episodes 3000 --held-out 0.02 --models "${models[@]}" --gap.starts 150 --gap.seed 5 \
      --threads 1 --plot "$report.png" --landscape "${report}_landscape.png" --report "$report.json"
  fi
  for method in base $METHODS; do
    for mode in open_loop mpc; do
      report=$RESULTS/table_$task.$method.$mode.json
      [[ -f $report ]] && continue
      run "$WM_MPC" bench --task "$task" --planners "$PLANNERS" --model "$(folder "$task" "$method")" \
        --label "$method" --mode "$mode" --replan-every 5 --goals "$GOALS" --seed 21 \
        --budget-fraction 0 --threads 1 --options $OPTIONS --report "$report"
    done
  done
done
