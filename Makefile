# podsec. `make` alone lists what there is.

# Where things go. PREFIX is for packagers; podsec itself is tested with /usr only.
DESTDIR ?=
PREFIX  ?= /usr
BIN_DIR ?= $(CURDIR)/target/dist

SHARE = $(DESTDIR)$(PREFIX)/share
DOCS = $(BIN_DIR)/docs

# A Rust that tests/host/deps got, even when an older one of the distribution's is there too.
export PATH := $(if $(CARGO_HOME),$(CARGO_HOME),$(HOME)/.cargo)/bin:$(PATH)

# What looks nobody up by NSS is linked statically, at a fixed address: it starts in half the time, and an entry starts three
# of these programs. podsecd-worker asks NSS, which glibc can only load into a dynamic program. A target is named, so that
# the flags do not reach build scripts; a directory of their own, so that the two kinds do not rebuild each other.
TRIPLE = $(shell rustc -vV | sed -n 's/^host: //p')
STATIC = --target $(TRIPLE) --target-dir target/static \
	--config 'target.$(TRIPLE).rustflags=["-Ctarget-feature=+crt-static","-Crelocation-model=static"]'
STATIC_BINS = podsecd podsecd-front podsecctl podsec-u7s

.PHONY: help build faults demo shell check bench install install-files uninstall clean
.NOTPARALLEL:

help: ## this list
	@sed -n 's/^\([a-z-]*\):.*## /  make \1\t/p' $(MAKEFILE_LIST) | expand -t 18

build: ## compile everything for release into target/dist
	# The gate by itself: with the others it would be linked with what only they need of the crates that they share.
	cargo build --release --locked $(STATIC) -p podsecd
	cargo build --release --locked $(STATIC) $(patsubst %,-p %,$(filter-out podsecd,$(STATIC_BINS)))
	cargo build --release --locked --target-dir target -p podsecd-worker
	cargo build --release --locked --target-dir target -p podsec-checks
	@mkdir -p target/dist
	@cp -lf $(STATIC_BINS:%=target/static/$(TRIPLE)/release/%) target/release/podsecd-worker target/release/podsec-monitor target/dist/
	@target/static/$(TRIPLE)/release/podsec-docs target/dist/docs

# For the tests of crashes only: never installed by anything else.
faults:
	cargo build --locked -p podsecd-worker --features faults
	@mkdir -p target/faults
	@strip -o target/faults/podsecd-worker target/debug/podsecd-worker

demo: ## show it: real namespaces, who gets in, who does not, the audit; leaves nothing behind
	@tests/host/deps build demo
	@$(MAKE) --no-print-directory build
	@tests/demo/demo

shell: ## a shell on a throwaway host where podsec runs
	@tests/host/deps build demo
	@$(MAKE) --no-print-directory build
	@tests/demo/shell

check: ## all tests; the counts at the end
	@tests/host/deps build check
	@tests/host/check

bench: ## all benchmarks, or NAME=enter; JSON=1 for a line per figure
	@tests/host/deps build bench
	@$(MAKE) --no-print-directory build >&2
	@cargo build --release --locked --target-dir target -p podsec-tests
	@target/release/podsec-bench $(NAME) $(if $(JSON),--json)

install: build install-files ## build and install below DESTDIR; keeps what is in /etc/podsec
	@echo 'What is left to do on this host, accounts and units: systemd/README.md'

install-files:
	install -D -t $(DESTDIR)$(PREFIX)/libexec/podsec $(addprefix $(BIN_DIR)/,podsecd podsecd-front podsecd-worker podsec-monitor)
	install -D -t $(DESTDIR)$(PREFIX)/bin $(addprefix $(BIN_DIR)/,podsecctl podsec-u7s)
	ln -sf podsecctl $(DESTDIR)$(PREFIX)/bin/nsenter_u7s
	install -D -m 644 -t $(DESTDIR)$(PREFIX)/lib/systemd/system systemd/system/*
	install -D -m 644 -t $(DESTDIR)$(PREFIX)/lib/sysusers.d systemd/sysusers.d/podsec.conf
	install -D -m 644 -t $(DESTDIR)$(PREFIX)/lib/tmpfiles.d systemd/tmpfiles.d/podsec.conf
	install -D -m 644 -t $(DESTDIR)/etc/logrotate.d systemd/logrotate.d/podsec
	install -D -m 644 -t $(SHARE)/podsec/monitoring systemd/monitoring/*
	install -d $(DESTDIR)/etc/podsec
	[ ! -d $(DOCS) ] || install -D -m 644 -t $(SHARE)/man/man1 $(DOCS)/man/*.1
	[ ! -d $(DOCS) ] || install -D -m 644 -t $(SHARE)/bash-completion/completions $(DOCS)/completions/bash/*
	[ ! -d $(DOCS) ] || install -D -m 644 -t $(SHARE)/zsh/site-functions $(DOCS)/completions/zsh/*
	[ ! -d $(DOCS) ] || install -D -m 644 -t $(SHARE)/fish/vendor_completions.d $(DOCS)/completions/fish/*
	for file in systemd/etc/*.toml; do \
		to=$(DESTDIR)/etc/podsec/$${file##*/}; [ -e "$$to" ] || install -m 644 "$$file" "$$to"; \
	done

uninstall: ## remove what install put there; keeps /etc/podsec, accounts, state and audit
	rm -f $(addprefix $(DESTDIR)$(PREFIX)/bin/,podsecctl podsec-u7s nsenter_u7s)
	rm -rf $(DESTDIR)$(PREFIX)/libexec/podsec
	rm -f $(addprefix $(DESTDIR)$(PREFIX)/lib/systemd/system/,$(notdir $(wildcard systemd/system/*)))
	rm -f $(DESTDIR)$(PREFIX)/lib/sysusers.d/podsec.conf $(DESTDIR)$(PREFIX)/lib/tmpfiles.d/podsec.conf
	rm -f $(DESTDIR)/etc/logrotate.d/podsec
	rm -rf $(SHARE)/podsec/monitoring
	rm -f $(addprefix $(SHARE)/man/man1/,podsecctl.1 podsecctl-*.1 podsec-u7s.1 podsec-u7s-*.1 nsenter_u7s.1)
	rm -f $(addprefix $(SHARE)/bash-completion/completions/,podsecctl podsec-u7s)
	rm -f $(addprefix $(SHARE)/zsh/site-functions/,_podsecctl _podsec-u7s)
	rm -f $(addprefix $(SHARE)/fish/vendor_completions.d/,podsecctl.fish podsec-u7s.fish)

clean: ## remove everything that was compiled
	rm -rf target
