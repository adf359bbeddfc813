#!/usr/bin/env bash
# Makes .venv and installs the package, editable, with pinned dependencies (`make setup`).
#
#     PYTHON=python3.12 bash scripts/setup.sh     another interpreter, 3.10 or newer
#     TORCH=cpu bash scripts/setup.sh             PyTorch without CUDA
#     TORCH=default bash scripts/setup.sh         PyTorch's default build: CUDA on Linux
#     EXTRAS=dev,lm-eval bash scripts/setup.sh    further extras of pyproject.toml
#
# TORCH=auto takes the CPU build on Linux without an NVIDIA GPU, which saves gigabytes.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source scripts/common.sh

PYTHON="${PYTHON:-python3}"
TORCH="${TORCH:-auto}"
EXTRAS="${EXTRAS:-dev}"
CPU_INDEX=https://download.pytorch.org/whl/cpu

case "$TORCH" in
    auto | cpu | default) ;;
    *) fail "TORCH=$TORCH is none of auto, cpu, default" ;;
esac

# --- Python -----------------------------------------------------------------------------------
command -v "$PYTHON" >/dev/null || fail "no $PYTHON; install Python 3.10 or newer, or set PYTHON"
"$PYTHON" -c 'import sys; sys.exit(sys.version_info < (3, 10))' ||
    fail "$("$PYTHON" --version 2>&1) ($PYTHON) is too old: Python 3.10 or newer is needed;" \
        "name one with PYTHON=python3.12"

if ! .venv/bin/python -m pip --version >/dev/null 2>&1; then
    echo "setup: making .venv with $("$PYTHON" --version)"
    "$PYTHON" -m venv --clear .venv ||
        fail "$PYTHON cannot make virtual environments; on Debian and Ubuntu: apt install python3-venv"
fi

# --- PyTorch, the build that fits the machine ---------------------------------------------------
pip_install() {
    .venv/bin/python -m pip install --quiet --no-compile --disable-pip-version-check -c constraints.txt "$@"
}

torch=$(sed -n 's/^\(torch==[0-9.]*\).*/\1/p' constraints.txt)
[[ -n "$torch" ]] || fail "constraints.txt does not pin torch"
if [[ "$TORCH" == auto ]] && ! nvidia-smi -L >/dev/null 2>&1; then
    TORCH=cpu
fi
# macOS has one build only, and it has no "+cpu" in its version.
[[ "$(uname -s)" == Linux ]] || TORCH=default

cpu_index_answers() { # within seconds, where pip would retry for minutes
    .venv/bin/python - "$CPU_INDEX/torch/" <<'PROBE' 2>/dev/null
import os, sys, threading, urllib.request

def probe():
    with urllib.request.urlopen(urllib.request.Request(sys.argv[1], method="HEAD"), timeout=5):
        os._exit(0)

# A thread, since the timeout of a socket does not cover name resolution.
thread = threading.Thread(target=probe, daemon=True)
thread.start()
thread.join(8)
os._exit(1)
PROBE
}

if [[ "$TORCH" == cpu ]]; then
    if cpu_index_answers; then
        echo "setup: $torch, CPU build (about 200 MB), from $CPU_INDEX"
        pip_install --extra-index-url "$CPU_INDEX" "$torch+cpu"
    elif pip_install "$torch+cpu" 2>/dev/null; then
        echo "setup: $torch, CPU build, from the places pip is configured to look in"
    else
        echo "setup: WARNING: $CPU_INDEX is out of reach and pip finds no CPU build of $torch for" \
            "this Python elsewhere; installing the default build, on x86 several GB with CUDA"
        pip_install "$torch"
    fi
else
    echo "setup: $torch, the default build for this machine"
    pip_install "$torch"
fi

# --- the package --------------------------------------------------------------------------------
echo "setup: hbd3lm and its dependencies"
pip_install -e ".[$EXTRAS]"
# What pip does on one core and was told not to do. Status 1 means that some package holds files
# that are no Python of this version, which pip would not mind either.
.venv/bin/python -m compileall -qq -j 0 .venv/lib || [[ $? == 1 ]]
echo "setup: done; use it with 'source .venv/bin/activate', or as .venv/bin/python"
