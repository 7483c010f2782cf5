# SPDX-License-Identifier: Apache-2.0
# hubgate. `make help` lists the targets.

BUILD    ?= build
CC       ?= cc
NGINX_SRC ?=
# make V= shows the commands
V ?= @
ROOMS    := base policy auth hub cache repo config gateway

PKGS     := libcrypto libssl jansson yaml-0.1 ldap lber lmdb libcurl libgit2 hiredis zlib
WARN     := -Wall -Wextra -Werror -Wshadow -Wstrict-prototypes -Wmissing-prototypes -Wvla -Wformat=2 -Wno-unused-parameter
HARDEN   := -D_FORTIFY_SOURCE=2 -fstack-protector-strong -fstack-clash-protection
OPT      ?= -O2 $(HARDEN)
SANITIZE ?=
CPPFLAGS += -I. -D_GNU_SOURCE $(shell pkg-config --cflags $(PKGS) 2>/dev/null)
CFLAGS   += -std=c11 -g -fPIC -fvisibility=hidden -pthread $(OPT) $(SANITIZE) $(WARN)
LDFLAGS  += -Wl,-z,relro,-z,now $(SANITIZE)
LIBS     := $(shell pkg-config --libs $(PKGS) 2>/dev/null) -lresolv -lpthread

ifneq ($(shell pkg-config --exists $(PKGS) 2>/dev/null && echo yes),yes)
$(warning some libraries are missing ($(PKGS)): run deploy/install-deps)
endif

room_c    = $(sort $(wildcard $(1)/*.c))
room_lib  = $(BUILD)/lib/lib$(1).a
LIBS_ALL := $(foreach r,gateway repo cache hub auth policy config base,$(call room_lib,$(r)))

.PHONY: all help check unit lint fuzz-replay fuzz fuzz-run e2e test bench clean module command format asan-e2e tsan e2e-models states docs depfaults upstreamfaults diskfaults killtest powercut commitrace gcrace writefaults
all: module command

help: ## this list
	@grep -hE '^[a-z0-9-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z0-9-]+):.*## /  \1\t/' | expand -t 18

# ---- rooms: one static archive each ----
define room_rules
$(call room_lib,$(1)): $(patsubst %.c,$(BUILD)/obj/%.o,$(call room_c,$(1)))
	@mkdir -p $$(@D); rm -f $$@; echo '  AR  $$@'
	@ar rcs $$@ $$^
endef
$(foreach r,$(ROOMS),$(eval $(call room_rules,$(r))))

$(BUILD)/obj/%.o: %.c
	@mkdir -p $(@D); echo '  CC  $<'
	$(V)$(CC) $(CPPFLAGS) $(CFLAGS) -MMD -MP -c -o $@ $<

# ---- the command ----
command: $(BUILD)/hubgate ## build the hubgate command
$(BUILD)/hubgate: $(patsubst %.c,$(BUILD)/obj/%.o,$(sort $(wildcard gateway/cli/*.c))) $(LIBS_ALL)
	@echo '  LD  $@'
	$(V)$(CC) $(CFLAGS) $(LDFLAGS) -o $@ $^ $(LIBS)

# ---- the module: built by nginx's own configure, against the headers that are installed or NGINX_SRC ----
module: $(BUILD)/ngx_http_hubgate_module.so ## build the nginx module
$(BUILD)/ngx_http_hubgate_module.so: $(LIBS_ALL) $(wildcard ngx_module/*)
	@echo '  LD  $@'
	@NGINX_SRC="$(NGINX_SRC)" BUILD="$(abspath $(BUILD))" MODULE_LIBS="$(abspath $(LIBS_ALL)) $(LIBS)" SANITIZE="$(SANITIZE)" ngx_module/build
	@test -s $@

# ---- unit tests: tests/unit/<room>/test_*.c; fuzzers: tests/fuzz/fuzz_<room>_*.c. Each links its room and base (gateway: all) ----
# Fuzzers are replayed over tests/fuzz/corpus/<name>/ under plain gcc in every check; `make fuzz` runs them under libFuzzer.
UNIT_BIN := $(patsubst tests/%.c,$(BUILD)/%,$(sort $(wildcard tests/unit/*/test_*.c)))
FUZZ_BIN := $(patsubst tests/%.c,$(BUILD)/%,$(sort $(wildcard tests/fuzz/fuzz_*.c)))
TEST_CC   = $(CC) $(CPPFLAGS) $(CFLAGS) -Wno-missing-prototypes $(LDFLAGS) -MMD -MP
room_libs = $(if $(filter gateway,$(1)),$(LIBS_ALL),$(if $(filter base,$(1)),,$(call room_lib,$(1))) $(call room_lib,base))
define test_rules
$(BUILD)/unit/$(1)/%: tests/unit/$(1)/%.c $(call room_libs,$(1))
	@mkdir -p $$(@D); echo '  LD  $$@'
	$$(V)$$(TEST_CC) -o $$@ $$< $(call room_libs,$(1)) $$(LIBS) -lcmocka
