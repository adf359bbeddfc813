#!/bin/bash
#SBATCH --job-name=gsm8k-plans
#SBATCH --output=%x-%j.out
#SBATCH --open-mode=append
#SBATCH --requeue
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
# Several jobs share the work as an array; the task that ends last merges the parts:
#
#     sbatch --array=0-3 scripts/data_prep/run_gsm8k_plan_generation.sh
#
# A job that was cut off continues where it stopped when submitted again, and so does one task of
# an array of 4: SHARDS=4 sbatch --array=2 scripts/data_prep/run_gsm8k_plan_generation.sh
# Settings left empty are left to the program, whose --help explains them.
set -euo pipefail
# Paths are meant as the caller sees them, also from outside the repository.
for name in OUTPUT_DIR DATA_DIR PROMPT_FILE; do
    [[ -f main.py || -z "${!name:-}" || "${!name}" == /* ]] || declare "$name=$PWD/${!name}"
done

PLANNER="${PLANNER:-vllm}"                       # vllm | openai | llamacpp | transformers | rules | socratic
MODEL="${MODEL:-}"                               # empty: Llama-3-8B-Instruct; openai: the server's
BASE_URL="${BASE_URL:-}"                         # openai: address of the server
SPLITS="${SPLITS:-train test}"
OUTPUT_DIR="${OUTPUT_DIR:-data/gsm8k}"
DATA_DIR="${DATA_DIR:-}"                         # empty: HBD3LM_DATA_DIR, else the hub
NUM_EXAMPLES="${NUM_EXAMPLES:-}"                 # empty: all
BATCH_SIZE="${BATCH_SIZE:-256}"                  # requests in flight
SEED="${SEED:-0}"
# --- prompt and sampling of a language model
TEMPERATURE="${TEMPERATURE:-}"                   # empty: 0.7
TOP_P="${TOP_P:-}"                               # empty: 0.9
MAX_TOKENS="${MAX_TOKENS:-}"                     # empty: 256
PROMPT_FILE="${PROMPT_FILE:-}"
QUESTION_ONLY="${QUESTION_ONLY:-0}"              # 1: show no solution
CONSTRAINED="${CONSTRAINED:-}"                   # auto | on | off
# --- which plans are asked for again
MAX_NUMBERS="${MAX_NUMBERS:-}"
MIN_WORDS="${MIN_WORDS:-}"
MAX_WORDS="${MAX_WORDS:-}"
MAX_RETRIES="${MAX_RETRIES:-}"
# --- the engine
DTYPE="${DTYPE:-}"                               # vllm, transformers
REVISION="${REVISION:-}"                         # vllm, transformers
MAX_MODEL_LEN="${MAX_MODEL_LEN:-}"               # vllm, llamacpp
TENSOR_PARALLEL_SIZE="${TENSOR_PARALLEL_SIZE:-}" # vllm; ask SLURM for as many GPUs
PIPELINE_PARALLEL_SIZE="${PIPELINE_PARALLEL_SIZE:-}"
DATA_PARALLEL_SIZE="${DATA_PARALLEL_SIZE:-}"
GPU_MEMORY_UTILIZATION="${GPU_MEMORY_UTILIZATION:-}"
REQUIRE_GPU="${REQUIRE_GPU:-1}"                  # 0: vLLM was built for CPUs
API_KEY_ENV="${API_KEY_ENV:-}"                   # openai
TIMEOUT="${TIMEOUT:-}"                           # openai
THREADS="${THREADS:-}"                           # llamacpp
# --- the run
SHARD="${SHARD:-}"                               # I/N: only this part; an array sets it
SHARDS="${SHARDS:-}"                             # parts of the array some tasks of which are repeated
OVERWRITE="${OVERWRITE:-0}"                      # 1: discard what is there

# SLURM copies this file elsewhere; the repository is where the job was submitted.
cd "${SLURM_SUBMIT_DIR:-$(dirname "${BASH_SOURCE[0]}")/../..}"
SCRIPT=scripts/data_prep/generate_gsm8k_plans.py
[[ -f "$SCRIPT" && -f scripts/common.sh ]] || {
    echo "error: $PWD is not the repository; submit from its root" >&2
    exit 1
}
source scripts/common.sh

# --- prerequisites ----------------------------------------------------------------------------
has_module() { # without importing it, which may take a minute
    "$PYTHON" -c 'import importlib.util, sys; sys.exit(not importlib.util.find_spec(sys.argv[1]))' "$1"
}

check_switches QUESTION_ONLY REQUIRE_GPU OVERWRITE
read -rd '' -a splits <<<"$SPLITS" || true # status 1: the end, where -d '' expects a sign
for split in "${splits[@]:-}"; do # all of them before the first is written
    case "$split" in
        train | test) ;;
        *) fail "SPLITS=$SPLITS: '$split' is neither train nor test" ;;
    esac
done
find_python
case "$PLANNER" in
    rules | socratic | transformers | llamacpp) ;; # the program says what is missing at once
    vllm)
        has_module vllm ||
            fail "PLANNER=vllm needs vLLM: pip install -e '.[vllm]'; PLANNER=rules needs nothing"
        [[ "$REQUIRE_GPU" == 0 ]] || nvidia-smi >/dev/null 2>&1 ||
            fail "PLANNER=vllm needs a GPU and nvidia-smi finds none; PLANNER=rules needs none"
        ;;
    openai) [[ -n "$BASE_URL" ]] || fail "PLANNER=openai needs BASE_URL, the address of a server" ;;
    *) fail "PLANNER=$PLANNER is none of vllm, openai, llamacpp, transformers, rules, socratic" ;;
esac
if [[ -z "$MODEL" ]]; then
    case "$PLANNER" in
        vllm | transformers) MODEL=meta-llama/Meta-Llama-3-8B-Instruct ;;
        llamacpp) fail "PLANNER=llamacpp needs MODEL, a .gguf file" ;;
    esac
fi
if [[ -n "${SLURM_ARRAY_TASK_ID:-}" ]]; then
    if [[ -z "$SHARDS" ]]; then
        ((SLURM_ARRAY_TASK_MIN == 0 && SLURM_ARRAY_TASK_MAX == SLURM_ARRAY_TASK_COUNT - 1)) ||
            fail "an array of N tasks is --array=0-(N-1); to repeat some tasks of one, give SHARDS=N"
        SHARDS="$SLURM_ARRAY_TASK_COUNT"
    fi
    ((SLURM_ARRAY_TASK_ID < SHARDS)) ||
        fail "task $SLURM_ARRAY_TASK_ID of an array of SHARDS=$SHARDS; its tasks are 0 to $((SHARDS - 1))"
    SHARD="$((SLURM_ARRAY_TASK_ID + 1))/$SHARDS"
fi
mkdir -p "$OUTPUT_DIR" 2>/dev/null && [[ -w "$OUTPUT_DIR" ]] ||
    fail "cannot write to OUTPUT_DIR=$OUTPUT_DIR"

# --- one run a split --------------------------------------------------------------------------
options=(--planner "$PLANNER" --batch_size "$BATCH_SIZE" --seed "$SEED")
give() { # a flag and its value, unless that is empty
    [[ -z "$2" ]] || options+=("$1" "$2")
}
give --data_dir "$DATA_DIR"
give --num_examples "$NUM_EXAMPLES"
give --shard "$SHARD"
[[ "$OVERWRITE" != 1 ]] || options+=(--overwrite)
# What the planner does not have, the program refuses by name.
give --model "$MODEL"
give --temperature "$TEMPERATURE"
give --top_p "$TOP_P"
give --max_tokens "$MAX_TOKENS"
give --prompt_file "$PROMPT_FILE"
[[ "$QUESTION_ONLY" != 1 ]] || options+=(--question_only)
give --constrained "$CONSTRAINED"
give --max_numbers "$MAX_NUMBERS"
give --min_words "$MIN_WORDS"
give --max_words "$MAX_WORDS"
give --max_retries "$MAX_RETRIES"
give --dtype "$DTYPE"
give --revision "$REVISION"
give --max_model_len "$MAX_MODEL_LEN"
give --tensor_parallel_size "$TENSOR_PARALLEL_SIZE"
give --pipeline_parallel_size "$PIPELINE_PARALLEL_SIZE"
give --data_parallel_size "$DATA_PARALLEL_SIZE"
give --gpu_memory_utilization "$GPU_MEMORY_UTILIZATION"
give --base_url "$BASE_URL"
give --api_key_env "$API_KEY_ENV"
give --timeout "$TIMEOUT"
give --threads "$THREADS"

for split in "${splits[@]}"; do
    output="$OUTPUT_DIR/gsm8k_hierarchical_$split.json"
    "$PYTHON" "$SCRIPT" "${options[@]}" --split "$split" --output_path "$output"
    [[ -n "$SHARD" ]] || continue
    merge=("$PYTHON" -m hbd3lm.cli plans merge --output_path "$output")
    parts=("${output%.json}".shard-*-of-"${SHARD#*/}".json)
    if ((${#parts[@]} == ${SHARD#*/})); then
        # Parts of an earlier run that are still to be replaced do not fit: no fault of this task.
        "${merge[@]}" || echo "not merged; when all parts are written:$(printf ' %q' "${merge[@]}")"
    else
        echo "${#parts[@]} of ${SHARD#*/} parts are written; the last task merges them"
    fi
done
