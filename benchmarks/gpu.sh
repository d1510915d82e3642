#!/usr/bin/env bash
# What the pipeline reaches on a GPU: its tests there, its rates, memory and share of the card's matmul rate, and the
# same work by a plain script. Needs no network and no data: models have random weights, rows are made up.
#
#   ./benchmarks/gpu.sh [FOLDER]     writes FOLDER/gpu.json after each part, and FOLDER/gpu.log
#
# FOLDER: default benchmarks/results. PYTHON: the interpreter (python3), with what requirements.txt lists, in any version
# that works. GPU_SECONDS: the most it may take (540); parts that find no time left are skipped. Without a GPU it is a dry
# run of seconds, on tiny models, into a temporary folder unless FOLDER is given.
set -euo pipefail

python=${PYTHON:-python3}
seconds=${GPU_SECONDS:-540}
export PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 TQDM_DISABLE=1 HF_HUB_OFFLINE=1 DVC_NO_ANALYTICS=1

folder=${1:+$(mkdir -p "$1" && cd "$1" && pwd)}
cd "$(dirname "$0")/.."
if ! "$python" -c 'import sys, torch; sys.exit(not torch.accelerator.is_available())'; then
    folder=${folder:-$(mktemp -d)}
    echo "no GPU found: a dry run on tiny models, whose numbers say nothing, into $folder"
fi
folder=${folder:-$PWD/benchmarks/results}
timeout --kill-after=5 "$seconds" "$python" -m benchmarks.gpu run "$folder" --seconds "$((seconds - 20))" 2>&1 |
    tee "$folder/gpu.log"