$(BUILD)/fuzz/fuzz_$(1)_%: tests/fuzz/fuzz_$(1)_%.c tests/fuzz/driver.c $(call room_libs,$(1))
	@mkdir -p $$(@D); echo '  LD  $$@'
	$$(V)$$(TEST_CC) -o $$@ $$< tests/fuzz/driver.c $(call room_libs,$(1)) $$(LIBS)
$(BUILD)/libfuzzer/fuzz_$(1)_%: tests/fuzz/fuzz_$(1)_%.c $(call room_libs,$(1))
	@mkdir -p $$(@D); echo '  LD  $$@'
	$$(V)$$(TEST_CC) -fsanitize=fuzzer -o $$@ $$< $(call room_libs,$(1)) $$(LIBS)
endef
$(foreach r,$(ROOMS),$(eval $(call test_rules,$(r))))
unit: $(UNIT_BIN) ## run the unit tests
	@tests/run-unit $(UNIT_BIN)
fuzz-replay: $(FUZZ_BIN) ## replay the fuzz corpora
	@tests/run-fuzz-replay $(FUZZ_BIN)

FUZZ_SECONDS ?= 60
fuzz: ## run each fuzzer for FUZZ_SECONDS under libFuzzer (clang), with sanitizers; FUZZ=name: only that one
	$(MAKE) --no-print-directory BUILD=build-fuzz CC=clang OPT=-O1 \
	    SANITIZE="-fsanitize=address,undefined,fuzzer-no-link -fno-sanitize-recover=all -fno-omit-frame-pointer" fuzz-run
