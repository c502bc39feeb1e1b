# The entry points for users and CI. `make help` lists the targets.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help

# Variables for the command line: `make apply YES=1`, `make plan ARGS=--detailed-exitcode`,
# `make plan CONFIG=other.toml`, `make handler ARCH=arm64`.
CONFIG ?= pipeline.toml
ARGS ?=
# The architecture of the functions; empty for the one that CONFIG declares.
ARCH ?=
PYTHON ?= python3

VENV := .venv
# Cargo's target folder, which CARGO_TARGET_DIR may move. The functions' binaries stay below LAMBDA, where the provisioner
# looks for them.
TARGET := $(or $(CARGO_TARGET_DIR),target)
PROVISIONER := "$(TARGET)/debug/provisioner" --config "$(CONFIG)"
LAMBDA := target/lambda
BOOTSTRAP := $(LAMBDA)/bootstrap
# The programs that `make build` builds.
BINS := --bins
EXAMPLES := $(patsubst examples/%/Cargo.toml,%,$(wildcard examples/*/Cargo.toml))
PORT ?= 4566
CARGO_DENY_VERSION := 0.20.2
CARGO_DENY := .tools/cargo-deny-$(CARGO_DENY_VERSION)/bin/cargo-deny
CARGO_MUTANTS_VERSION := 27.1.0
CARGO_MUTANTS := .tools/cargo-mutants-$(CARGO_MUTANTS_VERSION)/bin/cargo-mutants

# AWS's AL2023 runtime has glibc 2.34; x86_64 Lambda machines have AVX2, which is part of x86-64-v3.
GLIBC := 2.34
ifeq ($(ARCH),arm64)
  TRIPLE := aarch64-unknown-linux-gnu
  CPU := neoverse-n1
else
  TRIPLE := x86_64-unknown-linux-gnu
  CPU := x86-64-v3
endif
# The build machine's paths are remapped, so that every machine builds the same bytes. rustc writes the paths of the standard
# library's sources if they are installed. Cargo separates encoded flags by the unit separator, so that a path may contain
# spaces. Only recipes that need these variables call rustc for them.
CARGO_HOME_DIR := $(or $(CARGO_HOME),$(HOME)/.cargo)
RUSTC_COMMIT = $(shell rustc --version --verbose | sed -n 's/^commit-hash: //p')
REMAP_CRATES = --remap-path-prefix=$(CARGO_HOME_DIR)=/cargo
REMAP_STD = --remap-path-prefix=$(shell rustc --print sysroot)/lib/rustlib/src/rust=/rustc/$(RUSTC_COMMIT)
REMAP_SOURCES = --remap-path-prefix=$(CURDIR)=/src
REMAP_TARGET = $(if $(filter /%,$(TARGET)),\x1f--remap-path-prefix=$(TARGET)=/src/target)
REMAPPED = $(REMAP_CRATES)\x1f$(REMAP_STD)\x1f$(REMAP_SOURCES)$(REMAP_TARGET)
HANDLER_RUSTFLAGS = -Ctarget-cpu=$(CPU)\x1f$(REMAPPED)

.PHONY: help
help: ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 22

.PHONY: plan
plan: build handler ## show the changes that apply would make
	$(PROVISIONER) plan $(ARGS)

.PHONY: apply
apply: build handler ## apply pipeline.toml; asks for confirmation unless YES=1
	$(PROVISIONER) apply $(if $(YES),--yes) $(ARGS)

.PHONY: verify
verify: build ## test the deployment end to end with one object
	$(PROVISIONER) verify $(ARGS)

.PHONY: status
status: build ## show the deployment, recent counts and recent failures
	$(PROVISIONER) status $(ARGS)

.PHONY: dashboard
dashboard: build ## serve a dashboard of the counts at http://127.0.0.1:8080/
	$(PROVISIONER) dashboard $(ARGS)

.PHONY: destroy
destroy: build ## delete the resources that the pipeline owns, but no data; asks unless YES=1
	$(PROVISIONER) destroy $(if $(YES),--yes) $(ARGS)

.PHONY: local
local: build $(VENV)/.installed ## run a local AWS in the foreground; STRICT=1 makes it as strict as AWS
	"$(TARGET)/debug/local" --port $(PORT) $(if $(STRICT),--strict)

# The local AWS runs the functions on this machine.
test faults bench bench-rollup bench-scale: ARCH := $(or $(ARCH),x86_64)
demo: ARCH := $(if $(filter aarch64 arm64,$(shell uname -m)),arm64,x86_64)

# The first build is the wait for the demo, so it builds three programs only. Its handler is not optimised: the one for AWS
# would double the wait. Other functions that the file declares are built as for AWS.
.PHONY: demo
demo: BINS := --bin provisioner --bin demo --bin bootstrap
demo: ## run the whole pipeline on a temporary local AWS
	$(MAKE) --no-print-directory --jobs=2 build venv BINS="$(BINS)"
	[[ "$$($(PROVISIONER) validate --functions | cut -f2)" == $(BOOTSTRAP) ]] || \
	  $(MAKE) --no-print-directory handler BINS="$(BINS)" ARCH=$(ARCH)
	"$(TARGET)/debug/demo" --config "$(CONFIG)" $(ARGS)

# The browser tests fail without a browser. In CI they must run; elsewhere they are skipped with a message.
WITHOUT_BROWSER := $(if $(CI)$(shell command -v chromedriver),,yes)

# Most tests wait for the local AWS, and not for a processor.
test: export RUST_TEST_THREADS := $(or $(RUST_TEST_THREADS),3)
.PHONY: test
test: build handler examples ## run every test
	cargo test --locked --workspace $(ARGS) $(if $(WITHOUT_BROWSER),$(if $(filter --,$(ARGS)),,--) --skip browser::)
ifeq ($(WITHOUT_BROWSER),yes)
	@echo
	@echo "LEFT OUT: the tests of the dashboard in a browser. There is no chromedriver on the PATH; install Chromium"
	@echo "with it (Debian: apt-get install chromium chromium-driver) and run make test again."
endif

.PHONY: check
check: $(VENV)/.installed $(CARGO_DENY) ## check format, lints, dependencies, licences, generated files and the workflows
	cargo fmt --all --check
	cargo clippy --locked --workspace --all-targets -- --deny warnings
	$(PYTHON) packaging/dependencies.py --check
	$(PYTHON) packaging/release.py
	$(CARGO_DENY) --all-features check --hide-inclusion-graph bans licenses sources
	$(VENV)/bin/zizmor --offline --no-progress --strict-collection --pedantic .github
	$(VENV)/bin/check-jsonschema --builtin-schema vendor.github-workflows .github/workflows/*.yml
	$(VENV)/bin/check-jsonschema --builtin-schema vendor.github-actions .github/actions/*/action.yml
	for script in .github/scripts/*.sh; do bash -n "$$script"; done
	$(VENV)/bin/check-jsonschema --builtin-schema vendor.dependabot .github/dependabot.yml
	$(VENV)/bin/check-jsonschema --schemafile docs/pipeline.schema.json "$(CONFIG)"
	cargo test --locked --workspace --lib -- generated_files_are_current

.PHONY: generate
generate: ## write the schema, the reference and the man pages, after a change of keys or arguments
	GENERATE=1 cargo test --locked --workspace --lib -- generated_files_are_current

# Terraform is measured only if it is installed.
.PHONY: bench
bench: handler $(VENV)/.installed $(VENV)-bench/.installed ## time plans and applies beside other programs (about 20 minutes), and write docs/benchmarks.md
	RUSTFLAGS="-C target-cpu=$(CPU)" cargo build --locked --release --package provisioner --target-dir "$(TARGET)/bench"
	PATH="$(CURDIR)/$(VENV)-bench/bin:$$PATH" PYTHONDONTWRITEBYTECODE=1 $(VENV)/bin/python bench/provision.py "$(TARGET)/bench/release/provisioner" $(BOOTSTRAP) docs/benchmarks.md

# Programs other than Python packages (igzip, node) are measured only if they are installed.
.PHONY: bench-rollup
bench-rollup: build handler $(VENV)-bench/.installed ## benchmark the rollup against other programs, and write docs/benchmarks.md
	RUSTFLAGS="-C target-cpu=$(CPU)" cargo build --locked --release --package provisioner --target-dir "$(TARGET)/bench"
	$(VENV)-bench/bin/python bench/rollup.py "$(TARGET)/bench/release/provisioner" "$(TARGET)/debug/samples" $(BOOTSTRAP) docs/benchmarks.md

.PHONY: bench-scale
bench-scale: handler $(VENV)/.installed ## count bursts against a store that conflicts, and write docs/benchmarks.md
	$(VENV)/bin/python bench/scale.py $(BOOTSTRAP) docs/benchmarks.md

$(VENV)-bench/.installed: bench/requirements.txt
	$(PYTHON) -m venv $(VENV)-bench
	$(VENV)-bench/bin/pip install --quiet --no-compile --disable-pip-version-check --require-hashes --requirement bench/requirements.txt
	touch $@

.PHONY: mutants
mutants: $(CARGO_MUTANTS) ## change the code of counts, periods and plans in small ways, and see that a test fails (hours)
	$(CARGO_MUTANTS) mutants --output "$(TARGET)" $(ARGS)

.PHONY: faults
faults: build handler examples ## inject every fault (about 20 minutes), and write the figures of docs/reliability.md
	SIMULATIONS=100000 cargo test --locked --release --workspace --lib -- counts_are_exact
	"$(TARGET)/debug/faults" docs/reliability.md

.PHONY: behaviours
behaviours: $(VENV)/.installed ## write the table of docs/reliability.md that lists the strict local AWS's behaviours
	$(VENV)/bin/python tests/strict --table docs/reliability.md

.PHONY: build
build: ## build the provisioner
	cargo build --locked --workspace $(BINS)

# The binary of a function is at $(LAMBDA)/PACKAGE/bootstrap, and the handler's at $(BOOTSTRAP), which is always built. A
# binary at another path is built elsewhere.
.PHONY: handler
handler: build ## build the functions that pipeline.toml declares, below target/lambda
	functions="$$($(PROVISIONER) validate --functions)"; \
	make_function() { \
	  $(MAKE) --no-print-directory function ARCH="$(or $(ARCH),$$1)" PACKAGE="$$2" BINARY="$$3" </dev/null; \
	}; \
	make_function "$${functions%%$$'\t'*}" handler $(BOOTSTRAP); \
	while IFS=$$'\t' read -r architecture path; do \
	  package="$$(basename "$$(dirname "$$path")")"; \
	  case "/$$path" in \
	    /$(BOOTSTRAP)) ;; \
	    */$(BOOTSTRAP)) make_function "$$architecture" handler "$$path" ;; \
	    */$(LAMBDA)/"$$package"/bootstrap) \
	      if [[ -f "$$package/Cargo.toml" || -f "examples/$$package/Cargo.toml" ]]; then \
	        make_function "$$architecture" "$$package" "$$path"; \
	      fi ;; \
	  esac; \
	done <<< "$$functions"

