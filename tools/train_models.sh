#!/usr/bin/env bash
# Trains the encoder and the compact models of the three tasks from nothing, on CPU: first on
# trajectories of the behaviour policies (OUT/base), then on what the planner's own plans really
# did (online world modeling, arXiv 2512.09929).
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
  PUSHT=48000 WALL=9000 MAZE=5000 MEDIUM=3000
  DINO=(--dino.steps 800)
  PUSHT_TRAINING=(--landmarks.compositions 40000 --landmarks.steps 6000 --dynamics.steps 17000)
  WALL_TRAINING=(--landmarks.compositions 10000 --landmarks.steps 1200 --dynamics.steps 18000)
  MAZE_TRAINING=(--landmarks.compositions 10000 --landmarks.steps 1200 --dynamics.steps 20000)
  MEDIUM_TRAINING=(--landmarks.compositions 10000 --landmarks.steps 1200 --dynamics.steps 12000)
  DECODER=(--decoder.steps 6000)
  ONLINE=(--finetune.lr 1e-3 --online.rollouts 800 --online.every 1000 --online.ratio 1 1
    --curriculum.rollout 3 5)
  PUSHT_ONLINE=("${ONLINE[@]}" --finetune.steps 24000 --online.far 0.3
    --online.options iterations=20 starts=16)
  MAZE_ONLINE=("${ONLINE[@]}" --finetune.steps 16000 --online.far 0.3
    --online.options iterations=20 starts=8)
  WALL_ONLINE=("${ONLINE[@]}" --finetune.steps 16000 --online.far 0.5 --online.chain 3
    --online.options iterations=20 starts=16)
  ;;
tiny)
  PUSHT=40 WALL=20 MAZE=20 MEDIUM=20
  DINO=(--dino.steps 3 --dino.batch 4 --dino.dim 32 --dino.layers 2 --dino.heads 2)
  TINY=(--landmarks.compositions 64 --landmarks.steps 5 --landmarks.batch 16 --reader-steps 5
    --dynamics.steps 20 --dynamics.batch 32)
  PUSHT_TRAINING=("${TINY[@]}") WALL_TRAINING=("${TINY[@]}") MAZE_TRAINING=("${TINY[@]}")
  MEDIUM_TRAINING=("${TINY[@]}")
  DECODER=(--decoder.steps 5)
  ONLINE=(--finetune.steps 6 --finetune.batch 16 --online.rollouts 2 --online.every 3
    --curriculum.rollout 1 3 --online.options iterations=2 starts=2)
  PUSHT_ONLINE=("${ONLINE[@]}") MAZE_ONLINE=("${ONLINE[@]}") WALL_ONLINE=("${ONLINE[@]}")
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

train() { # task, folder, then its own options
  local task=$1 folder=$2
  shift 2
  if [[ ! -f $folder/training.json ]]; then
    run "$WM_MPC" train "$task" --data "$OUT/data/$task" --encoder "$OUT/encoder" \
      --out "$folder" --tokens "$OUT/tokens/$task" "$@" "${DECODER[@]}"
  fi
}

improve() { # task, then its own options
  local task=$1
  shift
  if [[ ! -f $OUT/$task/finetune.json ]]; then
    run "$WM_MPC" finetune "$task" --method online --model "$OUT/base/$task" \
      --data "$OUT/data/$task" --tokens "$OUT/tokens/$task" --out "$OUT/$task" \
      --selection.goals 0 "$@"
    # the predictor alone has changed: latents, and what draws them, are those of the base
    cp "$OUT/base/$task/decoder.safetensors" "$OUT/$task/"
  fi
}

measure() { # task, then options of its evaluation
  local task=$1
  shift
  run "$WM_MPC" validate "$OUT/$task" --data "$OUT/data/$task" \
    --report "$OUT/$task/validation.json"
  if ((GOALS > 0)); then
    run "$WM_MPC" eval --task "$task" --planner adam --model "$OUT/$task" --goals "$GOALS" \
      --seed 1 --report "$OUT/$task/eval.json" "$@"
  fi
}

collect pusht "$PUSHT" 40
collect wall "$WALL" 50
collect point_maze "$MAZE" 60
collect point_maze_medium "$MEDIUM" 100
if [[ ! -f $OUT/encoder/dino.json ]]; then
  run "$WM_MPC" train dino --data "$OUT/data/pusht" "$OUT/data/wall" "$OUT/data/point_maze" \
    --out "$OUT/encoder" "${DINO[@]}"
fi
train point_maze "$OUT/base/point_maze" "${MAZE_TRAINING[@]}"
improve point_maze "${MAZE_ONLINE[@]}"
measure point_maze
train wall "$OUT/base/wall" "${WALL_TRAINING[@]}"
improve wall "${WALL_ONLINE[@]}"
measure wall
train pusht "$OUT/base/pusht" "${PUSHT_TRAINING[@]}"
improve pusht --augment "${PUSHT_ONLINE[@]}"
measure pusht
train point_maze_medium "$OUT/point_maze_medium" "${MEDIUM_TRAINING[@]}"
run "$WM_MPC" train subgoals --model "$OUT/point_maze_medium" --data "$OUT/data/point_maze_medium" \
  --frames 6000 --tokens "$OUT/tokens/point_maze_medium"
measure point_maze_medium --subgoals "$OUT/point_maze_medium/subgoals.safetensors"
echo "models: $OUT/{encoder,pusht,wall,point_maze,point_maze_medium}"
