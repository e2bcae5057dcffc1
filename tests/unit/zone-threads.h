/*
 * Threads of tests
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef ZONE_THREADS_H
#define ZONE_THREADS_H

#include "block/aio-wait.h"
#include "iothread.h"

static inline void zone_threads_pass(void *opaque)
{
    unsigned *to_pass = opaque;

    qatomic_dec(to_pass);
    aio_wait_kick();
}

/*
 * Join threads of which all coroutines have ended.  One may still be at waking
 * up another, which must not be freed before that.
 */
static inline void zone_threads_join(IOThread **threads, unsigned nr_threads)
{
    unsigned to_pass = nr_threads;

    for (unsigned i = 0; i < nr_threads; i++) {
        aio_bh_schedule_oneshot(iothread_get_aio_context(threads[i]),
                                zone_threads_pass, &to_pass);
    }
    AIO_WAIT_WHILE_UNLOCKED(NULL, qatomic_read(&to_pass) > 0);
    for (unsigned i = 0; i < nr_threads; i++) {
        iothread_join(threads[i]);
    }
}

#endif
