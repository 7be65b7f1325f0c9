#!/bin/sh
# Runs every test. Those on real processes wait most of the time, so several of them run at once, and those that only
# compute get what they leave. Those that take every CPU come last, alone, and so do those that leave little of a lease:
# what is to be survived there is the fault, not a busy machine.
#
#   sh tests/lanes.sh CARGO...      the cargo to call
set -eu
cd "$(dirname "$0")/.."

log=target/search.log
# They need nothing of metad but its rules, and these optimised.
search='--no-default-features --features driver --profile search --test search'
asking=''

main() {
    trap stop_asking EXIT
    ask_sudo
    "$@" test --locked --no-run $search
    "$@" test --locked --no-run --lib --bins --examples --test fast --test real --test fault
    trap 'trap - TERM; kill 0' INT TERM
    nice -n 19 "$@" test --locked --no-fail-fast $search -- --test-threads 2 >"$log" 2>&1 &
    searching=$!
    failed=''
    "$@" test --locked --no-fail-fast --lib --bins --examples --test fast || failed="$failed fast"
    "$@" test --locked --test real -- --test-threads "${RUST_TEST_THREADS:-5}" || failed="$failed real"
    "$@" test --locked --doc || failed="$failed doc"
    wait $searching || failed="$failed search"
    cat "$log"
    "$@" test --locked --test fault -- --test-threads "${RUST_TEST_THREADS:-3}" || failed="$failed fault"
    [ -z "$failed" ] || { echo "failed:$failed; see above" >&2; exit 1; }
}

# Partitions and containers are namespaces, which only root may make. What needs them runs itself with sudo; a password is
# asked for here, once, before anything else.
ask_sudo() {
    [ "$(id -u)" != 0 ] || return 0
    echo 'Some tests need namespaces of the network and of processes, which only root may make: they run with sudo.'
    command -v sudo >/dev/null || { echo 'There is no sudo here: install it, or run the tests as root.' >&2; exit 1; }
    sudo -n true 2>/dev/null || sudo -v || { echo 'sudo was refused: run the tests as root.' >&2; exit 1; }
    # As long as the tests run, it is not asked for again.
    (while sleep 60; do sudo -n true || :; done) >/dev/null 2>&1 &
    asking=$!
}

stop_asking() {
    [ -z "$asking" ] || kill "$asking" 2>/dev/null || :
}

main "$@"
