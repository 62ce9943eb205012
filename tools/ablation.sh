#!/usr/bin/env bash
# What the latent is made of: patch tokens without projector, projectors with and without
# straightening, inverse dynamics, guard against collapse, rollouts; landmarks. Each with and
# without proprioception in the goal cost. Wall, CPU.
#
#   tools/ablation.sh DATA [OUT]      DATA: a Wall store; a row takes some 8 minutes of a free core
#
# What is there already is not repeated; interrupted training resumes.
set -euo pipefail

DATA=$1
OUT=${2:-out/ablation}
ENCODER=${ENCODER:-wm_mpc/assets/encoder}
RESULTS=${RESULTS:-$OUT/results}
TOKENS=${TOKENS:-$OUT/tokens}
# optimiser steps: of projectors, of compact predictors, of the patch layout (as long as both)
JOINT_STEPS=${JOINT_STEPS:-2400}
STEPS=${STEPS:-12000}
PATCH_STEPS=${PATCH_STEPS:-640}
GOALS=${GOALS:-50}
SEED=${SEED:-21}
# of the planner; small, because an iteration of the patch layout takes 100 ms on a core
OPTIONS=${OPTIONS:-iterations=10 starts=4}
WM_MPC=${WM_MPC:-wm-mpc}
ROWS=${ROWS:-landmarks projector straightened no_inverse no_guard teacher_forced patch}

JOINT=(--projector joint --visual-dim 16 --joint.steps "$JOINT_STEPS")
MLP=(--dynamics.steps "$STEPS" --dynamics.huber 0 --dynamics.batch 256 --dynamics.threads 1)

run() {
  echo "+ $*"
  "$@"
}

train() { # name options...
  local name=$1
  shift
  [[ -f $OUT/$name/training.json ]] && return
  run "$WM_MPC" train wall --data "$DATA" --encoder "$ENCODER" --out "$OUT/$name" \
    --tokens "$TOKENS" --reader-steps 0 "$@"
}

evaluate() { # name proprio_weight
  local report=$RESULTS/ablation_$1.$2.json
  [[ -f $report ]] && return
  run "$WM_MPC" eval --task wall --planner adam --model "$OUT/$1" --goals "$GOALS" --seed "$SEED" \
    --replan-every 5 --budget-fraction 0 --options $OPTIONS --threads 1 \
    --objective.proprio-weight "$2" --report "$report"
}

joint() { # name options...
  local name=$1
  shift
  train "$name" "${JOINT[@]}" "${MLP[@]}" "$@"
}

for name in $ROWS; do
  case $name in
    patch) train patch --layout patch --patch.steps "$PATCH_STEPS" --dynamics.threads 1 ;;
    projector) joint projector --joint.straighten 0 ;;
    straightened) joint straightened ;;
    no_inverse) joint no_inverse --joint.inverse 0 ;;
    no_guard) joint no_guard --joint.variance 0 --joint.covariance 0 ;;
    teacher_forced) joint teacher_forced --dynamics.rollout 1 ;;
    landmarks) train landmarks --landmarks.compositions 10000 --landmarks.steps 1200 "${MLP[@]}" ;;
    *) echo "ROWS: $name; patch, projector, straightened, no_inverse, no_guard, teacher_forced," \
      "landmarks expected" >&2 && exit 2 ;;
  esac
done
for name in $ROWS; do
  for weight in 0.3 0; do evaluate "$name" "$weight"; done
done
