/*
 * Fuzz targets for zones
 *
 * A target is built with libFuzzer if QEMU is configured with
 * --enable-fuzzing.  Otherwise it is a program that takes the files and
 * directories it is given as inputs, each once: that shows again what a fuzzer
 * found, and keeps it from coming back.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef FUZZ_ZONE_H
#define FUZZ_ZONE_H

/* Of a target: called once */
void fuzz_zone_init(void);

/* Of a target: whatever the input, it must not crash, hang or leak. */
void fuzz_zone_input(const uint8_t *data, size_t size);

/* What libFuzzer calls */
int LLVMFuzzerInitialize(int *argc, char ***argv);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#endif
