# Thin names for what configure, meson and series/ do
#
# SPDX-License-Identifier: GPL-2.0-or-later

all: build/build.ninja
	@ninja -C build

build/build.ninja: configure series/base
	@./configure

check: build/build.ninja
	@series/check

check-unit: build/build.ninja
	@series/check unit

check-iotests: build/build.ninja
	@series/check iotests

check-qtest: build/build.ninja
	@series/check qtest

check-fuzz: build/build.ninja
	@series/check fuzz

check-guest-smoke: build/build.ninja
	@series/check guest

# every suite on every geometry, or the CELLS='btrfs.* *.limits'
JOBS = 2
check-guest: all
	@tests/guest/check --jobs $(JOBS) $(CELLS)

check-powercut: build/build.ninja
	@series/check powercut

check-faults: build/build.ninja
	@series/check faults
check-kill: build/build.ninja
	@series/check kill

# all of QEMU's own qcow2 iotests; with BASE=1 on the unpatched base, too
check-qemu: all
	@series/check-qemu $(if $(BASE),--base)

check-bench: build/build.ninja
	@series/check bench

check-series: build/build.ninja
	@series/check series

# built with AddressSanitizer and UndefinedBehaviorSanitizer
check-sanitizers: build/build.ninja
	@series/check --sanitizers

# unit tests built with ThreadSanitizer
check-tsan: build/build.ninja
	@series/check --tsan

# clang-tidy and cppcheck
check-lint: all
	@series/lint

# lines and branches that the tests reach
coverage: build/build.ninja
	@series/coverage

# each fuzzer for so long, from where it was last
SECONDS = 600
fuzz: build/build.ninja
	@series/fuzz $(SECONDS)

STATES = 20000
SEED = 1
powercut: all
	@tests/powercut/powercut --states $(STATES) --seed $(SEED) --jobs 2

# all there are, with CUTS power cuts after each
CUTS = 1
faults: all
	@tests/powercut/faults --cuts $(CUTS) --seed $(SEED) --jobs 2
	@tests/powercut/full-host --seed $(SEED)

kill: all
	@tests/powercut/kill --rounds $(or $(ROUNDS),400) --seed $(SEED) --jobs 2

powercut-mutants: all
	@tests/powercut/mutants/run --seed $(SEED)

# QUICK=1 measures less, BASE=1 builds the unpatched base to compare with,
# CASES='...' takes only some, ROUNDS=N times each so often
BENCH = tests/bench/bench $(if $(QUICK),--quick) $(if $(BASE),--base) \
        $(if $(ROUNDS),--rounds $(ROUNDS))
bench: all
	@$(BENCH) all $(CASES)

bench-counts: all
	@$(BENCH) counts $(CASES)

demo: all
	@series/run guest demo

guest: all
	@series/run guest interactive

# with NEWER=1, or NEWER=DIR, tried on a newer QEMU, too
series: build/build.ninja
	@series/export
	@$(if $(NEWER),series/check-newer $(filter-out 1,$(NEWER)))

series-build: build/build.ninja series
	@series/build-each

refresh: build/build.ninja
	@series/refresh

clean:
	rm -rf build/qemu-build build/qemu-build-sanitizers build/qemu-build-tsan \
	    build/sanitizers build/meson-* build/build.ninja

distclean:
	@[ ! -d build/qemu ] || series/assemble --check
	rm -rf build

help:
	@echo 'make                    build the patched QEMU (configures first when needed)'
	@echo 'make demo               a Linux guest uses a zoned qcow2 disk, reboots, finds its zones'
	@echo 'make guest              a shell in such a guest'
	@echo 'make check              all tests; one suite: check-unit, check-iotests, check-qtest,'
	@echo '                        check-fuzz,'
	@echo '                        check-powercut, check-faults, check-kill,'
	@echo '                        check-guest-smoke, check-bench, check-series'
	@echo 'make check-guest        file systems, fio, dm and others on zoned disks of all kinds,'
	@echo "                        in guests; CELLS='btrfs.* *.limits': some only, JOBS=N at once"
	@echo "make check-qemu         QEMU's own qcow2 iotests; BASE=1 builds the base to compare"
	@echo 'make check-sanitizers   tests of a build with ASan and UBSan'
	@echo 'make check-tsan         unit tests with ThreadSanitizer'
	@echo 'make powercut           power cuts at random, STATES=N of them, SEED=S'
	@echo 'make faults             every write and flush of workloads fails in turn, CUTS=N'
	@echo '                        power cuts after each; the host is full; SEED=S'
	@echo 'make bench              zoned images against others, a table and a plot in build/bench:'
	@echo '                        times, system calls, bytes, instructions; QUICK=1, ROUNDS=N,'
	@echo "                        CASES='fill* flush*', BASE=1: against the unpatched base, too"
	@echo 'make bench-counts       only what can be counted, for a busy machine'
	@echo 'make kill               kill -9 of what uses an image, ROUNDS=N times, SEED=S'
	@echo 'make fuzz               look for inputs that break something, each fuzzer for'
	@echo '                        SECONDS=N; check-fuzz has those found so far'
	@echo 'make coverage           lines and branches that tests reach, in build/coverage'
	@echo 'make check-lint         clang-tidy and cppcheck'
	@echo 'make powercut-mutants   do these three find what is broken on purpose?'
	@echo 'make series             the mail-ready series in build/series; NEWER=1 or NEWER=DIR:'
	@echo '                        is tried on a newer QEMU, too'
	@echo 'make series-build       each commit of it is built and tested'
	@echo 'make refresh            rewrite the .patch files from edits made in build/qemu'
	@echo 'make clean              remove what was built, keep what was downloaded'
	@echo 'make distclean          remove build/'
	@echo
	@echo 'ACCEL=kvm               guests use KVM; the default, TCG, works anywhere'

.PHONY: all check check-unit check-iotests check-qtest check-powercut \
        check-fuzz check-lint coverage fuzz \
        check-faults check-kill check-guest check-guest-smoke check-bench \
        check-qemu check-series check-sanitizers check-tsan powercut \
        powercut-mutants faults kill bench \
        bench-counts series series-build demo guest refresh clean distclean help
