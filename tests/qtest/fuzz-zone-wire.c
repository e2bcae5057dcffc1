/*
 * Fuzzing the requests that a guest sends to a zoned virtio-blk device
 *
 * QEMU is a process of its own, so its coverage is not seen.  What guides the
 * fuzzer is how the device answers: a type of request, its status and the state
 * of the zone that it names.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include <glib/gstdio.h>
#include "libqtest.h"
#include "qemu/bswap.h"
#include "standard-headers/linux/virtio_blk.h"
#include "standard-headers/linux/virtio_config.h"
#include "standard-headers/linux/virtio_ring.h"
#include "libqos/libqos-malloc.h"
#include "libqos/malloc-pc.h"
#include "libqos/pci-pc.h"
#include "libqos/virtio.h"
#include "libqos/virtio-pci.h"
#include "../unit/fuzz-zone.h"
#include "../unit/zone-models.h"

#define SECTOR          512
#define ZONE            16      /* sectors */
#define CAPACITY        12
#define NR_ZONES        10
#define CONVENTIONAL    2
#define DISK            (NR_ZONES * ZONE - 8)
#define SECRET          0x5e
#define TIMEOUT_US      (20 * 1000 * 1000)

#define MAX_BATCH       8
#define MAX_DATA        (ZONE * SECTOR * 3)
#define MAX_REPLY       (MAX_DATA + 64)
#define SLOT_SIZE       (MAX_DATA + MAX_REPLY + 64)
#define NO_STATUS       0xff

typedef struct Request {
    uint32_t type;
    uint64_t sector;
    uint32_t out_len;
    uint32_t in_len;            /* with the status */
    uint32_t piece;             /* longest descriptor */
    uint64_t addr;
    uint8_t status;
} Request;

static QTestState *qts;
static QGuestAllocator alloc;
static QVirtioPCIDevice *pci;
static QVirtioDevice *dev;
static QVirtQueue *vq;
static uint64_t slots;
static char *dir, *image, *log_file;

#ifdef CONFIG_FUZZ
/* libFuzzer takes a counter that has never had such a value for coverage. */
static uint8_t counters[1 << 16]
    __attribute__((section("__libfuzzer_extra_counters")));

static void answered(uint32_t type, uint8_t status, uint8_t state)
{
    counters[(MIN(type, 31) << 9 | MIN(status, 15) << 5 | (state & 31)) %
             ARRAY_SIZE(counters)] = 1;
}
#else
static void answered(uint32_t type, uint8_t status, uint8_t state)
{
}
#endif

static void start_driver(void)
{
    uint64_t features;

    qvirtio_start_device(dev);
    features = qvirtio_get_features(dev) &
               ~(QVIRTIO_F_BAD_FEATURE | 1ULL << VIRTIO_RING_F_INDIRECT_DESC |
                 1ULL << VIRTIO_RING_F_EVENT_IDX | 1ULL << VIRTIO_BLK_F_SCSI);
    qvirtio_set_features(dev, features);
    vq = qvirtqueue_setup(dev, &alloc, 0);
    qvirtio_set_driver_ok(dev);
}

/* Whatever is in flight, the device forgets it. */
static void restart_driver(void)
{
    qvirtqueue_cleanup(dev->bus, vq, &alloc);
    start_driver();
}

static void stop(void)
{
    qtest_quit(qts);
    g_unlink(image);
    g_unlink(log_file);
    g_rmdir(dir);
}

