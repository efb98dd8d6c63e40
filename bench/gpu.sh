#!/bin/sh
# On a machine with a GPU: tests, kernels and copies, in at most 8 minutes and without a network.
# Writes bench/gpu.md, or PAGE.
#
#   bench/gpu.sh [--dry-run]
#
# A dry run needs no GPU: it tries every command on a few small series.
set -u
cd "$(dirname "$0")/.." || exit 1
python=${PYTHON:-.venv/bin/python}
page=${PAGE:-bench/gpu.md}
output=$(mktemp)
trap 'rm -f "$output"' EXIT
failed=0

part() { # title, seconds, command
    title=$1 limit=$2
    shift 2
    echo "$title" >&2
    timeout "$limit" "$@" >"$output" 2>&1
    status=$?
    [ $status -eq 0 ] || failed=1
    {
        printf '\n## %s\n\n```\n' "$title"
        sed 's/[[:space:]]*$//' "$output"
        printf '```\n'
        [ $status -eq 0 ] || printf '\nIt ended with status %s (124: it ran past %s s).\n' $status "$limit"
    } >>"$page"
}

printf '# On a GPU\n\nPrinted by `bench/gpu.sh`.\n' >"$page"
if [ "${1:-}" = --dry-run ]; then
    part kernel 60 "$python" bench/gpu.py --dry-run --repeats 1
    part staging 60 "$python" bench/staging.py
    part tests 60 "$python" -m pytest -qq --collect-only -m gpu tests/core/test_kernels.py
    exit $failed
fi
part kernel 180 "$python" bench/gpu.py --seconds 150
part staging 60 "$python" bench/staging.py
part tests 150 env TRITON_INTERPRET=0 "$python" -m pytest -q -m gpu \
    tests/core tests/engine tests/processes tests/client
part 'kernel of the CPU' 80 "$python" bench/kernel.py --repeats 1
exit $failed
