# relayguard - "make help" lists the targets. On a machine with nothing
# installed use ./dev TARGET, which installs what the target needs first.

.DELETE_ON_ERROR:
.DEFAULT_GOAL := build

ifndef GO
GO := $(shell command -v go || echo /usr/local/go/bin/go)
endif
# The one that belongs to that Go, not whatever is in PATH.
GOFMT = $(shell $(GO) env GOROOT)/bin/gofmt

ifndef VERSION
VERSION := $(shell git describe --always --dirty 2>/dev/null || echo dev)
endif
# SQLite is C.
GOBUILD = CGO_ENABLED=1 $(GO) build -buildvcs=false -trimpath -ldflags '-s -w -X main.version=$(VERSION)'

# The race detector needs a C compiler.
GOTEST = CGO_ENABLED=1 $(GO) test -race -shuffle=on

# ARGS are flags for the program behind a target: ./dev run --stay.
ARGS ?=
# FUZZTIME is how long each fuzz target runs.
FUZZTIME ?= 60s

DESTDIR ?=
PREFIX ?= /usr/local
SBINDIR = $(DESTDIR)$(PREFIX)/sbin
MANDIR = $(DESTDIR)$(PREFIX)/share/man
BASHDIR = $(DESTDIR)$(PREFIX)/share/bash-completion/completions
ZSHDIR = $(DESTDIR)$(PREFIX)/share/zsh/site-functions
FISHDIR = $(DESTDIR)$(PREFIX)/share/fish/vendor_completions.d
UNITDIR = $(DESTDIR)/lib/systemd/system
SYSUSERSDIR = $(DESTDIR)/usr/lib/sysusers.d
TMPFILESDIR = $(DESTDIR)/usr/lib/tmpfiles.d
CONFDIR = $(DESTDIR)/etc/relayguard

# Packages that need real servers or their tools.
SYSTEM_PACKAGES = ./systemtest/... ./mta/postfix/... ./mta/maillog/... ./cmd/internal/queue/...
# Those of them that also need Redis.
REDIS_PACKAGES = ./limitstore/redis/... ./cmd/internal/share/... ./systemtest/fleet/... ./systemtest/nodes/...
# Those about forwarding rules: with Postfix, Dovecot and its Sieve, procmail,
# maildrop, MariaDB, PostgreSQL, LDAP.
FORWARD_PACKAGES = ./forward/... ./systemtest/forward/...
# Those about blocklists: with rbldnsd, NSD and unbound.
RBL_PACKAGES = ./rbl/dnstest/... ./systemtest/rbl/...
# Those over a real Sendmail, and what runs on both mail servers: the cases, and queues at scale.
SENDMAIL_PACKAGES = ./mta/sendmail/... ./systemtest/sendmail/... ./systemtest/cases/... ./systemtest/queues/...
# Those that need PHP, and of them one that needs WordPress.
WORDPRESS_PACKAGES = ./wordpress/... ./cmd/internal/call/... ./systemtest/wordpress/...

.PHONY: help
help: ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' Makefile | while read -r target text; do printf '  %-15s %s\n' "$$target" "$$text"; done

## Building

.PHONY: build
build: ## bin/relayguard
	$(GOBUILD) -o bin/relayguard ./cmd/relayguard

# Without a Go (sudo takes it out of PATH) what ./dev build made is installed.
bin/relayguard:
	@echo 'no Go found to build with; use: ./dev install'; exit 1