void fuzz_zone_init(void)
{
    g_autofree char *qemu_img = NULL;
    g_autofree char *command = NULL;
    QPCIAddress addr = { .devfn = QPCI_DEVFN(4, 0) };

    dir = g_dir_make_tmp("fuzz-zone-wire-XXXXXX", NULL);
    g_assert_nonnull(dir);
    image = g_build_filename(dir, "zoned.qcow2", NULL);
    log_file = g_build_filename(dir, "log", NULL);
    qemu_img = realpath(getenv("QTEST_QEMU_IMG"), NULL);
    command = g_strdup_printf(
        "%s create -q -f qcow2 -o cluster_size=4k,zone.mode=host-managed,"
        "zone.size=%d,zone.capacity=%d,zone.conventional_zones=%d,"
        "zone.max_open_zones=3,zone.max_active_zones=4,"
        "zone.max_append_bytes=%d %s %d",
        qemu_img, ZONE * SECTOR, CAPACITY * SECTOR, CONVENTIONAL, 8 * SECTOR,
        image, DISK * SECTOR);
    g_assert_true(g_spawn_command_line_sync(command, NULL, NULL, NULL, NULL));

    qts = qtest_initf("-machine pc -nodefaults -blockdev driver=qcow2,"
                      "node-name=disk,discard=unmap,cache.no-flush=on,"
                      "file.driver=file,file.discard=ignore,file.filename=%s "
                      "-device virtio-blk-pci,drive=disk,addr=04.0,"
                      "werror=stop,rerror=stop 2>%s", image, log_file);
    atexit(stop);
#ifdef CONFIG_FUZZ
    /* Of libqtest, in the way of libFuzzer's own; QEMU ends with us anyway */
    signal(SIGABRT, SIG_DFL);
#endif
    pc_alloc_init(&alloc, qts, 0);
    pci = virtio_pci_new(qpci_new_pc(qts, &alloc), &addr);
    dev = &pci->vdev;
    qvirtio_pci_device_enable(pci);
    slots = guest_alloc(&alloc, SLOT_SIZE * MAX_BATCH);
    start_driver();
}

static void add_part(uint16_t *head, uint64_t addr, uint32_t len,
                     uint32_t piece, bool is_in)
{
    uint64_t end = addr + len;

    while (addr < end) {
        uint32_t n = MIN(piece, end - addr);
        uint16_t desc = qvirtqueue_add(qts, vq, addr, n, is_in,
                                       !is_in || addr + n < end);

        *head = MIN(*head, desc);
        addr += n;
    }
}

static void submit(Request *reqs, int n)
{
    uint16_t idx = qtest_readw(qts, vq->avail + 2);

    for (int i = 0; i < n; i++) {
        Request *r = &reqs[i];
        struct virtio_blk_outhdr hdr = {
            .type = cpu_to_le32(r->type),
            .sector = cpu_to_le64(r->sector),
        };
        uint16_t head = UINT16_MAX;

        r->addr = slots + i * SLOT_SIZE;
        qtest_memwrite(qts, r->addr, &hdr, sizeof(hdr));
        if (r->out_len) {
            qtest_memset(qts, r->addr + sizeof(hdr), SECRET, r->out_len);
        }
        qtest_memset(qts, r->addr + sizeof(hdr) + r->out_len, NO_STATUS,
                     r->in_len);
        add_part(&head, r->addr, sizeof(hdr) + r->out_len, r->piece, false);
        add_part(&head, r->addr + sizeof(hdr) + r->out_len, r->in_len,
                 r->piece, true);
        qtest_writew(qts, vq->avail + 4 + 2 * ((idx + i) % vq->size), head);
    }
    g_assert_cmpuint(vq->free_head, <=, vq->size);
    qtest_writew(qts, vq->avail + 2, idx + n);
    dev->bus->virtqueue_kick(dev, vq);
}

/* The device answers each request, whatever it is. */
static void wait_for(Request *reqs, int n)
{
    uint16_t idx = vq->last_used_idx + n;
    gint64 end = g_get_monotonic_time() + TIMEOUT_US;

    while (qtest_readw(qts, vq->used + 2) != idx) {
        g_assert_cmpint(g_get_monotonic_time(), <, end);
    }
    vq->last_used_idx = idx;
    vq->free_head = 0;
    vq->num_free = vq->size;
    for (int i = 0; i < n; i++) {
        Request *r = &reqs[i];

        r->status = qtest_readb(qts, r->addr + r->out_len + r->in_len - 1 +
                                     sizeof(struct virtio_blk_outhdr));
        g_assert_cmphex(r->status, !=, NO_STATUS);
        /* The host does what it is asked for: no error is the disk's. */
        if (r->type == VIRTIO_BLK_T_FLUSH ||
            r->type >= VIRTIO_BLK_T_ZONE_APPEND) {
            g_assert_cmphex(r->status, !=, VIRTIO_BLK_S_IOERR);
        }
    }
}

