#!/usr/bin/env bash
# Checks the CUDA kernels against autograd and measures the latency rows of one GPU, in about three
# minutes. Needs a source checkout and torch, numpy, einops, safetensors and
# transformers; no ROS.
#
#   tools/gpu_latency.sh OUT [--seconds S]      OUT: folder for checks.json, latency_*.json, log.txt
set -uo pipefail

OUT=$1
shift
mkdir -p "$OUT"
cd "$(dirname "$0")/.."
"${PYTHON:-python3}" tools/gpu_check.py "$OUT" "$@" 2>&1 | tee "$OUT/log.txt"
exit "${PIPESTATUS[0]}"
