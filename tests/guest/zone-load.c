/*
 * Load for a zoned disk, run in a guest until it is killed
 *
 * usage: zone-load DISK MAX_ACTIVE SEED GENERATION
 *
 * Threads write to zones of their own, finish and reset them, and flush. Each
 * sector says which one it is (struct Stamp). What will be done to a zone is
 * printed before, and what is durable after it is, a line each:
 *
 *   DISK durable ZONE:GENERATION:WP...     all of it covered by one flush
 *   DISK reset ZONE, DISK finish ZONE      about to be
 *   DISK was-reset ZONE, DISK was-finished ZONE
 *   DISK error TEXT
 *
 * WP counts in bytes from the start of the zone. The generation of a zone is
 * GENERATION plus the number of its resets.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#define _GNU_SOURCE
#include <endian.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/blkzoned.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <termios.h>
#include <unistd.h>

#define SECTOR 512
#define THREADS 3
#define MAX_WRITE (64 * 1024)

/* As in tests/powercut/history.py, big-endian; a sector is full of them */
typedef struct Stamp {
    char magic[4];
    uint32_t zone;
    uint64_t offset;
    uint32_t generation;
    uint32_t sequence;
    uint32_t pad;
    uint32_t crc;
} __attribute__((packed)) Stamp;

typedef struct Zone {
    uint64_t start;             /* in bytes, as all that follows */
    uint64_t length;
    uint64_t capacity;
    uint64_t wp;                /* from the start of the zone */
    uint64_t durable;
    uint32_t generation;
    bool sequential;
    bool full;
} Zone;

static const char *disk;
static int disk_fd;
static Zone *zones;
static unsigned nr_zones;
static unsigned max_active;
static unsigned first_seed;

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static unsigned nr_active;      /* protected by lock */

/* One write() for a line: the console is shared with other processes. */
static void __attribute__((format(printf, 1, 2))) say(const char *format, ...)
{
    char line[512];
    int length = snprintf(line, sizeof(line), "%s ", disk);
    va_list args;

    va_start(args, format);
    length += vsnprintf(line + length, sizeof(line) - length - 1,
                        format, args);
    va_end(args);
    line[length++] = '\n';
    if (write(STDOUT_FILENO, line, length) != length) {
        exit(1);
    }
}

/* The host has to know what is said before anything else happens. */
static void say_first(const char *what, unsigned zone)
{
    say("%s %u", what, zone);
    tcdrain(STDOUT_FILENO);
}

static void fail(const char *what, unsigned zone)
{
    say("error %s, zone %u: %s", what, zone, strerror(errno));
    exit(1);
}

static uint32_t crc32(const void *data, size_t size)
{
    const uint8_t *p = data;
    uint32_t crc = ~0u;

    while (size--) {
        crc ^= *p++;
        for (int bit = 0; bit < 8; bit++) {
            crc = crc & 1 ? crc >> 1 ^ 0xedb88320 : crc >> 1;
        }
    }
    return ~crc;
}

static void stamp(uint8_t *buf, unsigned zone, uint64_t offset, uint64_t size)
{
    for (uint64_t done = 0; done < size; done += SECTOR) {
        Stamp s = {
            .magic = { 'Z', 'P', 'W', 'C' },
            .zone = htobe32(zone),
            .offset = htobe64(offset + done),
            .generation = htobe32(zones[zone].generation),
        };

        s.crc = htobe32(crc32(&s, sizeof(s)));
        for (unsigned i = 0; i < SECTOR; i += sizeof(s)) {
            memcpy(buf + done + i, &s, sizeof(s));
        }
    }
}

static void read_zones(uint32_t generation)
{
    struct blk_zone_report *report;

    if (ioctl(disk_fd, BLKGETNRZONES, &nr_zones)) {
        fail("BLKGETNRZONES", 0);
    }
    report = calloc(1, sizeof(*report) + nr_zones * sizeof(report->zones[0]));
    zones = calloc(nr_zones, sizeof(*zones));
    report->nr_zones = nr_zones;
    if (ioctl(disk_fd, BLKREPORTZONE, report) ||
        report->nr_zones != nr_zones) {
        fail("BLKREPORTZONE", 0);
    }
    for (unsigned i = 0; i < nr_zones; i++) {
        const struct blk_zone *z = &report->zones[i];

        zones[i] = (Zone) {
            .start = z->start * SECTOR,
            .length = z->len * SECTOR,
            .capacity = z->capacity * SECTOR,
            .wp = (z->wp - z->start) * SECTOR,
            .durable = (z->wp - z->start) * SECTOR,
            .generation = generation,
            .sequential = z->type == BLK_ZONE_TYPE_SEQWRITE_REQ,
            .full = z->cond == BLK_ZONE_COND_FULL,
        };
        nr_active += z->cond == BLK_ZONE_COND_CLOSED;
    }
    free(report);
}

