#!/bin/sh
# Runs every test, in three lanes side by side: most tests wait for real processes most of the time, and would leave
# the machine idle. The tests that only compute get what the others leave. Those that take every CPU come last, alone, and
# so do those that leave little of a lease: what is to be survived there is the fault, not a busy machine.
#
#   sh tests/lanes.sh CARGO...      the cargo to call
#
# The first lane shows its tests as they run, the others theirs when they are done.
set -eu
cd "$(dirname "$0")/.."

computing='model simulation'
second='doctor fence hang history page payload prometheus restored_etcd rpc_bad_input store_conformance'
alone='faults starvation verdict'
logs=target/lanes
asking=''

main() {
    trap stop_asking EXIT
    ask_sudo
    "$@" test --locked --no-run
    mkdir -p "$logs"
    RUST_TEST_THREADS=${RUST_TEST_THREADS:-3}
    export RUST_TEST_THREADS
    trap 'trap - TERM; kill 0' INT TERM
    nice -n 19 "$@" test --locked --no-fail-fast $(flags $computing) >"$logs/computing" 2>&1 &
    lane_3=$!
    "$@" test --locked --no-fail-fast $(flags $second) >"$logs/second" 2>&1 &
    lane_2=$!
    failed=''
    "$@" test --locked --no-fail-fast --lib --bins $(flags $(first)) || failed="$failed first"
    "$@" test --locked --doc || failed="$failed doc"
    wait $lane_2 || failed="$failed second"
    cat "$logs/second"
    wait $lane_3 || failed="$failed computing"
    cat "$logs/computing"
    "$@" test --locked --no-fail-fast $(flags $alone) || failed="$failed alone"
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

# Every file of tests that is in no other lane, so that a new one is not forgotten.
first() {
    for file in tests/*.rs; do
        name=$(basename "$file" .rs)
        case " $computing $second $alone " in
            *" $name "*) ;;
            *) echo "$name" ;;
        esac
    done
}

flags() {
    for name; do echo "--test $name"; done
}

main "$@"
