#!/usr/bin/env bash
# Trains the encoder and the compact models of the three tasks from nothing, on CPU.
#
#   tools/train_models.sh [OUT]        default: out/models; what is there already is not repeated
#   SIZE=tiny tools/train_models.sh    minutes, to see that everything fits together
#
# No command is limited by time, so that the same seed on the same machine gives the same models.
# An interrupted run is taken up where it stopped by starting it again.
set -euo pipefail

OUT=${1:-out/models}
SIZE=${SIZE:-full}
WM_MPC=${WM_MPC:-wm-mpc}
GOALS=${GOALS:-100}
WORKERS=${WORKERS:-0} # of data collection; 0: one per core

case $SIZE in
full)
  PUSHT=24000 WALL=9000 MAZE=5000
  DINO=(--dino.steps 800)
  PUSHT_TRAINING=(--landmarks.compositions 40000 --landmarks.steps 6000 --dynamics.steps 28000)
  WALL_TRAINING=(--landmarks.compositions 10000 --landmarks.steps 1200 --dynamics.steps 12000)
  MAZE_TRAINING=(--landmarks.compositions 10000 --landmarks.steps 1200 --dynamics.steps 8000)
  DECODER=(--decoder.steps 6000)
  ;;
tiny)
  PUSHT=40 WALL=20 MAZE=20
  DINO=(--dino.steps 3 --dino.batch 4 --dino.dim 32 --dino.layers 1 --dino.heads 2)
  TINY=(--landmarks.compositions 64 --landmarks.steps 5 --landmarks.batch 16 --reader-steps 5
    --dynamics.steps 20 --dynamics.batch 32)
  PUSHT_TRAINING=("${TINY[@]}") WALL_TRAINING=("${TINY[@]}") MAZE_TRAINING=("${TINY[@]}")
  DECODER=(--decoder.steps 5)
  ;;
*)
  echo "SIZE: '$SIZE'; full or tiny expected" >&2
  exit 2
  ;;
esac

run() {
  echo "+ $*"
  "$@"
}

collect() { # task episodes steps
  run "$WM_MPC" collect "$1" --episodes "$2" --episode-steps "$3" --frame-stride 5 --seed 1 \
    --out "$OUT/data/$1" --workers "$WORKERS" --resume
}

train() { # task, then its own options
  local task=$1
  shift
  if [[ ! -f $OUT/$task/training.json ]]; then
    run "$WM_MPC" train "$task" --data "$OUT/data/$task" --encoder "$OUT/encoder" \
      --out "$OUT/$task" "$@" "${DECODER[@]}"
  fi
  run "$WM_MPC" validate "$OUT/$task" --data "$OUT/data/$task" \
    --report "$OUT/$task/validation.json"
  if ((GOALS > 0)); then
    run "$WM_MPC" eval --task "$task" --planner adam --model "$OUT/$task" --goals "$GOALS" \
      --seed 1 --report "$OUT/$task/eval.json"
  fi
}

collect pusht "$PUSHT" 40
collect wall "$WALL" 50
collect point_maze "$MAZE" 60
if [[ ! -f $OUT/encoder/dino.json ]]; then
  run "$WM_MPC" train dino --data "$OUT/data/pusht" "$OUT/data/wall" "$OUT/data/point_maze" \
    --out "$OUT/encoder" "${DINO[@]}"
fi
train wall "${WALL_TRAINING[@]}"
train point_maze "${MAZE_TRAINING[@]}"
train pusht "${PUSHT_TRAINING[@]}"
echo "models: $OUT/{encoder,pusht,wall,point_maze}"
