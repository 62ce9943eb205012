#!/usr/bin/env bash
# Trains the larger models on one GPU: a DINO encoder and, for each task, DINO-WM's predictor
# (20 M parameters) on its patch tokens. The time limits below add up to
# 15 minutes; collecting, token caches and readers come on top.
#
#   tools/train_gpu.sh [OUT]                     default: out/gpu
#   SIZE=tiny DEVICE=cpu tools/train_gpu.sh      to see that everything fits together
#   ENCODER=facebook/dinov2-small tools/train_gpu.sh    another encoder, nothing to pre-train;
#     DINOv2 from the hub gets IMAGE_SIZE=196, so that its 14 px patches make DINO-WM's 14 x 14
#
# Several GPUs: NPROC=4 tools/train_gpu.sh runs the same commands under torchrun.
set -euo pipefail

OUT=${1:-out/gpu}
SIZE=${SIZE:-full}
DEVICE=${DEVICE:-cuda}
ENCODER=${ENCODER:-}
IMAGE_SIZE=${IMAGE_SIZE:-} # [px] side of the encoder's pictures; 0: its own
NPROC=${NPROC:-1}
GOALS=${GOALS:-0}
PYTHON=${PYTHON:-python}

case $SIZE in
full)
  PUSHT=30000 WALL=9000 MAZE=5000
  DINO=(--dino.dim 192 --dino.layers 6 --dino.heads 6 --dino.batch 384 --dino.prototypes 1024
    --dino.steps 6000 --dino.max-seconds 240)
  PATCH=(--patch.size dino-wm --patch.batch 64 --patch.lr 5e-4 --patch.steps 100000)
  SECONDS_PUSHT=420 SECONDS_WALL=120 SECONDS_MAZE=120
  READER=1500
  ;;
tiny)
  PUSHT=40 WALL=20 MAZE=20
  DINO=(--dino.steps 3 --dino.batch 4 --dino.dim 32 --dino.layers 2 --dino.heads 2)
  PATCH=(--patch.size small --patch.batch 4 --patch.steps 3)
  SECONDS_PUSHT=60 SECONDS_WALL=60 SECONDS_MAZE=60
  READER=3
  ;;
*)
  echo "SIZE: '$SIZE'; full or tiny expected" >&2
  exit 2
  ;;
esac

if [[ -z $IMAGE_SIZE ]]; then
  IMAGE_SIZE=0
  # the hub's configurations of DINOv2 say 518 px, which would be 37 x 37 tokens
  [[ ! -d $ENCODER && $ENCODER == *dinov2* ]] && IMAGE_SIZE=196
fi

run() {
  echo "+ $*"
  "$@"
}

wm() { run "$PYTHON" -m wm_mpc.cli "$@"; }

collect() { # task episodes steps
  wm collect "$1" --episodes "$2" --episode-steps "$3" --frame-stride 5 --seed 1 \
    --out "$OUT/data/$1" --resume
}

train() { # task seconds
  local launch=("$PYTHON" -m wm_mpc.cli)
  if ((NPROC > 1)); then
    launch=("$PYTHON" -m torch.distributed.run --standalone --nproc-per-node "$NPROC" -m wm_mpc.cli)
  fi
  run "${launch[@]}" train "$1" --layout patch --device "$DEVICE" --data "$OUT/data/$1" \
    --encoder "$ENCODER" --image-size "$IMAGE_SIZE" --out "$OUT/$1" --window 3 --reader-steps "$READER" "${PATCH[@]}" \
    --patch.max-seconds "$2"
  wm validate "$OUT/$1" --data "$OUT/data/$1" --device "$DEVICE" --frames 1000 --windows 200 \
    --steps 3 --goals "$GOALS" --report "$OUT/$1/validation.json"
}

collect pusht "$PUSHT" 40
collect wall "$WALL" 50
collect point_maze "$MAZE" 60
if [[ -z $ENCODER ]]; then
  ENCODER=$OUT/encoder
  wm train dino --data "$OUT/data/pusht" "$OUT/data/wall" "$OUT/data/point_maze" \
    --out "$ENCODER" --dino.device "$DEVICE" "${DINO[@]}"
fi
train wall "$SECONDS_WALL"
train point_maze "$SECONDS_MAZE"
train pusht "$SECONDS_PUSHT"
echo "models: $OUT/{pusht,wall,point_maze}"