.PHONY: examples
examples: ## build the functions in examples, below target/lambda
	for package in $(EXAMPLES); do \
	  $(MAKE) --no-print-directory function ARCH=x86_64 PACKAGE="$$package" BINARY="$(LAMBDA)/$$package/bootstrap"; \
	done

# Builds the function of the package PACKAGE for ARCH, and copies it to BINARY. The handler's is called bootstrap.
PROGRAM := $(if $(filter handler,$(PACKAGE)),bootstrap,$(PACKAGE))
.PHONY: function
function: $(VENV)/.installed standard-library
	PATH="$(CURDIR)/$(VENV)/bin:$$PATH" CARGO_ENCODED_RUSTFLAGS=$$'$(HANDLER_RUSTFLAGS)' \
	  cargo zigbuild --locked --profile function --package "$(PACKAGE)" --target $(TRIPLE).$(GLIBC)
	mkdir -p "$$(dirname "$(BINARY)")"
	cp "$(TARGET)/$(TRIPLE)/function/$(PROGRAM)" "$(BINARY)"

.PHONY: standard-library
standard-library:
	@if [[ ! -d "$$(rustc --print target-libdir --target $(TRIPLE))" ]]; then \
	  echo "error: Rust's standard library for $(TRIPLE) is not installed" >&2; \
	  echo "help: run \`rustup target add $(TRIPLE)\` in this folder" >&2; \
	  exit 1; \
	fi

include packaging/packaging.mk

.PHONY: venv
venv: $(VENV)/.installed ## install the local AWS and the linker into .venv

$(CARGO_DENY):
	cargo install --debug --locked --root .tools/cargo-deny-$(CARGO_DENY_VERSION) --version $(CARGO_DENY_VERSION) cargo-deny

$(CARGO_MUTANTS):
	cargo install --locked --root .tools/cargo-mutants-$(CARGO_MUTANTS_VERSION) --version $(CARGO_MUTANTS_VERSION) cargo-mutants

$(VENV)/.installed: requirements.txt
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/pip install --quiet --no-compile --disable-pip-version-check --require-hashes --requirement requirements.txt
	touch $@
