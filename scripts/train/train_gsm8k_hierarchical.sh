#!/bin/bash
#SBATCH --job-name=gsm8k-train
#SBATCH --output=%x-%j.out
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=4
#SBATCH --gres=gpu:4
#SBATCH --cpus-per-task=8
#SBATCH --mem=128G
#SBATCH --time=24:00:00
#SBATCH --signal=USR1@120
#SBATCH --requeue
#SBATCH --open-mode=append
#
# Hierarchical BD3-LM on GSM8K: question -> plan -> execution. Submit from the root of the
# repository (4 GPUs, up to 24 hours),
#
#     sbatch scripts/train/train_gsm8k_hierarchical.sh
#
# or run with bash on whatever this machine has. Settings come from the environment, and any
# override of main.py may follow:
#
#     MODEL_SIZE=nano MAX_STEPS=2000 bash scripts/train/train_gsm8k_hierarchical.sh
#     BATCH_SIZE=16 sbatch scripts/train/train_gsm8k_hierarchical.sh training.accumulate=2
#
# Two minutes before its time is up, or when it is preempted, a job saves its state after the step
# it is in and queues itself again; then it goes on from there. So does a job that was cut off, when
# it is submitted again. Several nodes: sbatch --nodes=2 ...
set -euo pipefail
# Paths are meant as the caller sees them, also from outside the repository.
for name in DATA_PATH VALID_PATH DATA_DIR RUN_DIR; do
    [[ -f main.py || -z "${!name:-}" || "${!name}" == /* ]] || declare "$name=$PWD/${!name}"
done

MODEL_SIZE="${MODEL_SIZE:-small}"                # nano | tiny | small | medium
BATCH_SIZE="${BATCH_SIZE:-32}"                   # problems per GPU (process) at a time
GLOBAL_BATCH_SIZE="${GLOBAL_BATCH_SIZE:-}"       # problems per step; empty: BATCH_SIZE x processes
MAX_STEPS="${MAX_STEPS:-50000}"
LR="${LR:-3e-4}"                                 # peak learning rate
WARMUP_STEPS="${WARMUP_STEPS:-}"                 # empty: 2500, at most a tenth of MAX_STEPS
BLOCK_SIZE="${BLOCK_SIZE:-16}"                   # tokens denoised together
TOTAL_LEN="${TOTAL_LEN:-512}"                    # cap; below 512 the three parts shrink with it
TOKENIZER="${TOKENIZER:-gsm}"                    # gsm | gpt2
DATA_PATH="${DATA_PATH:-data/gsm8k/gsm8k_hierarchical_train.json}"
VALID_PATH="${VALID_PATH:-}"                     # empty: a fixed part of DATA_PATH is held out
DATA_DIR="${DATA_DIR:-}"                         # folder with gpt2/, for TOKENIZER=gpt2 offline
RUN_DIR="${RUN_DIR:-outputs/gsm8k_hierarchical_$MODEL_SIZE}"
SEED="${SEED:-0}"
ACCELERATOR="${ACCELERATOR:-}"                   # gpu | cpu; empty: gpu in a job, else what is here
STRATEGY="${STRATEGY:-auto}"                     # auto (ddp) | fsdp (training.optimizer=adamw)

# SLURM copies this file elsewhere; the repository is where the job was submitted.
cd "${SLURM_SUBMIT_DIR:-$(dirname "${BASH_SOURCE[0]}")/../..}"
[[ -f main.py && -f scripts/common.sh ]] || {
    echo "error: $PWD is not the repository; submit from its root" >&2
    exit 1
}
source scripts/common.sh

# --- prerequisites ----------------------------------------------------------------------------
find_python
[[ -f "$DATA_PATH" ]] ||
    fail "no data file $DATA_PATH (DATA_PATH); write it with: $PYTHON" \
        "scripts/data_prep/generate_gsm8k_plans.py --split train --output_path $(printf %q "$DATA_PATH")"
[[ -z "$VALID_PATH" || -f "$VALID_PATH" ]] || fail "no validation file $VALID_PATH (VALID_PATH)"

# --- one command ------------------------------------------------------------------------------
command=("$PYTHON" main.py
    mode=train
    "model=$MODEL_SIZE"
    "tokenizer=$TOKENIZER"
    "block_size=$BLOCK_SIZE"
    training.hierarchical.enabled=true
    "training.hierarchical.total_len=$TOTAL_LEN"
    "training.batch_size=$BATCH_SIZE"
    "training.max_steps=$MAX_STEPS"
    "training.learning_rate=$LR"
    "$(override data.train_path "$DATA_PATH")"
    "$(override run_dir "$RUN_DIR")"
    "trainer.strategy=$STRATEGY"
    "seed=$SEED")
[[ -z "$GLOBAL_BATCH_SIZE" ]] || command+=("training.global_batch_size=$GLOBAL_BATCH_SIZE")
[[ -z "$WARMUP_STEPS" ]] || command+=("training.warmup_steps=$WARMUP_STEPS")
[[ -z "$VALID_PATH" ]] || command+=("$(override data.valid_path "$VALID_PATH")")
[[ -z "$DATA_DIR" ]] || command+=("$(override data.dir "$DATA_DIR")")
if [[ -z "${SLURM_JOB_ID:-}" ]]; then
    [[ -z "$ACCELERATOR" ]] || command+=("trainer=$ACCELERATOR")
    echo "${command[*]} $*"
    exec "${command[@]}" "$@"
fi

# --- in a job: one process per GPU, started by srun -------------------------------------------
# Lightning finds the place of each process, and where to meet, in SLURM's variables. If one dies
# the others are ended a minute later, or they would wait for it until the time is up.
nodes="${SLURM_JOB_NUM_NODES:-1}"
tasks="${SLURM_NTASKS_PER_NODE:-$((${SLURM_NTASKS:-1} / nodes))}"
command=(srun --wait=60 "${command[@]}"
    "trainer=${ACCELERATOR:-gpu}"
    "trainer.devices=$tasks"
    "trainer.num_nodes=$nodes")
echo "job $SLURM_JOB_ID, start ${SLURM_RESTART_COUNT:-0}: ${command[*]} $*"
trap : TERM USR1 # meant for the processes, which save; this shell waits for them
status=0
"${command[@]}" "$@" || status=$?
# 75: stopped by a signal, state saved. A job that was cancelled is not running any more; one that
# SLURM preempted is queued again by SLURM itself.
if ((status == 75)) && [[ "$(squeue -h -j "$SLURM_JOB_ID" -o %T)" == RUNNING ]]; then
    scontrol requeue "$SLURM_JOB_ID" ||
        fail "job $SLURM_JOB_ID could not be queued again; submit it again to go on"
    echo "job $SLURM_JOB_ID is queued again and goes on from its checkpoint"
fi
exit "$status"
