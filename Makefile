# The entry points people use; CI calls the same targets. `make help` lists them.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help

# What the recipes take from the command line: `make apply YES=1`, `make plan ARGS=--detailed-exitcode`,
# `make plan CONFIG=other.toml`, `make handler ARCH=arm64`.
CONFIG ?= pipeline.toml
ARGS ?=
ARCH ?= x86_64
PYTHON ?= python3

VENV := .venv
PROVISIONER := target/debug/provisioner --config $(CONFIG)

# AWS's AL2023 runtime has glibc 2.34; x86_64 Lambda machines have AVX2, which x86-64-v3 names.
GLIBC := 2.34
ifeq ($(ARCH),arm64)
  TRIPLE := aarch64-unknown-linux-gnu
  CPU := neoverse-n1
else
  TRIPLE := x86_64-unknown-linux-gnu
  CPU := x86-64-v3
endif
# Paths of the building machine are mapped away, so that every machine builds the same bytes.
CARGO_HOME_DIR := $(or $(CARGO_HOME),$(HOME)/.cargo)
HANDLER_RUSTFLAGS := -C target-cpu=$(CPU) --remap-path-prefix=$(CARGO_HOME_DIR)=/cargo --remap-path-prefix=$(CURDIR)=/src

.PHONY: help
help: ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 22

.PHONY: build
build: ## build the provisioner
	cargo build --locked --workspace --bins

.PHONY: handler
handler: $(VENV)/.installed ## build the function's binary, target/lambda/bootstrap
	PATH="$(CURDIR)/$(VENV)/bin:$$PATH" RUSTFLAGS="$(HANDLER_RUSTFLAGS)" \
	  cargo zigbuild --locked --release --package handler --target $(TRIPLE).$(GLIBC)
	mkdir -p target/lambda
	cp target/$(TRIPLE)/release/bootstrap target/lambda/bootstrap

$(VENV)/.installed: requirements.txt
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/pip install --quiet --disable-pip-version-check --require-hashes --requirement requirements.txt
	touch $@