fuzz-run: $(patsubst tests/fuzz/%.c,$(BUILD)/libfuzzer/%,$(sort $(wildcard tests/fuzz/$(if $(FUZZ),$(FUZZ),fuzz_*).c)))
	@for program in $^; do name=$${program##*/}; mkdir -p $(BUILD)/corpus/$$name; \
	    $$program -max_total_time=$(FUZZ_SECONDS) -artifact_prefix=$(BUILD)/$$name- -print_final_stats=0 -verbosity=0 \
	        $(BUILD)/corpus/$$name tests/fuzz/corpus/$$name && echo "$$name: nothing in $(FUZZ_SECONDS) s" || exit 1; done

# ---- what is checked. Everything that ends in "N passed, N failed" can be a part of tests/run-all ----
lint: command ## layers, headers alone, format, generated docs
	@BUILD="$(BUILD)" tests/run-lint
check: ## unit, fuzz-replay and lint: seconds once built
	@MAKE="$(MAKE)" tests/run-all unit fuzz-replay lint
e2e: all ## nginx with the module, a directory, a Hub and the real clients
	@BUILD="$(BUILD)" tests/run-e2e
depfaults: all ## Redis, the directory and upstream that fail: all scenarios (make e2e: some of them)
	@FAULTS=all BUILD="$(BUILD)" tests/run-e2e -q tests/e2e/test_dep_faults.py
upstreamfaults: all ## upstream that misbehaves: all scenarios (make e2e: each fault once)
	@FAULTS=all BUILD="$(BUILD)" tests/run-e2e -q tests/e2e/test_upstream_faults.py
diskfaults: all ## the cache's disk fails: all kinds (make e2e: some of them)
	@FAULTS=all BUILD="$(BUILD)" tests/run-e2e -q tests/e2e/test_disk_faults.py
killtest: all ## kill -9 of workers during fills with 16 clients: N rounds, SEED
	@N=$(or $(N),200) $(if $(SEED),SEED=$(SEED)) BUILD="$(BUILD)" tests/run-e2e -q -s tests/e2e/test_killtest.py
.PHONY: hostile writestates
hostile: all ## hostile clients that write, also with a million operations in one commit
	@HOSTILE=1 BUILD="$(BUILD)" tests/run-e2e -q -s tests/e2e/test_write_hostile.py
powercut: all ## the power goes at N moments of writing to data/, and everything starts again: N (300), SEED
	@N=$(or $(N),300) $(if $(SEED),SEED=$(SEED)) BUILD="$(BUILD)" tests/run-e2e -q -s tests/e2e/test_powercut.py tests/e2e/test_cache_powercut.py
commitrace: all ## 8 writers of N (200) commits each, by two nodes on one data/
	@N=$(or $(N),200) BUILD="$(BUILD)" tests/run-e2e -q -s tests/e2e/test_commitrace.py
gcrace: all ## hubgate repo gc again and again beside 4 writers of N (60) uploads and commits each
	@N=$(or $(N),60) BUILD="$(BUILD)" tests/run-e2e -q tests/e2e/test_gc.py
writefaults: all ## the disk of data/ fails in each call of each step of writing (make e2e: some of them)
	@FAULTS=all BUILD="$(BUILD)" tests/run-e2e -q tests/e2e/test_write_faults.py
ASAN := build-asan
asan-e2e: ## the same e2e on an ASan+UBSan build of nginx (the distribution's source), module and command
	@deploy/install-deps || [ $$? -eq 2 ]
	@tests/asan-build $(ASAN)
	@HUBGATE_NGINX="$(abspath $(ASAN)/objs/nginx)" HUBGATE_COMMAND="$(abspath $(ASAN)/hubgate)" \
	HUBGATE_MODULE="$(abspath $(ASAN)/ngx_http_hubgate_module.so)" \
	ASAN_OPTIONS=detect_leaks=0:abort_on_error=1:disable_coredump=1:detect_stack_use_after_return=1 \
	UBSAN_OPTIONS=print_stacktrace=1 BUILD="$(BUILD)" tests/run-e2e
TSAN := build-tsan
TSAN_TESTS := $(patsubst %,$(TSAN)/unit/cache/test_%,fill peer blob map index upstream shared share budget)
tsan: ## what threads of the cache share, under ThreadSanitizer
	@$(MAKE) --no-print-directory -s CC=gcc BUILD=$(TSAN) OPT=-O1 SANITIZE=-fsanitize=thread $(TSAN_TESTS)
	@tests/run-unit $(TSAN_TESTS)
states: all ## N random sequences of reads, leaving, kill -9, reload, eviction and upstream faults against a model (N=500)
	@STATES="$(or $(N),500)" BUILD="$(BUILD)" tests/run-e2e tests/e2e/test_states.py
writestates: all ## N random sequences of commits, branches, deletion, moves, kill -9 and reload against a model (N=500)
	@STATES="$(or $(N),500)" BUILD="$(BUILD)" tests/run-e2e tests/e2e/test_write_states.py
.PHONY: largewrites
largewrites: all ## an object of 6 GiB comes in, in constant memory (20 GB of disk for a while)
	@LARGE=all BUILD="$(BUILD)" tests/run-e2e -q -s tests/e2e/test_write_odd.py
e2e-models: ## AST, BERT, MiniLM, ViT and CLIP by their own loaders, and pushed; fetches torch (6 GB), so it is no part of make test
	@deploy/install-deps || [ $$? -eq 2 ]
	@$(MAKE) --no-print-directory all
	@BUILD="$(BUILD)" tests/venv venv venv-data venv-models
	@BUILD="$(BUILD)" tests/run-e2e tests/e2e/models.py tests/e2e/models_push.py
test: ## check and e2e; installs what they need first (Debian 12)
	@deploy/install-deps || [ $$? -eq 2 ]
	@MAKE="$(MAKE)" tests/run-all check e2e

BENCH_BIN := $(patsubst %,$(BUILD)/bench/%,http_load policy_bench index_bench list_bench repos_bench)
$(BUILD)/bench/%: tests/bench/%.c $(LIBS_ALL)
	@mkdir -p $(@D); echo '  LD  $@'
	$(V)$(TEST_CC) -o $@ $< $(LIBS_ALL) $(LIBS)
# QUICK=1: at most 5 minutes, else 40. PEER=URL [PEER_TOKEN_FILE=FILE]: another gateway in the table. ONLY=TEXT: some of it
bench: all $(BENCH_BIN) ## hubgate, static nginx, proxy_cache, slice and the Hub itself side by side: docs/benchmarks.md
	@deploy/install-deps || [ $$? -eq 2 ]
	@tests/venv venv-hf240-noxet
	@python3 -m tests.bench $(if $(QUICK),--quick) $(if $(ONLY),--only '$(ONLY)') $(if $(PEER),--peer '$(PEER)') \
	    $(if $(PEER_TOKEN_FILE),--peer-token-file '$(PEER_TOKEN_FILE)')

format: ## lay out the C sources (not ngx_module/, which keeps nginx's style)
	find $(ROOMS) tests -name '*.[ch]' -print0 | xargs -0 clang-format -i
docs: command ## write docs/config.md anew from the option table
	$(BUILD)/hubgate config-doc > docs/config.md

-include $(shell find $(BUILD) -name '*.d' 2>/dev/null)

clean: ## remove what was built (not the virtual environments)
	rm -rf $(BUILD)/obj $(BUILD)/lib $(BUILD)/unit $(BUILD)/fuzz $(BUILD)/nginx $(BUILD)/hubgate $(BUILD)/*.so