.PHONY: install
install: $(if $(shell command -v $(GO)),build,bin/relayguard) ## binary, units, configuration, man pages, completion (DESTDIR, PREFIX)
	install -d $(SBINDIR) $(MANDIR)/man8 $(MANDIR)/man5 $(BASHDIR) $(ZSHDIR) $(FISHDIR) $(UNITDIR) $(SYSUSERSDIR) $(TMPFILESDIR) $(CONFDIR)
	install -m 755 bin/relayguard $(SBINDIR)/relayguard.new
	mv -f $(SBINDIR)/relayguard.new $(SBINDIR)/relayguard # at once: PHP runs it for each mail
	test -L $(SBINDIR)/relayguard-sendmail || ln -s relayguard $(SBINDIR)/relayguard-sendmail
	umask 022; for unit in relayguard relayguard-queue relayguard-watch relayguard-report; do \
		sed 's|=[^ ]*/sbin/relayguard |=$(PREFIX)/sbin/relayguard |' packaging/$$unit.service >$(UNITDIR)/$$unit.service || exit 1; \
	done
	install -m 644 packaging/relayguard-queue.socket packaging/relayguard-watch.socket packaging/relayguard-report.timer $(UNITDIR)/
	install -m 644 packaging/relayguard.sysusers $(SYSUSERSDIR)/relayguard.conf
	install -m 644 packaging/relayguard.tmpfiles $(TMPFILESDIR)/relayguard.conf
	umask 022; bin/relayguard man $(MANDIR)/man8
	mv $(MANDIR)/man8/relayguard.toml.5 $(MANDIR)/man5/
	umask 022; bin/relayguard completion bash >$(BASHDIR)/relayguard
	umask 022; bin/relayguard completion zsh >$(ZSHDIR)/_relayguard
	umask 022; bin/relayguard completion fish >$(FISHDIR)/relayguard.fish
	@if test -e $(CONFDIR)/relayguard.toml; then \
		install -m 644 packaging/relayguard.toml $(CONFDIR)/relayguard.toml.example; \
		echo 'kept your $(CONFDIR)/relayguard.toml; the current example is beside it'; \
	else \
		install -m 644 packaging/relayguard.toml $(CONFDIR)/relayguard.toml; \
	fi
	@echo
	@echo 'Installed. Next:'
	@echo '  1. systemd-sysusers relayguard.conf && systemd-tmpfiles --create relayguard.conf'
	@echo '     (the account, and the directory of the sockets)'
	@echo '  2. look at /etc/relayguard/relayguard.toml; everything in it has a default'
	@echo '     (beside Sendmail: [mta], kind = "sendmail")'
	@echo '  3. systemctl daemon-reload'
	@echo '     systemctl enable --now relayguard-queue.socket relayguard-watch.socket relayguard'
	@echo '     (two root helpers, of which one alone may touch queued mail, and the other'
	@echo '     alone reads homes; the daemon)'
	@echo '  4. relayguard setup postfix            (shows the settings and why;'
	@echo '     relayguard setup postfix --apply     --undo takes it back)'
	@echo '     or setup sendmail, --apply'
	@echo '     with --smtp relay or --smtp inbound if the guard shall have port 25, too'
	@echo '  5. relayguard check                    (names what still goes round it)'
	@echo '     relayguard forwards list            (the forwarding rules that lead outside)'

.PHONY: uninstall
uninstall: ## what install put there; configuration, journal, backups and account stay
	@if test -z '$(DESTDIR)' && grep -rlsF relayguard /etc/php; then \
		echo 'PHP sends through relayguard: relayguard php remove (with --pool FILE for each pool above), reload PHP, then once more'; exit 1; \
	fi
	rm -f $(SBINDIR)/relayguard $(SBINDIR)/relayguard-sendmail $(MANDIR)/man8/relayguard.8 $(MANDIR)/man8/relayguard-*.8 $(MANDIR)/man5/relayguard.toml.5 \
		$(BASHDIR)/relayguard $(ZSHDIR)/_relayguard $(FISHDIR)/relayguard.fish \
		$(UNITDIR)/relayguard.service $(UNITDIR)/relayguard-queue.service $(UNITDIR)/relayguard-queue.socket \
		$(UNITDIR)/relayguard-watch.service $(UNITDIR)/relayguard-watch.socket \
		$(UNITDIR)/relayguard-report.service $(UNITDIR)/relayguard-report.timer \
		$(SYSUSERSDIR)/relayguard.conf $(TMPFILESDIR)/relayguard.conf

## Looking

.PHONY: run
run: build ## a private Postfix with the guard; stays up on a terminal or with --stay
	@$(GO) run ./demo $(ARGS)

.PHONY: demo
demo: build ## the same scenario, ends by itself; fails if a verdict was unexpected
	@$(GO) run ./demo --once $(ARGS)

.PHONY: bench
bench: build ## the load generator; writes bench.json
	@$(GO) run ./bench $(ARGS)

## Testing

.PHONY: test
test: ## everything that can be tested here
	@RELAYGUARD_REQUIRE=1 $(MAKE) --no-print-directory lint test-unit test-redis test-rbl test-postfix test-sendmail test-forward test-wordpress faults
	@echo
	@echo 'Passed: lint, unit tests, real Redis, real DNS servers with blocklists, real Postfix with Dovecot, real Sendmail, forwarding rules with real deliveries and databases, real WordPress with MariaDB and PHP, faults.'
	@echo 'Not part of test: soak (test-wordpress at full size), fuzz, bench, demo.'