static void read_reply(const Request *r, void *buf)
{
    qtest_memread(qts, r->addr + sizeof(struct virtio_blk_outhdr) + r->out_len,
                  buf, r->in_len);
}

typedef struct Report {
    struct virtio_blk_zone_report header;
    struct virtio_blk_zone_descriptor zones[NR_ZONES];
    uint8_t status;
} Report;

static void get_report(Report *report)
{
    Request r = {
        .type = VIRTIO_BLK_T_ZONE_REPORT,
        .in_len = offsetof(Report, status) + 1,
        .piece = UINT32_MAX,
    };

    submit(&r, 1);
    wait_for(&r, 1);
    g_assert_cmphex(r.status, ==, VIRTIO_BLK_S_OK);
    read_reply(&r, report);
    g_assert_cmpuint(le64_to_cpu(report->header.nr_zones), ==, NR_ZONES);
}

static uint8_t state_at(const Report *report, uint64_t sector)
{
    return sector < DISK ? report->zones[sector / ZONE].z_state : 31;
}

/* What zones say about themselves makes sense, and nothing is above a WP. */
static void check_disk(void)
{
    int open = 0, active = 0;
    Report report;

    get_report(&report);
    for (int i = 0; i < NR_ZONES; i++) {
        const struct virtio_blk_zone_descriptor *z = &report.zones[i];
        uint64_t start = le64_to_cpu(z->z_start);
        uint64_t wp = le64_to_cpu(z->z_wp);
        uint64_t end = MIN((i + 1) * ZONE, DISK);
        uint8_t data[ZONE * SECTOR + 1];
        Request r = { .piece = UINT32_MAX };

        g_assert_cmpuint(start, ==, i * ZONE);
        if (i < CONVENTIONAL) {
            g_assert_cmpint(z->z_state, ==, VIRTIO_BLK_ZS_NOT_WP);
            continue;
        }
        open += z->z_state == VIRTIO_BLK_ZS_IOPEN ||
                z->z_state == VIRTIO_BLK_ZS_EOPEN;
        active += z->z_state == VIRTIO_BLK_ZS_IOPEN ||
                  z->z_state == VIRTIO_BLK_ZS_EOPEN ||
                  z->z_state == VIRTIO_BLK_ZS_CLOSED;
        g_assert_cmpuint(wp, >=, start);
        if (z->z_state == VIRTIO_BLK_ZS_FULL) {
            wp = MIN(start + CAPACITY, end);
        }
        g_assert_cmpuint(wp, <=, end);
        if (wp == end) {
            continue;
        }
        r.sector = wp;
        r.in_len = (end - wp) * SECTOR + 1;
        submit(&r, 1);
        wait_for(&r, 1);
        g_assert_cmphex(r.status, ==, VIRTIO_BLK_S_OK);
        read_reply(&r, data);
        for (int j = 0; j < r.in_len - 1; j++) {
            g_assert_cmphex(data[j], ==, 0);
        }
    }
    g_assert_cmpint(open, <=, 3);
    g_assert_cmpint(active, <=, 4);
}

/* The log of QEMU stays empty, whatever the guest does. */
static void check_log(void)
{
    g_autofree char *text = NULL;

    g_assert_true(g_file_get_contents(log_file, &text, NULL, NULL));
    g_assert_cmpstr(text, ==, "");
}

static uint64_t choose_sector(ZoneChoices *c, const Report *report)
{
    unsigned int zone = zone_choose(c, NR_ZONES);

    switch (zone_choose(c, 8)) {
    case 0:
        return zone_choose(c, UINT64_MAX);
    case 1:
        return 1ULL << zone_choose(c, 64);
    case 2:
        return zone_choose(c, DISK + 8);
    case 3 ... 4:
        return zone * ZONE;
    default:
        return zone < CONVENTIONAL ? zone * ZONE
                                   : le64_to_cpu(report->zones[zone].z_wp);
    }
}

