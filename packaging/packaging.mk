# To install the programs, and to build the archives of a release. docs/releases.md describes both.

# Below ROOT are bin/provisioner, lib/provisioner/bootstrap-ARCHITECTURE and the man pages. A shell may leave a leading ~ to make.
ROOT ?= $(or $(CARGO_INSTALL_ROOT),$(CARGO_HOME_DIR))
INSTALLED = $(patsubst ~/%,$(HOME)/%,$(ROOT))
# The architectures of `make dist`. Each archive has the functions of all of them, since a pipeline may declare any.
ARCHS ?= x86_64 arm64
VERSION := $(shell sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml)
# Cargo's target folder of released provisioners, whose flags are not those of functions, and the files of the archives.
STAGE := $(TARGET)/dist
DIST := dist
# Files and folders that each archive has besides the programs.
ARCHIVED := README.md ARCHITECTURE.md CHANGELOG.md CONTRIBUTING.md SECURITY.md docs LICENSE LICENSE-APACHE LICENSE-MIT \
  "$(STAGE)/THIRD-PARTY-LICENSES"
# The provisioner runs with the glibc of CentOS 7 and everything newer.
OLDEST_GLIBC := 2.17
SOURCE_DATE_EPOCH ?= $(shell git log -1 --format=%ct 2>/dev/null || echo 0)

.PHONY: install
install: HANDLER := bootstrap-$(or $(ARCH),x86_64)
install: ## install the provisioner, the handler and the man pages, ROOT=~/.local below that folder
	$(MAKE) --no-print-directory function PACKAGE=handler BINARY="$(STAGE)/$(HANDLER)"
	cargo install --locked --path provisioner --root "$(INSTALLED)"
	mkdir -p "$(INSTALLED)/lib/provisioner"
	install -m 755 "$(STAGE)/$(HANDLER)" "$(INSTALLED)/lib/provisioner/$(HANDLER)"
	mkdir -p "$(INSTALLED)/share/man/man1"
	install -m 644 docs/man/*.1 "$(INSTALLED)/share/man/man1"

.PHONY: dist
dist: ## build the archives of a release in dist, ARCHS=x86_64 only for that
	for arch in $(ARCHS); do $(MAKE) --no-print-directory standard-library ARCH=$$arch; done
	rm -rf "$(DIST)"
	mkdir -p "$(DIST)" "$(STAGE)"
	$(PYTHON) packaging/dependencies.py --bill "$(DIST)/provisioner-$(VERSION).cdx.json" --licences "$(STAGE)/THIRD-PARTY-LICENSES"
	for arch in $(ARCHS); do $(MAKE) --no-print-directory programs ARCH=$$arch; done
	for arch in $(ARCHS); do $(MAKE) --no-print-directory archive ARCH=$$arch; done
	cd "$(DIST)" && sha256sum provisioner-* > SHA256SUMS

.PHONY: programs
programs: $(VENV)/.installed standard-library
	$(MAKE) --no-print-directory function PACKAGE=handler BINARY="$(STAGE)/bootstrap-$(ARCH)"
	PATH="$(CURDIR)/$(VENV)/bin:$$PATH" CARGO_ENCODED_RUSTFLAGS=$$'$(REMAPPED)' \
	  cargo zigbuild --locked --release --package provisioner --target $(TRIPLE).$(OLDEST_GLIBC) --target-dir "$(STAGE)"
	cp "$(STAGE)/$(TRIPLE)/release/provisioner" "$(STAGE)/provisioner-$(ARCH)"

# The same files give the same bytes: in order, of no user, with the time of the commit.
.PHONY: archive
archive: NAME := provisioner-$(VERSION)-$(ARCH)-linux
archive:
	rm -rf "$(STAGE)/$(NAME)"
	mkdir "$(STAGE)/$(NAME)"
	cp "$(STAGE)/provisioner-$(ARCH)" "$(STAGE)/$(NAME)/provisioner"
	cp -R $(foreach arch,$(ARCHS),"$(STAGE)/bootstrap-$(arch)") $(ARCHIVED) "$(STAGE)/$(NAME)"
	tar --create --format=ustar --sort=name --mtime=@$(SOURCE_DATE_EPOCH) --owner=0 --group=0 --numeric-owner \
	  --mode=u=rwX,go=rX --directory "$(STAGE)" "$(NAME)" | gzip -n -9 > "$(DIST)/$(NAME).tar.gz"

# The second copy has its target folder elsewhere, and all paths have other lengths.
.PHONY: reproduce
reproduce: $(VENV)/.installed ## build the handler in two folders (minutes), and compare the bytes
	folder="$$(mktemp -d)"; \
	trap 'rm -rf "$$folder"' EXIT; \
	build() { \
	  mkdir -p "$$1"; \
	  git ls-files -z | tar --create --null --files-from=- | tar --extract --directory "$$1"; \
	  ln -s "$(CURDIR)/$(VENV)" "$$1/$(VENV)"; \
	  $(MAKE) --no-print-directory --directory "$$1" function PACKAGE=handler CARGO_TARGET_DIR="$$2" BINARY="$$3"; \
	}; \
	build "$$folder/one" target "$$folder/first"; \
	build "$$folder/another/two" "$$folder/elsewhere" "$$folder/second"; \
	sha256sum "$$folder/first" "$$folder/second"; \
	cmp "$$folder/first" "$$folder/second"