.PHONY: lint
lint: ## gofmt, go vet, go.mod
	@unformatted=$$($(GOFMT) -l .); test -z "$$unformatted" || { echo "not gofmt'ed:"; echo "$$unformatted"; exit 1; }
	$(GO) vet ./...
	$(GO) mod tidy -diff

.PHONY: test-unit
test-unit: ## all packages but those that need real servers
	@packages=$$($(GO) list ./... | grep -v -e '/systemtest\(/\|$$\)' -e '/mta/postfix\(/\|$$\)' -e '/mta/sendmail\(/\|$$\)' -e '/mta/maillog$$' -e '/cmd/internal/queue$$' -e '/limitstore/redis\(/\|$$\)' -e '/cmd/internal/share$$' -e '^relayguard/wordpress$$' -e '/cmd/internal/call$$' -e '^relayguard/forward\(/\|$$\)' -e '^relayguard/rbl/dnstest$$'); \
	test -n "$$packages" || { echo 'no unit test packages found'; exit 1; }; \
	$(GOTEST) -json $$packages | $(GO) run ./tools/testreport

.PHONY: test-postfix
test-postfix: ## the whole over a private real Postfix and Dovecot
	@packages=$$($(GO) list $(SYSTEM_PACKAGES) | grep -v -e '/systemtest/faults$$' -e '/systemtest/fleet$$' -e '/systemtest/nodes$$' -e '/systemtest/wordpress$$' -e '/systemtest/forward\(/\|$$\)' -e '/systemtest/rbl\(/\|$$\)' -e '/systemtest/sendmail\(/\|$$\)' -e '/systemtest/cases\(/\|$$\)' -e '/systemtest/queues\(/\|$$\)'); \
	$(GOTEST) -json -timeout 20m $$packages | $(GO) run ./tools/testreport

.PHONY: test-sendmail
test-sendmail: ## the same over a private real Sendmail, and the cases that both mail servers run
	@$(GOTEST) -p 1 -json -timeout 30m $(SENDMAIL_PACKAGES) | $(GO) run ./tools/testreport # one after the other: storms and bulk acts take the machine

.PHONY: test-forward
test-forward: ## forwarding rules: found, watched, proven, stopped, each by a real delivery
	@$(GOTEST) -p 1 -json -timeout 20m $(FORWARD_PACKAGES) | $(GO) run ./tools/testreport # one after the other: each sees all accounts of the machine

.PHONY: test-rbl
test-rbl: ## blocklists over real rbldnsd, NSD and unbound, and the daily report after real abuse
	@$(GOTEST) -json -timeout 20m $(RBL_PACKAGES) | $(GO) run ./tools/testreport

.PHONY: test-redis
test-redis: ## limits that relays share, over real Redis servers (single, Sentinel, Cluster)
	@$(GOTEST) -json -timeout 20m $(REDIS_PACKAGES) | $(GO) run ./tools/testreport

.PHONY: faults
faults: ## kill -9 at any point, full and broken disks, floods, over a real Postfix
	@$(GOTEST) -json -timeout 40m ./systemtest/faults | $(GO) run ./tools/testreport

.PHONY: test-wordpress
test-wordpress: ## the end of share-by-mail abuse: real WordPress, MariaDB, PHP and Postfix
	@$(GOTEST) -json -timeout 20m $(WORDPRESS_PACKAGES) | $(GO) run ./tools/testreport

.PHONY: soak
soak: ## the same at full size: 2,000 share mails a variant
	@RELAYGUARD_SOAK=1 RELAYGUARD_REQUIRE=1 $(GOTEST) -json -timeout 90m ./systemtest/wordpress/... ./systemtest/nodes/... | $(GO) run ./tools/testreport

.PHONY: fuzz
fuzz: ## each fuzz target for FUZZTIME (default 60s)
	@found=0; for package in $$($(GO) list ./...); do \
		targets=$$($(GO) test -list '^Fuzz' "$$package") || { echo "$$targets"; exit 1; }; \
		for target in $$(echo "$$targets" | grep '^Fuzz'); do \
			found=$$((found + 1)); \
			echo "== $$package $$target for $(FUZZTIME)"; \
			$(GO) test -run '^$$' -fuzz "^$$target\$$" -fuzztime $(FUZZTIME) -fuzzminimizetime 10x "$$package" || exit 1; \
		done; \
	done; \
	test $$found -gt 0 || { echo 'no fuzz targets found'; exit 1; }; \
	echo "$$found fuzz targets ran"
