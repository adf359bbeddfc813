#!/bin/bash
#SBATCH --job-name=gsm8k-plans
#SBATCH --output=%x-%j.out
#SBATCH --nodes=1
#SBATCH --ntasks=1
#SBATCH --cpus-per-task=8
#SBATCH --gres=gpu:1
#SBATCH --mem=64G
#SBATCH --time=02:00:00
#
# Plans for the GSM8K problems of each split: 30-40 minutes with Llama-3-8B on one H200, seconds
# with PLANNER=rules (which needs no GPU). Submit from the root of the repository,
#
#     sbatch scripts/data_prep/run_gsm8k_plan_generation.sh
#
# or run with bash; settings come from the environment:
#
#     PLANNER=rules DATA_DIR=my/data bash scripts/data_prep/run_gsm8k_plan_generation.sh
#
# A job that was cut off continues where it stopped when submitted again.
set -euo pipefail

PLANNER="${PLANNER:-vllm}"                       # vllm | rules | socratic
MODEL="${MODEL:-meta-llama/Meta-Llama-3-8B-Instruct}"
SPLITS="${SPLITS:-train test}"
OUTPUT_DIR="${OUTPUT_DIR:-data/gsm8k}"
DATA_DIR="${DATA_DIR:-}"                         # empty: HBD3LM_DATA_DIR, else the hub
NUM_EXAMPLES="${NUM_EXAMPLES:-}"                 # empty: all
BATCH_SIZE="${BATCH_SIZE:-256}"
TEMPERATURE="${TEMPERATURE:-0.7}"
TOP_P="${TOP_P:-0.9}"
MAX_TOKENS="${MAX_TOKENS:-256}"
TENSOR_PARALLEL_SIZE="${TENSOR_PARALLEL_SIZE:-1}"
SEED="${SEED:-0}"
OVERWRITE="${OVERWRITE:-0}"                      # 1: discard unfinished runs

# SLURM copies this file elsewhere; the repository is where the job was submitted.
cd "${SLURM_SUBMIT_DIR:-$(dirname "${BASH_SOURCE[0]}")/../..}"
SCRIPT=scripts/data_prep/generate_gsm8k_plans.py

fail() {
    echo "error: $*" >&2
    exit 1
}

# --- prerequisites ----------------------------------------------------------------------------
[[ -f "$SCRIPT" ]] || fail "$PWD has no $SCRIPT; submit from the root of the repository"
if [[ -z "${PYTHON:-}" ]]; then
    PYTHON=python
    [[ ! -x .venv/bin/python ]] || PYTHON=.venv/bin/python
fi
command -v "$PYTHON" >/dev/null || fail "no $PYTHON; run 'make setup' or set PYTHON"
"$PYTHON" -c 'import hbd3lm' 2>/dev/null ||
    fail "$PYTHON cannot import hbd3lm; run 'make setup' or '$PYTHON -m pip install -e .'"
case "$PLANNER" in
    rules | socratic) ;;
    vllm)
        "$PYTHON" -c 'import importlib.util, sys; sys.exit(not importlib.util.find_spec("vllm"))' ||
            fail "PLANNER=vllm needs vLLM: pip install -e '.[vllm]'; PLANNER=rules needs nothing"
        nvidia-smi >/dev/null 2>&1 ||
            fail "PLANNER=vllm needs a GPU and nvidia-smi finds none; PLANNER=rules needs none"
        ;;
    *) fail "PLANNER=$PLANNER is none of vllm, rules, socratic" ;;
esac

# --- one run a split --------------------------------------------------------------------------
options=(--planner "$PLANNER" --batch_size "$BATCH_SIZE" --seed "$SEED")
if [[ "$PLANNER" == vllm ]]; then
    options+=(--model "$MODEL" --temperature "$TEMPERATURE" --top_p "$TOP_P")
    options+=(--max_tokens "$MAX_TOKENS" --tensor_parallel_size "$TENSOR_PARALLEL_SIZE")
fi
[[ -z "$DATA_DIR" ]] || options+=(--data_dir "$DATA_DIR")
[[ -z "$NUM_EXAMPLES" ]] || options+=(--num_examples "$NUM_EXAMPLES")
[[ "$OVERWRITE" != 1 ]] || options+=(--overwrite)

for split in $SPLITS; do
    "$PYTHON" "$SCRIPT" "${options[@]}" --split "$split" \
        --output_path "$OUTPUT_DIR/gsm8k_hierarchical_$split.json"
done