static void choose_request(ZoneChoices *c, const Report *report, Request *r)
{
    static const uint8_t types[] = {
        VIRTIO_BLK_T_IN, VIRTIO_BLK_T_OUT, VIRTIO_BLK_T_OUT,
        VIRTIO_BLK_T_FLUSH, VIRTIO_BLK_T_DISCARD, VIRTIO_BLK_T_WRITE_ZEROES,
        VIRTIO_BLK_T_ZONE_APPEND, VIRTIO_BLK_T_ZONE_APPEND,
        VIRTIO_BLK_T_ZONE_REPORT, VIRTIO_BLK_T_ZONE_OPEN,
        VIRTIO_BLK_T_ZONE_CLOSE, VIRTIO_BLK_T_ZONE_FINISH,
        VIRTIO_BLK_T_ZONE_RESET, VIRTIO_BLK_T_ZONE_RESET_ALL,
    };
    unsigned int type = zone_choose(c, ARRAY_SIZE(types) + 2);
    bool exact = zone_choose(c, 8);

    *r = (Request) {
        .type = type < ARRAY_SIZE(types) ? types[type] : zone_choose(c, 64),
        .sector = choose_sector(c, report),
        .in_len = 1,
        .piece = zone_choose(c, 4) ? UINT32_MAX : 64 + zone_choose(c, 1024),
    };
    switch (r->type) {
    case VIRTIO_BLK_T_OUT:
    case VIRTIO_BLK_T_ZONE_APPEND:
        r->out_len = SECTOR * zone_choose(c, 14);
        break;
    case VIRTIO_BLK_T_IN:
        r->in_len += SECTOR * zone_choose(c, 2 * ZONE);
        break;
    case VIRTIO_BLK_T_ZONE_REPORT:
        r->in_len += 64 * zone_choose(c, NR_ZONES + 3);
        break;
    case VIRTIO_BLK_T_DISCARD:
    case VIRTIO_BLK_T_WRITE_ZEROES:
        /* Filled with a secret, so a range out of bounds */
        r->out_len = sizeof(struct virtio_blk_discard_write_zeroes);
        break;
    }
    if (r->type == VIRTIO_BLK_T_ZONE_APPEND) {
        r->in_len += 8;
    }
    if (!exact) {
        r->out_len = zone_choose(c, MAX_DATA);
        r->in_len = 1 + zone_choose(c, MAX_REPLY - 1);
    }
    if ((r->type | VIRTIO_BLK_T_OUT) == VIRTIO_BLK_T_DISCARD ||
        (r->type | VIRTIO_BLK_T_OUT) == VIRTIO_BLK_T_WRITE_ZEROES) {
        /* With less the device would need a reset before it goes on. */
        r->out_len = MAX(r->out_len,
                         sizeof(struct virtio_blk_discard_write_zeroes));
    }
    /* All of a batch must fit the queue. */
    r->piece = MAX(r->piece, MAX(r->out_len, r->in_len) / 8);
}

void fuzz_zone_input(const uint8_t *data, size_t size)
{
    ZoneChoices c = { .data = data, .size = size };
    Request all = {
        .type = VIRTIO_BLK_T_ZONE_RESET_ALL, .in_len = 1, .piece = UINT32_MAX,
    };
    Report report;

    if (size == 0) {
        return;
    }
    submit(&all, 1);
    wait_for(&all, 1);
    g_assert_cmphex(all.status, ==, VIRTIO_BLK_S_OK);
    for (int batch = 0; batch < 16 && !zone_choices_ended(&c); batch++) {
        Request reqs[MAX_BATCH];
        int n = 1 + zone_choose(&c, MAX_BATCH);

        get_report(&report);
        for (int i = 0; i < n; i++) {
            choose_request(&c, &report, &reqs[i]);
        }
        submit(reqs, n);
        if (zone_choose(&c, 16) == 15) {
            restart_driver();
            continue;
        }
        wait_for(reqs, n);
        for (int i = 0; i < n; i++) {
            answered(reqs[i].type, reqs[i].status,
                     state_at(&report, reqs[i].sector));
        }
    }
    check_disk();
    check_log();
}