static bool is_active(const Zone *z)
{
    return z->sequential && z->wp && !z->full;
}

/* May the zone become active?  If so, it counts from now on. */
static bool take_slot(const Zone *z)
{
    bool taken = true;

    if (!is_active(z)) {
        pthread_mutex_lock(&lock);
        taken = !max_active || nr_active < max_active;
        nr_active += taken;
        pthread_mutex_unlock(&lock);
    }
    return taken;
}

static void give_slot(void)
{
    pthread_mutex_lock(&lock);
    nr_active--;
    pthread_mutex_unlock(&lock);
}

static void write_zone(unsigned zone, uint8_t *buf, unsigned *seed)
{
    Zone *z = &zones[zone];
    uint64_t unit = rand_r(seed) % 4 ? 4096 : SECTOR;
    uint64_t size = unit * (1 + rand_r(seed) % 16);

    if (rand_r(seed) % 8 == 0) {
        size = MAX_WRITE;
    }
    if (size > z->capacity - z->wp) {
        size = z->capacity - z->wp;
    }
    if (!take_slot(z)) {
        return;
    }
    stamp(buf, zone, z->wp, size);
    if (pwrite(disk_fd, buf, size, z->start + z->wp) != size) {
        fail("write", zone);
    }
    z->wp += size;
    if (z->wp == z->capacity) {
        z->full = true;
        give_slot();
    }
}

static void manage(unsigned zone, unsigned long request, const char *name)
{
    struct blk_zone_range range = {
        .sector = zones[zone].start / SECTOR,
        .nr_sectors = zones[zone].length / SECTOR,
    };

    if (ioctl(disk_fd, request, &range)) {
        fail(name, zone);
    }
    if (is_active(&zones[zone])) {
        give_slot();
    }
}

static void reset_zone(unsigned zone)
{
    Zone *z = &zones[zone];

    say_first("reset", zone);
    manage(zone, BLKRESETZONE, "reset");
    say("was-reset %u", zone);
    z->wp = z->durable = 0;
    z->full = false;
    z->generation++;
}

/* Just before, write to it: nobody shall have flushed that. */
static void finish_zone(unsigned zone, uint8_t *buf, unsigned *seed)
{
    say_first("finish", zone);
    write_zone(zone, buf, seed);
    manage(zone, BLKFINISHZONE, "finish");
    say("was-finished %u", zone);
    zones[zone].full = true;
}

/* Flush, and tell of the zones of this thread what that made durable. */
static void flush(unsigned thread)
{
    char text[400];
    int length = 0;

    if (fdatasync(disk_fd)) {
        fail("flush", 0);
    }
    for (unsigned i = thread; i < nr_zones; i += THREADS) {
        Zone *z = &zones[i];

        if (z->sequential && z->wp > z->durable && length < 350) {
            length += sprintf(text + length, " %u:%u:%llu", i, z->generation,
                              (unsigned long long)z->wp);
            z->durable = z->wp;
        }
    }
    if (length) {
        say("durable%s", text);
    }
}

static void *load(void *opaque)
{
    unsigned thread = (uintptr_t)opaque;
    unsigned seed = first_seed + thread;
    uint8_t *buf = aligned_alloc(4096, MAX_WRITE);

    for (;;) {
        unsigned zone = rand_r(&seed) % nr_zones;
        unsigned what = rand_r(&seed) % 100;

        zone -= zone % THREADS;
        zone += thread;
        if (zone >= nr_zones || !zones[zone].sequential) {
            continue;
        }
        if (what < 20) {
            flush(thread);
        } else if (zones[zone].full || (what < 24 && zones[zone].wp)) {
            reset_zone(zone);
        } else if (what < 28) {
            finish_zone(zone, buf, &seed);
        } else {
            write_zone(zone, buf, &seed);
        }
    }
    return NULL;
}

int main(int argc, char **argv)
{
    pthread_t threads[THREADS];

    if (argc != 5) {
        return 2;
    }
    disk = argv[1];
    max_active = atoi(argv[2]);
    first_seed = atoi(argv[3]) * THREADS;

    disk_fd = open(disk, O_RDWR | O_DIRECT);
    if (disk_fd < 0) {
        fail("open", 0);
    }
    read_zones(atoi(argv[4]));
    say("ready");
    for (uintptr_t i = 0; i < THREADS; i++) {
        pthread_create(&threads[i], NULL, load, (void *)i);
    }
    pthread_join(threads[0], NULL);
    return 1;
}
