#!/usr/bin/env bash
# Trains projectors that need no description of the task, together with their dynamics (--projector joint), in several
# variants side by side, and measures each on goals that no training saw. Meant for one GPU and a dozen cores.
#
#   tools/train_general_latent.sh [OUT]                  default: out/general
#   TASK=wall VARIANTS="plain wide" tools/train_general_latent.sh
#   SIZE=tiny DEVICE=cpu tools/train_general_latent.sh   to see that everything fits together
set -euo pipefail

OUT=${1:-out/general}
TASK=${TASK:-pusht}
SIZE=${SIZE:-full}
DEVICE=${DEVICE:-cuda}
PYTHON=${PYTHON:-python}
ENCODER=${ENCODER:-wm_mpc/assets/encoder}
WORKERS=${WORKERS:-0}          # of data collection; 0: one per core
SECONDS_JOINT=${SECONDS_JOINT:-180}
SECONDS_DYNAMICS=${SECONDS_DYNAMICS:-60}
VARIANTS=${VARIANTS:-plain wide inverse long}
SEED=${SEED:-0}
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1}

case $SIZE in
full) EPISODES=${EPISODES:-20000} STEPS=1000000 BATCH=256 READER=1500 GOALS=${GOALS:-100} FRAMES=2000 ;;
tiny) EPISODES=${EPISODES:-40} STEPS=3 BATCH=8 READER=3 GOALS=${GOALS:-1} FRAMES=60 ;;
*)
  echo "SIZE: '$SIZE'; full or tiny expected" >&2
  exit 2
  ;;
esac

declare -A OPTIONS=(
  [plain]="--visual-dim 32 --joint.rollout 4"
  [wide]="--visual-dim 64 --joint.rollout 4"
  [inverse]="--visual-dim 32 --joint.rollout 4 --joint.inverse 0.5"
  [long]="--visual-dim 32 --joint.rollout 5 --width 512 --depth 4"
  [straight]="--visual-dim 32 --joint.rollout 4 --joint.straighten 0.1"
)

wm() { "$PYTHON" -m wm_mpc.cli "$@"; }

variant() { # name
  local folder=$OUT/$1 straighten=(--joint.straighten 0)
  [[ $1 == straight ]] && straighten=()
  # shellcheck disable=SC2086  # the options are words
  wm train "$TASK" --data "$OUT/data" --encoder "$ENCODER" --tokens "$OUT/tokens" --out "$folder" \
    --device "$DEVICE" --seed "$SEED" --projector joint --reader-steps "$READER" \
    --joint.steps "$STEPS" --joint.max-seconds "$SECONDS_JOINT" --joint.batch "$BATCH" --joint.lr 2e-3 \
    --joint.save-every 100000 "${straighten[@]}" --dynamics.steps "$STEPS" \
    --dynamics.max-seconds "$SECONDS_DYNAMICS" --dynamics.save-every 100000 \
    --validation.frames "$FRAMES" ${OPTIONS[$1]} || return 1
  wm eval --task "$TASK" --model "$folder" --label "general-$1" --planner adam --goals "$GOALS" --seed 7000 \
    --options iterations=20 starts=16 --report "$folder/eval.json"
}

wm collect "$TASK" --episodes "$EPISODES" --episode-steps 40 --frame-stride 5 --seed 1 --out "$OUT/data" \
  --workers "$WORKERS" --resume
pids=()
for name in $VARIANTS; do
  variant "$name" >"$OUT/$name.log" 2>&1 &
  pids+=($!)
done
failed=0
for pid in "${pids[@]}"; do wait "$pid" || failed=1; done
for name in $VARIANTS; do tail -n 1 "$OUT/$name.log"; done
exit "$failed"
