#!/usr/bin/env bash
# End-to-end test: data, plans, analysis, token lengths, mask, training, perplexity, answers and the
# analysis of the model's own plans, on a few problems. A minute or two on a CPU; needs no network.
#
#     bash test_gsm8k_pipeline.sh
#     DATA_DIR=path/to/folder bash test_gsm8k_pipeline.sh     GSM8K from gsm8k_train.jsonl, ...
#     OUTPUT_DIR=check STEPS=100 bash test_gsm8k_pipeline.sh  keep the files; train longer
#
# Status 0 if every step passes; else 1, with the end of the failed step's output.
set -euo pipefail
from="$PWD"
cd "$(dirname "${BASH_SOURCE[0]}")"
source scripts/common.sh

PYTHON="${PYTHON:-}"                            # default: .venv's, else python
DATA_DIR="${DATA_DIR:-${HBD3LM_DATA_DIR:-}}"    # default: embedded (generated) problems
STEPS="${STEPS:-20}"                            # optimiser steps
NUM_TRAIN="${NUM_TRAIN:-64}"                    # training problems
NUM_TEST="${NUM_TEST:-8}"                       # problems to score
OUTPUT_DIR="${OUTPUT_DIR:-}"                    # default: a temporary folder, removed on success

absolute() { # a path as the caller meant it, seen from the root of the repository
    case "$1" in /*) echo "$1" ;; *) echo "$from/$1" ;; esac
}

find_python
for name in STEPS NUM_TRAIN NUM_TEST; do
    [[ "${!name}" =~ ^[1-9][0-9]*$ ]] || fail "$name=${!name} is no positive number"
done
if [[ -n "$DATA_DIR" ]]; then
    DATA_DIR=$(absolute "$DATA_DIR")
    problems=(--dataset gsm8k --data_dir "$DATA_DIR")
    echo "problems: GSM8K from $DATA_DIR"
else
    problems=(--dataset embedded)
    echo "problems: embedded ones (DATA_DIR=folder for GSM8K)"
fi
temporary=
if [[ -z "$OUTPUT_DIR" ]]; then
    OUTPUT_DIR=$(mktemp -d)
    temporary=yes
fi
OUTPUT_DIR=$(absolute "$OUTPUT_DIR")
out="$OUTPUT_DIR"
run="$out/run"
mkdir -p "$out/logs"
# A run left here by an earlier call would be continued, and prove nothing.
[[ ! -e "$run" ]] || fail "$run exists already; choose another OUTPUT_DIR"

steps_done=0
step() { # step NAME COMMAND...: run quietly, report, stop at the first failure
    local name=$1 started=$SECONDS log
    shift
    steps_done=$((steps_done + 1))
    log="$out/logs/$(printf %02d "$steps_done").log"
    if ! "$@" >"$log" 2>&1 </dev/null; then
        echo "FAIL  $name: $*"
        tail -n 25 "$log" | sed 's/^/      /'
        echo "      (all of it: $log)"
        exit 1
    fi
    echo "PASS  $name ($((SECONDS - started)) s)"
}

expect() { # expect WHAT TEST...: a claim about what a step left behind
    local what=$1
    shift
    if ! "$@"; then
        echo "FAIL  $what: $*"
        exit 1
    fi
}

lines() { # lines FILE N: FILE has N lines
    [[ "$(wc -l <"$1")" -eq "$2" ]]
}

# --- data and plans ---------------------------------------------------------------------------
for split in train test; do
    count="$NUM_TRAIN"
    [[ "$split" == train ]] || count="$NUM_TEST"
    step "plans of $count $split problems" \
        "$PYTHON" scripts/data_prep/generate_gsm8k_plans.py "${problems[@]}" --planner rules \
        --split "$split" --num_examples "$count" --output_path "$out/$split.json"
    expect "one record a problem" test "$(grep -c '"plan": "' "$out/$split.json")" -eq "$count"
done
step "data as training sees it" \
    "$PYTHON" gsm8k_dataloader.py --data_path "$out/train.json" --num_samples 3

# --- analysis ---------------------------------------------------------------------------------
step "plans are abstract" \
    "$PYTHON" scripts/analysis/analyze_gsm8k_plans.py --data_path "$out/train.json" \
    --output_plot "$out/analysis.png" --num_samples 3 --strict
expect "analysis figure" test -s "$out/analysis.png"
expect "analysis metrics" grep -q '"exec_plan_ratio"' "$out/analysis.json"
step "token lengths" \
    "$PYTHON" gsm8k_dataloader.py --data_path "$out/train.json" --analyze \
    --output_json "$out/lengths.json"
expect "token lengths" grep -q '"recommended"' "$out/lengths.json"

# --- mask -------------------------------------------------------------------------------------
step "attention mask" "$PYTHON" test_hierarchical_mask.py --output_plot "$out/mask.png"
expect "picture of the mask" test -s "$out/mask.png"

# --- training ---------------------------------------------------------------------------------
common=("$(override run_dir "$run")" "trainer.progress_bar=false" "trainer.devices=1")
test_set=("$(override data.test_path "$out/test.json")")
step "train nano for $STEPS steps" \
    "$PYTHON" main.py mode=train model=nano "${common[@]}" \
    "$(override data.train_path "$out/train.json")" \
    training.max_steps="$STEPS" training.batch_size=8 training.learning_rate=1e-3 \
    training.valid_every="$STEPS" training.checkpoint_every="$STEPS" training.valid_samples=1 \
    training.hierarchical.plan_len=64 training.hierarchical.exec_len=128
expect "all steps were taken" grep -q "\"steps\": $STEPS," "$run/train_summary.json"
expect "checkpoint" test -s "$run/checkpoints/last.ckpt"
expect "loss curve" test -s "$run/loss.png"

# --- evaluation -------------------------------------------------------------------------------
step "perplexity" \
    "$PYTHON" main.py mode=ppl_eval "${common[@]}" "${test_set[@]}" eval.samples=2
expect "perplexity of the execution" grep -q '"execution"' "$run/eval/perplexity.json"
step "answers to $NUM_TEST problems" \
    "$PYTHON" main.py mode=sample_eval "${common[@]}" "${test_set[@]}"
expect "accuracy" grep -q '"accuracy_strict"' "$run/eval/sample_eval_full.json"
expect "one record a problem" lines "$run/eval/samples_full.jsonl" "$NUM_TEST"
step "analysis of the plans the model wrote" \
    "$PYTHON" scripts/analysis/analyze_gsm8k_plans.py --num_samples 1 \
    --data_path "$run/eval/samples_full.jsonl" --output_plot "$out/own_plans.png"
expect "figure of its own plans" test -s "$out/own_plans.png"

echo "all $steps_done steps passed in $SECONDS s"
if [[ -n "$temporary" ]]; then
    rm -rf "$OUTPUT_DIR"
else
    echo "files: $OUTPUT_DIR"
fi
