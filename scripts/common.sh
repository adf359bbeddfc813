# What the shell scripts share; sourced from the root of the repository.

fail() { # one message, status 1
    echo "error: $*" >&2
    exit 1
}

override() { # override KEY TEXT: KEY=TEXT for main.py, as hbd3lm/commands/overrides.py quotes it
    # A backslash escapes, itself too, only before what ends the text or begins an interpolation.
    local quoted
    quoted=$(LC_ALL=C sed -e 's/\(\\*\)\${/\1\1\\${/g' -e 's/\(\\*\)"/\1\1\\"/g' \
        -e '$ s/\(\\*\)$/\1\1/' <<<"$2")
    printf '%s="%s"' "$1" "$quoted"
}

check_switches() { # check_switches NAME...: each variable is 1 or 0, yes or no
    local name
    for name in "$@"; do
        [[ "${!name}" == [01] ]] || fail "$name=${!name} is neither 0 nor 1"
    done
}

find_python() { # sets PYTHON to an interpreter that has the package, .venv's if there is one
    if [[ -z "${PYTHON:-}" ]]; then
        PYTHON=python
        [[ ! -x .venv/bin/python ]] || PYTHON=.venv/bin/python
    fi
    command -v "$PYTHON" >/dev/null || fail "no $PYTHON; run 'make setup' or set PYTHON"
    "$PYTHON" -c 'import hbd3lm' 2>/dev/null ||
        fail "$PYTHON cannot import hbd3lm; run 'make setup' or '$PYTHON -m pip install -e .'"
}
