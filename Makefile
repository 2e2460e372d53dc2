# The commands of the README. Each does the set-up that it needs on a fresh Debian machine with Rust.

CARGO ?= cargo
# An access log to replay or to train on, and more options of `blissctl demo`.
LOG ?=
ARGS ?=
# Real data for tests and benchmarks, a folder with `access.log` and `models/`: `data` in a folder beside this one, if there
# is one. Tests that lack it say SKIPPED.
BLISS_TEST_DATA ?= $(patsubst %/access.log,%,$(firstword $(abspath $(wildcard ../*/data/access.log))))
# Not set to nothing, which would name the current folder.
ifeq ($(BLISS_TEST_DATA),)
unexport BLISS_TEST_DATA
else
export BLISS_TEST_DATA
endif
# How long `make soak` runs.
SECONDS ?= 600
# How often `make repeat` runs the tests.
TIMES ?= 10

# Where tools are that no package has.
export PATH := $(CURDIR)/target/tools/bin:$(PATH)

.PHONY: help demo demo-nginx test repeat quick check deny loom asan soak hour fuzz bench model lab lab-short python-test setup-build setup-check setup-deny setup-test setup-nginx setup-train setup-lab

help: ## what there is
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## / — /' | sort

demo: setup-build ## traffic, features, publication and scores in two processes; LOG=access.log replays a real one, ARGS=--json
	$(CARGO) build --locked --profile demo -p bliss-service
	$(CARGO) build --locked --profile demo -p bliss-ffi
	target/demo/blissctl demo $(if $(LOG),--log $(LOG)) $(ARGS)

demo-nginx: setup-build setup-nginx ## the same through nginx, with a curl line to try
	$(CARGO) build --locked --profile demo -p bliss-service
	$(CARGO) build --locked --profile demo -p bliss-ffi
	tools/demo_nginx.sh target/demo

test: setup-test ## everything that must hold: format, lints, unit, integration, doc, Lua and nginx tests, loom
	$(MAKE) check
	BLISS_CATBOOST_PYTHON=$(CURDIR)/target/venv/bin/python $(CARGO) test --locked --workspace
	$(MAKE) python-test
	$(MAKE) loom

python-test: ## tests of training and of the traffic lab
	@if PYTHONPATH=train target/venv/bin/python -c 'import bliss_train.cli, pytest'; \
	then PYTHONPATH=train target/venv/bin/python -m pytest -q -p no:cacheprovider train/tests; \
	else echo "SKIPPED: tests of train (its Python packages cannot be installed)" >&2; fi
	python3 -m unittest discover -s lab/tests

repeat: setup-test ## all tests TIMES times (default 10) beside a busy loop on each processor
	tools/repeat_tests.sh $(TIMES)

quick: ## format, lints and unit tests of what changed since main, under two minutes when built before
	tools/quick.sh

check: setup-check ## format, lints, licences and duplicate versions of dependencies
	$(CARGO) fmt --all --check
	$(CARGO) clippy --locked --workspace --all-targets -- -D warnings
	@if command -v luacheck >/dev/null; then luacheck -q lua examples; \
	else echo "SKIPPED: luacheck (Debian package lua-check)" >&2; fi
	@$(MAKE) --no-print-directory deny

deny: setup-deny ## licences, duplicate versions, sources and advisories of dependencies (cargo-deny)
	@if ! $(CARGO) deny --version >/dev/null 2>&1; then echo "SKIPPED: make deny (cargo-deny cannot be installed)" >&2; \
	else $(CARGO) deny --locked check licenses bans sources || exit 1; \
	if $(CARGO) deny --locked fetch db >/dev/null 2>&1; then $(CARGO) deny --locked check advisories; \
	else echo "SKIPPED: advisories (their database cannot be fetched)" >&2; fi; fi

loom: ## the protocol of mmap-sync under a model checker
	mmap-sync/ci/loom.sh

asan: ## mmap-sync's tests under AddressSanitizer (nightly Rust)
	mmap-sync/ci/asan.sh

fuzz: ## each fuzz target for a minute under AddressSanitizer (nightly Rust)
	tools/fuzz.sh mmap-sync damaged_files
	tools/fuzz.sh bliss-catboost model_import
	tools/fuzz.sh bliss-catboost model_open
	tools/fuzz.sh bliss-core features_open
	tools/fuzz.sh bliss-core policy_open
	tools/fuzz.sh bliss-service log_line
	tools/fuzz.sh bliss-service list_text
	tools/fuzz.sh bliss-service list_ranges
	tools/fuzz.sh bliss-service list_databases

soak: ## readers and a writer without pause for SECONDS (default 600), every byte of every read checked; then as long with kills and removed files
	$(CARGO) build --locked --profile demo -p mmap-sync --bins
	dir=$$(mktemp -d -p /dev/shm); target/demo/mmap-sync-stress soak $$dir/soak $(SECONDS) 3 4096 \
	&& target/demo/mmap-sync-stress chaos $$dir $(SECONDS); rc=$$?; rm -rf $$dir; exit $$rc

hour: setup-build ## the daemon through an hour of traffic, kills, rotated logs and removed files (BLISS_HOUR_SECONDS, default 3600)
	BLISS_HOUR_SECONDS=$${BLISS_HOUR_SECONDS:-3600} $(CARGO) test --locked -p bliss-service --test hour -- --nocapture

bench: setup-build ## BLISS and its peers in one run
	tools/setup.sh memcached redis-server zstd
	$(CARGO) run --locked --release -p benches --bin compare -- lookup

model: setup-build setup-train ## trains the default model again, from the logs in BLISS_TEST_DATA; EVALUATE=1: what it gives on sites left out
	$(CARGO) build --locked --profile demo -p bliss-service
	EVALUATE=$(EVALUATE) tools/train_default_model.sh $(BLISS_TEST_DATA)

lab: setup-lab ## real browsers and robots visit an nginx on loopback, each request's label known; ARGS="--stretch 5"
	nice lab/run $(ARGS)

lab-short: ## one person and four robots, half a minute
	lab/setup.sh --short
	nice lab/run --short

setup-build:
	tools/setup.sh gcc libc6-dev

setup-check:
	@tools/setup.sh lua-check || echo "cannot install lua-check; going on without" >&2

# One and a half minutes, once for each clone; four without `--debug`.
setup-deny: setup-build
	@$(CARGO) deny --version >/dev/null 2>&1 \
	|| $(CARGO) install --quiet --locked --debug --root target/tools --version 0.20.2 cargo-deny \
	|| echo "cannot install cargo-deny; going on without" >&2

setup-test: setup-build setup-nginx setup-train
	tools/setup.sh clang pkg-config valgrind memcached redis-server util-linux
	lab/setup.sh --short

# What training needs; people's labels are cleaned with a list of hosting networks.
setup-train:
	tools/setup.sh python3-venv libloc-database
	tools/setup_python.sh

setup-lab:
	lab/setup.sh

setup-nginx:
	tools/setup.sh nginx libnginx-mod-http-lua curl
