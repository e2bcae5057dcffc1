/*
 * QTest testcase for zoned virtio-blk devices with several queues
 *
 * Keeps four queues busy with random requests to the same zones, while the
 * machine is stopped, the image is reopened, the disk grows, and the device is
 * reset or unplugged.  What each reply, report and sector may be follows from
 * what was sent and answered before; only what a reset of a zone or of the
 * device has met in flight is left to chance.
 *
 * ZONE_STRESS=N does N times as much.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include <glib/gstdio.h>
#include <sys/mman.h>
#include "libqtest.h"
#include "qemu/atomic.h"
#include "qemu/bswap.h"
#include "qapi/error.h"
#include "qobject/qdict.h"
#include "qobject/qjson.h"
#include "qobject/qlist.h"
#include "standard-headers/linux/virtio_blk.h"
#include "standard-headers/linux/virtio_config.h"
#include "standard-headers/linux/virtio_ring.h"
#include "libqos/libqos-malloc.h"
#include "libqos/malloc-pc.h"
#include "libqos/pci-pc.h"
#include "libqos/virtio.h"
#include "libqos/virtio-pci.h"

#define SECTOR          512
#define RAM_SIZE        (64 * 1024 * 1024)
#define PCI_SLOT        4
#define TIMEOUT_US      (60 * 1000 * 1000)

#define NR_QUEUES       4
#define DEPTH           16      /* requests in flight in each */
#define NR_ROUNDS       8       /* one for each event */
#define ROUND_REQUESTS  4000

/* The disk, in sectors; a zone has less capacity than it is long */
#define ZONE            8192
#define CAPACITY        6144
#define MAX_SECTORS     128
#define NR_ZONES        20
#define MAX_OPEN        3
#define MAX_ACTIVE      12

/*
 * What zones are for: each queue writes to one, all append to some, and some
 * have anything done to them.
 */
#define FIRST_WRITTEN   2       /* those before it are conventional */
#define FIRST_APPENDED  (FIRST_WRITTEN + NR_QUEUES)
#define FIRST_WILD      12

/* A part of the conventional zones for each request that can be in flight */
#define PART            32

QEMU_BUILD_BUG_ON(NR_QUEUES * DEPTH * PART > FIRST_WRITTEN * ZONE);

/* Where the parts of a request are in its memory */
#define DATA_AT         SECTOR
#define REPLY_AT        (DATA_AT + MAX_SECTORS * SECTOR)
#define SLOT_SIZE       (REPLY_AT + MAX_SECTORS * SECTOR + SECTOR)

/* The last byte of the reply to each request */
enum {
    OK              = VIRTIO_BLK_S_OK,
    INVALID_CMD     = VIRTIO_BLK_S_ZONE_INVALID_CMD,
    UNALIGNED_WP    = VIRTIO_BLK_S_ZONE_UNALIGNED_WP,
    OPEN_RESOURCE   = VIRTIO_BLK_S_ZONE_OPEN_RESOURCE,
    ACTIVE_RESOURCE = VIRTIO_BLK_S_ZONE_ACTIVE_RESOURCE,
    NR_STATUSES,
    NO_STATUS       = 0xff,
};

/*
 * Data that was sent: each sector is full of its number, the stamp, and the
 * place in its request.
 */
typedef struct Data {
    enum { SENT, STORED, REFUSED, LOST } fate;
    uint32_t zone;
    uint64_t sector;            /* 0 if nobody knows */
    uint16_t sectors;
    bool zeroes;
} Data;

typedef struct Zone {
    uint32_t epoch;             /* changes when a reset is over */
    unsigned resets;            /* in flight */

    /*
     * Something in flight together with a reset has succeeded, or it is not
     * known whether it has: there may be data that has no owner.
     */
    bool doubt;

    uint64_t end;               /* of the data, if there is no doubt */
    uint32_t last;              /* some data that is there, or 0 */

    /* Of a zone that is written: */
    uint64_t next;              /* where the next write goes */
    unsigned writes;            /* in flight */
    uint64_t failed_at;         /* lowest sector of those that failed, or 0 */
    uint8_t failed_with;
    bool is_stuck;              /* nothing is written before it is known why */
} Zone;

/* A request, if it is in flight */
typedef struct Slot {
    uint64_t addr;
    bool in_flight;
    uint32_t type;
    uint64_t sector;
    uint32_t sectors;
    uint32_t zone;
    uint32_t data;              /* what it writes or expects to read, or 0 */

    /* When it was sent: of its zone, or of all if it is a report */
    uint32_t epochs[NR_ZONES];
    uint64_t ends[NR_ZONES];
    bool resets[NR_ZONES];
} Slot;

typedef struct Queue {
    QVirtQueue *vq;
    uint16_t avail_idx;
    uint16_t published_idx;
    Slot slots[DEPTH];
} Queue;

static char *image;
static char *ram_file;
static uint8_t *ram;
static const char *threads;     /* properties of the device */

static QTestState *qts;
static QGuestAllocator alloc;
static QPCIBus *bus;
static QVirtioPCIDevice *pci;
static QVirtioDevice *dev;

static GRand *rng;
static Queue queues[NR_QUEUES];
static Zone zones[NR_ZONES];
static unsigned nr_new_zones;   /* after these, all EMPTY */
static uint32_t owners[NR_ZONES * ZONE];    /* data of each sector, or 0 */
static GArray *datas;
static unsigned in_flight;
static uint64_t nr_requests;
static uint64_t nr_lost;
static uint64_t replies[VIRTIO_BLK_T_ZONE_RESET_ALL + 1][NR_STATUSES];

static Data *data_of(uint32_t n)
{
    return &g_array_index(datas, Data, n);
}

static uint64_t zone_start(uint32_t zone)
{
    return (uint64_t)zone * ZONE;
}

static uint64_t zone_limit(uint32_t zone)
{
    return zone_start(zone) + CAPACITY;
}

static bool is_written(uint32_t zone)
{
    return zone >= FIRST_WRITTEN && zone < FIRST_APPENDED;
}

static unsigned below(unsigned n)
{
    return g_rand_int_range(rng, 0, n);
}

/* The image */

static void run_qemu_img(const char **args)
{
    g_autofree char *qemu_img = realpath(getenv("QTEST_QEMU_IMG"), NULL);
    g_autoptr(GPtrArray) argv = g_ptr_array_new();
    g_autofree char *output = NULL;
    int wait_status;

    g_ptr_array_add(argv, qemu_img);
    for (; *args; args++) {
        g_ptr_array_add(argv, (char *)*args);
    }
    g_ptr_array_add(argv, NULL);
    g_assert(g_spawn_sync(NULL, (char **)argv->pdata, NULL, G_SPAWN_DEFAULT,
                          NULL, NULL, &output, NULL, &wait_status, NULL));
    if (wait_status) {
        g_test_message("%s", output);
    }
    g_assert_cmpint(wait_status, ==, 0);
}

static void create(void)
{
    g_autofree char *size = g_strdup_printf("%d", NR_ZONES * ZONE * SECTOR);
    g_autofree char *options = g_strdup_printf(
        "zone.mode=host-managed,zone.size=%d,zone.capacity=%d"
        ",zone.conventional_zones=%d,zone.max_open_zones=%d"
        ",zone.max_active_zones=%d,zone.max_append_bytes=%d",
        ZONE * SECTOR, CAPACITY * SECTOR, FIRST_WRITTEN, MAX_OPEN, MAX_ACTIVE,
        MAX_SECTORS * SECTOR);
    const char *args[] = {
        "create", "-q", "-f", "qcow2", "-o", options, image, size, NULL
    };

    run_qemu_img(args);
}

static void check_image(void)
{
    const char *args[] = { "check", "-q", image, NULL };

    run_qemu_img(args);
}

/* The device */

static char *device_json(void)
{
    return g_strdup_printf(
        "{ 'driver': 'virtio-blk-pci', 'id': 'dev', 'drive': 'top',"
        "  'addr': '%02x.0', 'num-queues': %d, 'werror': 'report'%s }",
        PCI_SLOT, NR_QUEUES, threads);
}

static void find_device(void)
{
    QPCIAddress addr = { .devfn = QPCI_DEVFN(PCI_SLOT, 0) };

    pci = virtio_pci_new(bus, &addr);
    dev = &pci->vdev;
    qvirtio_pci_device_enable(pci);
}

static void start_queues(void)
{
    uint64_t features;

    qvirtio_start_device(dev);
    features = qvirtio_get_features(dev);
    g_assert_cmphex(features & 1ULL << VIRTIO_BLK_F_ZONED, !=, 0);
    g_assert_cmphex(features & 1ULL << VIRTIO_BLK_F_MQ, !=, 0);
    qvirtio_set_features(dev, features &
                         ~(QVIRTIO_F_BAD_FEATURE |
                           1ULL << VIRTIO_RING_F_INDIRECT_DESC |
                           1ULL << VIRTIO_RING_F_EVENT_IDX |
                           1ULL << VIRTIO_BLK_F_SCSI));
    for (int i = 0; i < NR_QUEUES; i++) {
        Queue *q = &queues[i];

        q->vq = qvirtqueue_setup(dev, &alloc, i);
        g_assert_cmpuint(q->vq->size, >=, DEPTH * 3);
        q->avail_idx = q->published_idx = 0;
        stw_le_p(ram + q->vq->avail, VRING_AVAIL_F_NO_INTERRUPT);
    }
    qvirtio_set_driver_ok(dev);
}

static void free_queues(void)
{
    for (int i = 0; i < NR_QUEUES; i++) {
        qvirtqueue_cleanup(dev->bus, queues[i].vq, &alloc);
    }
}

static void launch(void)
{
    g_autofree char *device = g_strdelimit(device_json(), "'", '"');

    qts = qtest_initf(
        "-machine pc,memory-backend=ram -nodefaults -m %uM "
        "-object memory-backend-file,id=ram,size=%u,share=on,mem-path=%s "
        "-object iothread,id=io0 -object iothread,id=io1 "
        "-object iothread,id=io2 -object iothread,id=io3 "
        "-object throttle-group,id=group "
        "-blockdev file,node-name=file,filename=%s "
        "-blockdev qcow2,node-name=disk,file=file "
        "-blockdev throttle,node-name=top,throttle-group=group,file=disk "
        "-device '%s'", RAM_SIZE >> 20, RAM_SIZE, ram_file, image, device);
    pc_alloc_init(&alloc, qts, 0);
    bus = qpci_new_pc(qts, &alloc);
    find_device();
    start_queues();
    for (int i = 0; i < NR_QUEUES * DEPTH; i++) {
        queues[i / DEPTH].slots[i % DEPTH].addr =
            guest_alloc(&alloc, SLOT_SIZE);
    }
}

static void free_device(void)
{
    g_free(pci->pdev);
    g_free(pci);
}

static void quit(void)
{
    free_queues();
    qvirtio_pci_device_disable(pci);
    free_device();
    qpci_free_pc(bus);
    alloc_destroy(&alloc);
    qtest_quit(qts);
}

/* Sending */

static void add_descriptor(Queue *q, unsigned i, uint64_t addr, uint32_t len,
                           uint16_t flags)
{
    uint8_t *desc = ram + q->vq->desc + 16 * i;

    stq_le_p(desc, addr);
    stl_le_p(desc + 8, len);
    stw_le_p(desc + 12, flags);
    stw_le_p(desc + 14, i + 1);
}

static uint32_t new_data(uint32_t zone, uint64_t sector, uint32_t sectors,
                         bool zeroes)
{
    Data data = {
        .zone = zone,
        .sector = sector,
        .sectors = sectors,
        .zeroes = zeroes,
    };

    g_array_append_val(datas, data);
    return datas->len - 1;
}

static uint64_t stamp(uint32_t data, unsigned i)
{
    return (uint64_t)data << 32 | i;
}

static void fill(uint8_t *to, uint32_t data, uint32_t sectors)
{
    for (unsigned i = 0; i < sectors * SECTOR / 8; i++) {
        stq_le_p(to + i * 8, stamp(data, i * 8 / SECTOR));
    }
}

static size_t report_len(void)
{
    return sizeof(struct virtio_blk_zone_report) +
           NR_ZONES * sizeof(struct virtio_blk_zone_descriptor);
}

/* Put a request into its slot, which says what it is, and make it available */
static void make_available(Queue *q, Slot *s)
{
    unsigned first = (s - q->slots) * 3;
    struct virtio_blk_outhdr hdr = {
        .type = cpu_to_le32(s->type),
        .sector = cpu_to_le64(s->sector),
    };
    size_t out_len = 0, in_len = 0;

    switch (s->type) {
    case VIRTIO_BLK_T_OUT:
    case VIRTIO_BLK_T_ZONE_APPEND:
        out_len = s->sectors * SECTOR;
        in_len = s->type == VIRTIO_BLK_T_OUT ? 0 : 8;
        fill(ram + s->addr + DATA_AT, s->data, s->sectors);
        break;
    case VIRTIO_BLK_T_WRITE_ZEROES: {
        struct virtio_blk_discard_write_zeroes segment = {
            .sector = cpu_to_le64(s->sector),
            .num_sectors = cpu_to_le32(s->sectors),
        };

        out_len = sizeof(segment);
        memcpy(ram + s->addr + DATA_AT, &segment, sizeof(segment));
        break;
    }
    case VIRTIO_BLK_T_IN:
        in_len = s->sectors * SECTOR;
        break;
    case VIRTIO_BLK_T_ZONE_REPORT:
        in_len = report_len();
        break;
    }

    memcpy(ram + s->addr, &hdr, sizeof(hdr));
    ram[s->addr + REPLY_AT + in_len] = NO_STATUS;
    add_descriptor(q, first, s->addr, sizeof(hdr), VRING_DESC_F_NEXT);
    if (out_len) {
        add_descriptor(q, first + 1, s->addr + DATA_AT, out_len,
                       VRING_DESC_F_NEXT);
    } else {
        stw_le_p(ram + q->vq->desc + 16 * first + 14, first + 2);
    }
    add_descriptor(q, first + 2, s->addr + REPLY_AT, in_len + 1,
                   VRING_DESC_F_WRITE);
    stw_le_p(ram + q->vq->avail + 4 + 2 * (q->avail_idx % q->vq->size), first);
    q->avail_idx++;
}

/* Show the device what has been made available since the last time */
static void publish(Queue *q)
{
    if (q->avail_idx == q->published_idx) {
        return;
    }
    smp_wmb(); /* requests before the index */
    qatomic_set((uint16_t *)(ram + q->vq->avail + 2),
                cpu_to_le16(q->avail_idx));
    q->published_idx = q->avail_idx;
    smp_mb(); /* the index before the flag */
    if (!(lduw_le_p(ram + q->vq->used) & VRING_USED_F_NO_NOTIFY)) {
        dev->bus->virtqueue_kick(dev, q->vq);
    }
}

static void remember(Slot *s)
{
    uint32_t zone = s->type == VIRTIO_BLK_T_ZONE_REPORT ? 0 : s->zone;
    uint32_t end = s->type == VIRTIO_BLK_T_ZONE_REPORT ? NR_ZONES : zone + 1;

    for (; zone < end; zone++) {
        s->epochs[zone] = zones[zone].epoch;
        s->ends[zone] = zones[zone].end;
        s->resets[zone] = zones[zone].resets;
    }
}

static bool is_reset(const Slot *s, uint32_t zone)
{
    return (s->type == VIRTIO_BLK_T_ZONE_RESET && s->zone == zone) ||
           (s->type == VIRTIO_BLK_T_ZONE_RESET_ALL && zone >= FIRST_WRITTEN);
}

static void send_request(Queue *q, Slot *s)
{
    for (uint32_t zone = 0; zone < NR_ZONES; zone++) {
        Zone *z = &zones[zone];

        if (is_reset(s, zone)) {
            z->doubt &= z->resets > 0;
            z->resets++;
        }
    }
    remember(s);
    if (s->type == VIRTIO_BLK_T_OUT || s->type == VIRTIO_BLK_T_WRITE_ZEROES ||
        s->type == VIRTIO_BLK_T_ZONE_APPEND) {
        s->data = new_data(s->zone, s->type == VIRTIO_BLK_T_ZONE_APPEND
                                    ? 0 : s->sector, s->sectors,
                           s->type == VIRTIO_BLK_T_WRITE_ZEROES);
        zones[s->zone].writes++;
    }
    s->in_flight = true;
    in_flight++;
    nr_requests++;
    make_available(q, s);
}

/* Choosing */

static uint32_t some_sectors(void)
{
    switch (below(8)) {
    case 0:
        return 1 + below(7);
    case 1:
        return 8 * (1 + below(MAX_SECTORS / 8));
    default:
        return 8 * (1 + below(4));
    }
}

static uint32_t zone_from(uint32_t first, uint32_t end)
{
    return first + below(end - first);
}

/* The next write of the zone of a queue, or false if there is none now */
static bool choose_write(Slot *s, uint32_t zone)
{
    Zone *z = &zones[zone];

    if (z->is_stuck || z->failed_at || z->next == zone_limit(zone)) {
        return false;
    }
    s->zone = zone;
    s->sector = z->next;
    s->sectors = MIN(s->sectors, zone_limit(zone) - z->next);
    s->type = below(16) ? VIRTIO_BLK_T_OUT : VIRTIO_BLK_T_WRITE_ZEROES;
    z->next += s->sectors;
    return true;
}

/* A write that may well be at the wrong place */
static void choose_guess(Slot *s)
{
    s->type = VIRTIO_BLK_T_OUT;
    s->zone = zone_from(FIRST_WILD, NR_ZONES);
    s->sector = zones[s->zone].end;
    if (s->sector + s->sectors > zone_limit(s->zone)) {
        s->sector = zone_start(s->zone);
    }
}

static void choose_append(Slot *s)
{
    s->type = VIRTIO_BLK_T_ZONE_APPEND;
    s->zone = zone_from(FIRST_APPENDED, NR_ZONES);
    s->sector = zone_start(s->zone);
}

static void choose_conventional(Slot *s, unsigned part)
{
    s->type = VIRTIO_BLK_T_OUT;
    s->sectors = MIN(s->sectors, PART);
    s->sector = part * PART;
    s->zone = s->sector / ZONE;
}

/* Read what must be there; or else any */
static void choose_read(Slot *s)
{
    uint32_t zone = zone_from(FIRST_WRITTEN, FIRST_WILD);
    uint32_t last = zones[zone].last;

    s->type = VIRTIO_BLK_T_IN;
    s->zone = zone;
    if (last) {
        s->data = last;
        s->sector = data_of(last)->sector;
        s->sectors = data_of(last)->sectors;
    } else {
        s->sector = zone_start(zone) + below(CAPACITY);
        s->sectors = 1;
    }
}

static void choose_management(Slot *s, uint32_t type, uint32_t zone)
{
    s->type = type;
    s->zone = zone;
    s->sector = zone_start(zone);
}

static void choose(Queue *q, Slot *s)
{
    unsigned queue = q - queues;
    uint32_t wild = zone_from(FIRST_WILD, NR_ZONES);

    s->sectors = some_sectors();
    s->data = 0;
    switch (below(100)) {
    case 0 ... 29:
        if (!choose_write(s, FIRST_WRITTEN + queue)) {
            choose_append(s);
        }
        break;
    case 30 ... 33:
        choose_guess(s);
        break;
    case 34 ... 38:
        choose_conventional(s, queue * DEPTH + (s - q->slots));
        break;
    case 39 ... 46:
        choose_read(s);
        break;
    case 47 ... 50:
        choose_management(s, VIRTIO_BLK_T_ZONE_REPORT, 0);
        break;
    case 51:
        choose_management(s, VIRTIO_BLK_T_FLUSH, 0);
        break;
    case 52 ... 55:
        choose_management(s, VIRTIO_BLK_T_ZONE_OPEN, wild);
        break;
    case 56:
        choose_management(s, VIRTIO_BLK_T_ZONE_CLOSE, wild);
        break;
    case 57:
        choose_management(s, VIRTIO_BLK_T_ZONE_FINISH, wild);
        break;
    case 58 ... 59:
        choose_management(s, VIRTIO_BLK_T_ZONE_RESET, wild);
        break;
    default:
        choose_append(s);
        break;
    }
}

/* What is known of zones */

/* Has no reset of @zone been in flight together with this request? */
static bool is_certain(const Slot *s, uint32_t zone)
{
    return !s->resets[zone] && !zones[zone].resets &&
           s->epochs[zone] == zones[zone].epoch;
}

/* Nothing of @zone is known to be there any more. */
static void forget(uint32_t zone)
{
    Zone *z = &zones[zone];

    memset(&owners[zone_start(zone)], 0, ZONE * sizeof(owners[0]));
    z->end = zone_start(zone);
    z->last = 0;
    z->epoch++;
}

static void own(uint32_t n, uint64_t sector)
{
    Data *data = data_of(n);
    Zone *z = &zones[data->zone];

    for (unsigned i = 0; i < data->sectors; i++) {
        /* Nobody else has been told that it is theirs. */
        g_assert_cmpuint(owners[sector + i], ==, 0);
        owners[sector + i] = n;
    }
    z->end = MAX(z->end, sector + data->sectors);
    z->last = n;
}

static void stored(Slot *s, uint64_t sector)
{
    Data *data = data_of(s->data);

    g_assert_cmpuint(sector, >=, zone_start(s->zone));
    if (s->zone < FIRST_WRITTEN) {
        for (unsigned i = 0; i < s->sectors; i++) {
            owners[sector + i] = s->data;
        }
    } else {
        g_assert_cmpuint(sector + s->sectors, <=, zone_limit(s->zone));
    }
    data->fate = STORED;
    data->sector = sector;
    if (s->zone < FIRST_WRITTEN) {
        return;
    }
    if (is_certain(s, s->zone)) {
        own(s->data, sector);
    } else {
        zones[s->zone].doubt = true;
    }
}

/* Of the writes that failed, the first one has the reason. */
static void write_failed(Slot *s, uint8_t status)
{
    Zone *z = &zones[s->zone];

    data_of(s->data)->fate = REFUSED;
    if (!is_written(s->zone)) {
        return;
    }
    if (!is_certain(s, s->zone)) {
        z->is_stuck = true;
    }
    if (!z->failed_at || s->sector < z->failed_at) {
        z->failed_at = s->sector;
        z->failed_with = status;
    }
}

static void write_ended(Slot *s)
{
    Zone *z = &zones[s->zone];

    g_assert_cmpuint(z->writes, >, 0);
    if (--z->writes || !z->failed_at) {
        return;
    }
    if (!z->is_stuck && !z->doubt) {
        g_assert(z->failed_with == OPEN_RESOURCE ||
                 z->failed_with == ACTIVE_RESOURCE);
        g_assert_cmpuint(z->failed_at, ==, z->end);
        z->next = z->end;
    } else {
        z->is_stuck = true;
    }
    z->failed_at = 0;
}

/* Check the states of all zones, their limits, and write pointers */
static struct virtio_blk_zone_descriptor *check_report(Slot *s)
{
    struct virtio_blk_zone_report *report =
        (void *)(ram + s->addr + REPLY_AT);
    unsigned nr_open = 0, nr_closed = 0;

    g_assert_cmpuint(le64_to_cpu(report->nr_zones), ==, NR_ZONES);
    for (uint32_t zone = 0; zone < NR_ZONES; zone++) {
        struct virtio_blk_zone_descriptor *desc = &report->zones[zone];
        uint64_t wp = le64_to_cpu(desc->z_wp);

        g_assert_cmpuint(le64_to_cpu(desc->z_start), ==, zone_start(zone));
        switch (desc->z_state) {
        case VIRTIO_BLK_ZS_NOT_WP:
            g_assert_cmpuint(zone, <, FIRST_WRITTEN);
            continue;
        case VIRTIO_BLK_ZS_EMPTY:
            g_assert_cmpuint(wp, ==, zone_start(zone));
            break;
        case VIRTIO_BLK_ZS_IOPEN:
        case VIRTIO_BLK_ZS_EOPEN:
            nr_open++;
            break;
        case VIRTIO_BLK_ZS_CLOSED:
            nr_closed++;
            break;
        case VIRTIO_BLK_ZS_FULL:
            continue;
        default:
            g_assert_not_reached();
        }
        g_assert_cmpuint(zone, >=, FIRST_WRITTEN);
        g_assert_cmpuint(wp, >=, zone_start(zone));
        g_assert_cmpuint(wp, <, zone_limit(zone));
        if (is_certain(s, zone)) {
            g_assert_cmpuint(wp, >=, s->ends[zone]);
        }
    }
    g_assert_cmpuint(nr_open, <=, MAX_OPEN);
    g_assert_cmpuint(nr_open + nr_closed, <=, MAX_ACTIVE);
    return report->zones;
}

static void check_read(const Slot *s)
{
    const uint8_t *reply = ram + s->addr + REPLY_AT;

    if (!s->data || !is_certain(s, s->zone)) {
        return;
    }
    for (unsigned i = 0; i < s->sectors * SECTOR / 8; i++) {
        g_assert_cmphex(ldq_le_p(reply + i * 8), ==, data_of(s->data)->zeroes
                        ? 0 : stamp(s->data, i * 8 / SECTOR));
    }
}

static void complete(Slot *s, size_t len)
{
    uint8_t *reply = ram + s->addr + REPLY_AT;
    uint8_t status = reply[len - 1];

    g_assert_cmpuint(status, <, NR_STATUSES);
    replies[s->type][status]++;

    switch (s->type) {
    case VIRTIO_BLK_T_ZONE_APPEND:
        g_assert_cmpint(status, !=, UNALIGNED_WP);
        /* fall through */
    case VIRTIO_BLK_T_OUT:
    case VIRTIO_BLK_T_WRITE_ZEROES:
        if (status == OK) {
            stored(s, s->type == VIRTIO_BLK_T_ZONE_APPEND ? ldq_le_p(reply)
                                                          : s->sector);
        } else {
            g_assert_cmpuint(s->zone, >=, FIRST_WRITTEN);
            write_failed(s, status);
        }
        write_ended(s);
        break;
    case VIRTIO_BLK_T_ZONE_OPEN:
    case VIRTIO_BLK_T_ZONE_CLOSE:
        g_assert_cmpint(status, !=, UNALIGNED_WP);
        break;
    default:
        g_assert_cmpint(status, ==, OK);
        break;
    }

    for (uint32_t zone = 0; zone < NR_ZONES; zone++) {
        if (is_reset(s, zone)) {
            zones[zone].resets--;
            forget(zone);
            zones[zone].is_stuck |= is_written(zone);
        }
    }
    if (s->type == VIRTIO_BLK_T_ZONE_REPORT) {
        check_report(s);
    } else if (s->type == VIRTIO_BLK_T_IN) {
        check_read(s);
    }
    s->in_flight = false;
    in_flight--;
}

/* Take what has been answered in a queue; how much that was */
static unsigned harvest_queue(Queue *q)
{
    uint16_t idx = le16_to_cpu(qatomic_read((uint16_t *)
                                            (ram + q->vq->used + 2)));
    unsigned n = 0;

    smp_rmb(); /* the index before what is there */
    for (; q->vq->last_used_idx != idx; q->vq->last_used_idx++) {
        uint8_t *elem = ram + q->vq->used + 4 +
                        8 * (q->vq->last_used_idx % q->vq->size);
        Slot *s = &q->slots[ldl_le_p(elem) / 3];

        g_assert(s->in_flight);
        complete(s, ldl_le_p(elem + 4));
        n++;
    }
    return n;
}

static unsigned harvest(void)
{
    unsigned n = 0;

    for (int i = 0; i < NR_QUEUES; i++) {
        n += harvest_queue(&queues[i]);
    }
    return n;
}

static void wait_until_at_most(unsigned left)
{
    gint64 end = g_get_monotonic_time() + TIMEOUT_US;

    while (in_flight > left) {
        if (harvest()) {
            end = g_get_monotonic_time() + TIMEOUT_US;
        } else {
            g_assert_cmpint(g_get_monotonic_time(), <, end);
            g_usleep(20);
        }
    }
}

/* Send @n requests, without waiting for the last ones */
static void send_requests(unsigned n)
{
    while (n) {
        for (int i = 0; i < NR_QUEUES; i++) {
            Queue *q = &queues[i];

            for (int j = 0; j < DEPTH && n; j++) {
                if (!q->slots[j].in_flight) {
                    choose(q, &q->slots[j]);
                    send_request(q, &q->slots[j]);
                    n--;
                }
            }
            publish(q);
            harvest();
        }
        wait_until_at_most(NR_QUEUES * DEPTH * 3 / 4);
    }
}

/* Looking at all of it, while nothing is in flight */

static Slot *send_alone(uint32_t type, uint64_t sector, uint32_t sectors)
{
    Queue *q = &queues[below(NR_QUEUES)];
    Slot *s = &q->slots[0];

    g_assert_cmpuint(in_flight, ==, 0);
    s->type = type;
    s->sector = sector;
    s->sectors = sectors;
    s->zone = sector / ZONE;
    s->data = 0;
    send_request(q, s);
    publish(q);
    wait_until_at_most(0);
    return s;
}

/*
 * Check a sector of a sequential zone, and make its data the owner if it had
 * none.  Return whether there is data.
 */
static bool check_sector(uint64_t sector, const uint8_t *content)
{
    Zone *z = &zones[sector / ZONE];
    uint64_t value = ldq_le_p(content);
    uint32_t n = value >> 32;
    Data *data;

    for (unsigned i = 8; i < SECTOR; i += 8) {
        g_assert_cmphex(ldq_le_p(content + i), ==, value);
    }
    if (!value) {
        g_assert(!owners[sector] || data_of(owners[sector])->zeroes);
        return false;
    }

    g_assert_cmpuint(n, <, datas->len);
    data = data_of(n);
    g_assert(owners[sector] == n || (!owners[sector] && z->doubt));
    g_assert(data->fate == STORED || data->fate == LOST);
    g_assert_cmpuint((uint32_t)value, <, data->sectors);
    if (!data->sector) {
        data->sector = sector - (uint32_t)value;
    }
    g_assert_cmpuint(data->zone, ==, sector / ZONE);
    g_assert_cmpuint(data->sector + (uint32_t)value, ==, sector);
    owners[sector] = n;
    return true;
}

/* Compare all of @zone; where its data ends */
static uint64_t check_content(uint32_t zone)
{
    uint64_t end = zone_start(zone);

    for (uint64_t sector = end; sector < zone_limit(zone);
         sector += MAX_SECTORS) {
        Slot *s = send_alone(VIRTIO_BLK_T_IN, sector, MAX_SECTORS);

        for (unsigned i = 0; i < MAX_SECTORS; i++) {
            if (check_sector(sector + i,
                             ram + s->addr + REPLY_AT + i * SECTOR)) {
                end = sector + i + 1;
            }
        }
    }
    return end;
}

/* What of @zone has no owner was zeroed by requests that were in doubt. */
static void own_zeroes(uint32_t zone)
{
    uint32_t n = new_data(zone, 0, 0, true);

    for (uint64_t sector = zone_start(zone); sector < zones[zone].end;
         sector++) {
        if (!owners[sector]) {
            owners[sector] = n;
        }
    }
}

static void check_sequential(uint32_t zone, bool is_full, uint64_t wp)
{
    Zone *z = &zones[zone];
    uint64_t end = check_content(zone);

    if (z->doubt) {
        if (!is_full) {
            g_assert_cmpuint(wp, >=, MAX(z->end, end));
            z->end = wp;
        } else {
            z->end = is_written(zone) ? zone_limit(zone) : MAX(z->end, end);
        }
        if (is_written(zone)) {
            own_zeroes(zone);
        }
    }
    g_assert_cmpuint(end, <=, z->end);
    g_assert(is_full || wp == z->end);
    for (uint64_t sector = zone_start(zone); sector < z->end; sector++) {
        g_assert_cmpuint(owners[sector], !=, 0);
    }
    z->doubt = false;
    z->is_stuck = false;
    z->next = is_full ? zone_limit(zone) : z->end;
}

static void check_conventional(unsigned part)
{
    Slot *s = send_alone(VIRTIO_BLK_T_IN, part * PART, PART);

    for (unsigned i = 0; i < PART * SECTOR; i += 8) {
        uint32_t n = owners[part * PART + i / SECTOR];

        if (n) {
            g_assert_cmphex(ldq_le_p(ram + s->addr + REPLY_AT + i), ==,
                            stamp(n, i / SECTOR));
        }
    }
}

/* Check what query-blockstats says of zones; against @descs, if not NULL */
static void check_counts(const struct virtio_blk_zone_descriptor *descs)
{
    static const char *const names[] = {
        [VIRTIO_BLK_ZS_NOT_WP] = "conventional",
        [VIRTIO_BLK_ZS_EMPTY] = "empty",
        [VIRTIO_BLK_ZS_IOPEN] = "implicitly-open",
        [VIRTIO_BLK_ZS_EOPEN] = "explicitly-open",
        [VIRTIO_BLK_ZS_CLOSED] = "closed",
        [VIRTIO_BLK_ZS_FULL] = "full",
        [VIRTIO_BLK_ZS_RDONLY] = "read-only",
        [VIRTIO_BLK_ZS_OFFLINE] = "offline",
    };
    QDict *response = qtest_qmp(qts, "{ 'execute': 'query-blockstats',"
                                "  'arguments': { 'query-nodes': true } }");
    const QListEntry *entry;
    const QDict *counts = NULL;
    int64_t n[ARRAY_SIZE(names)] = { 0 };
    int64_t nr_open, total = 0;

    QLIST_FOREACH_ENTRY(qdict_get_qlist(response, "return"), entry) {
        const QDict *node = qobject_to(QDict, qlist_entry_obj(entry));

        if (g_str_equal(qdict_get_str(node, "node-name"), "disk")) {
            counts = qdict_get_qdict(qdict_get_qdict(node, "driver-specific"),
                                     "zones");
        }
    }
    g_assert_nonnull(counts);
    for (int state = 0; state < ARRAY_SIZE(names); state++) {
        if (names[state]) {
            n[state] = qdict_get_int(counts, names[state]);
            total += n[state];
        }
    }
    g_assert_cmpint(total, ==, NR_ZONES + nr_new_zones);
    g_assert_cmpint(n[VIRTIO_BLK_ZS_NOT_WP], ==, FIRST_WRITTEN);
    nr_open = n[VIRTIO_BLK_ZS_IOPEN] + n[VIRTIO_BLK_ZS_EOPEN];
    g_assert_cmpint(nr_open, <=, MAX_OPEN);
    g_assert_cmpint(nr_open + n[VIRTIO_BLK_ZS_CLOSED], <=, MAX_ACTIVE);
    n[VIRTIO_BLK_ZS_EMPTY] -= nr_new_zones;
    for (uint32_t zone = 0; descs && zone < NR_ZONES; zone++) {
        n[descs[zone].z_state]--;
    }
    for (int state = 0; descs && state < ARRAY_SIZE(names); state++) {
        g_assert_cmpint(n[state], ==, 0);
    }
    qobject_unref(response);
}

/* Wait, check everything, and leave the zones as they are in @descs */
static void check_all(struct virtio_blk_zone_descriptor *descs)
{
    Slot *s;

    wait_until_at_most(0);
    s = send_alone(VIRTIO_BLK_T_ZONE_REPORT, 0, 0);
    memcpy(descs, check_report(s), NR_ZONES * sizeof(*descs));
    check_counts(descs);
    for (uint32_t zone = FIRST_WRITTEN; zone < NR_ZONES; zone++) {
        g_assert_cmpuint(zones[zone].resets, ==, 0);
        g_assert_cmpuint(zones[zone].writes, ==, 0);
        check_sequential(zone, descs[zone].z_state == VIRTIO_BLK_ZS_FULL,
                         le64_to_cpu(descs[zone].z_wp));
    }
    for (unsigned part = 0; part < NR_QUEUES * DEPTH; part++) {
        check_conventional(part);
    }
}

/* Make room for the next round. */
static void reset_some(void)
{
    for (uint32_t zone = FIRST_WRITTEN; zone < NR_ZONES; zone++) {
        Zone *z = &zones[zone];

        if (z->next > zone_start(zone) + CAPACITY / 2 || !below(4)) {
            send_alone(VIRTIO_BLK_T_ZONE_RESET, zone_start(zone), 0);
            z->is_stuck = false;
            z->next = zone_start(zone);
        }
    }
}

/* Events */

/* The device has forgotten this request, or answered it to nobody. */
static void lose(Slot *s)
{
    Zone *z = &zones[s->zone];

    for (uint32_t zone = 0; zone < NR_ZONES; zone++) {
        if (is_reset(s, zone)) {
            zones[zone].resets--;
            forget(zone);
            zones[zone].doubt = true;
            zones[zone].is_stuck |= is_written(zone);
        }
    }
    if (s->data && s->type != VIRTIO_BLK_T_IN) {
        data_of(s->data)->fate = LOST;
        data_of(s->data)->sector = 0;
        z->writes--;
        z->doubt = true;
        z->is_stuck |= is_written(s->zone);
        z->failed_at = 0;
        for (unsigned i = 0; s->zone < FIRST_WRITTEN && i < s->sectors; i++) {
            owners[s->sector + i] = 0;
        }
    }
    s->in_flight = false;
    in_flight--;
    nr_lost++;
}

static void lose_all(void)
{
    harvest();
    for (int i = 0; i < NR_QUEUES * DEPTH; i++) {
        Slot *s = &queues[i / DEPTH].slots[i % DEPTH];

        if (s->in_flight) {
            lose(s);
        }
    }
}

/* Make requests available, and do not tell the device. */
static void send_silently(void)
{
    Queue *q = &queues[below(NR_QUEUES)];

    wait_until_at_most(DEPTH - 1);
    for (int i = 0; i < DEPTH; i++) {
        if (!q->slots[i].in_flight) {
            choose(q, &q->slots[i]);
            send_request(q, &q->slots[i]);
        }
    }
    stw_le_p(ram + q->vq->avail + 2, q->avail_idx);
}

static void reset_device(void)
{
    send_silently();
    qvirtio_reset(dev);
    lose_all();
    free_queues();
    start_queues();
}

static void unplug_and_plug(void)
{
    g_autofree char *device = device_json();

    send_silently();
    qpci_unplug_acpi_device_test(qts, "dev", PCI_SLOT);
    lose_all();
    free_queues();
    free_device();
    qtest_qmp_assert_success(qts, "{ 'execute': 'device_add',"
                             "  'arguments': %p }",
                             qobject_from_json(device, &error_abort));
    find_device();
    start_queues();
}

static void stop_and_cont(void)
{
    qtest_qmp_assert_success(qts, "{ 'execute': 'stop' }");
    qtest_qmp_eventwait(qts, "STOP");
    harvest();
    qtest_qmp_assert_success(qts, "{ 'execute': 'cont' }");
    qtest_qmp_eventwait(qts, "RESUME");
}

static void reopen(void)
{
    for (int i = 0; i < 4; i++) {
        qtest_qmp_assert_success(
            qts, "{ 'execute': 'blockdev-reopen', 'arguments': { 'options': ["
                 "  { 'driver': 'qcow2', 'node-name': 'disk', 'file': 'file',"
                 "    'discard': %s } ] } }", i % 2 ? "ignore" : "unmap");
        harvest();
    }
}

static void throttle(void)
{
    for (int i = 0; i < 2; i++) {
        qtest_qmp_assert_success(
            qts, "{ 'execute': 'qom-set', 'arguments': {"
                 "  'path': '/objects/group', 'property': 'limits',"
                 "  'value': { 'iops-total': %d } } }", i ? 0 : 20000);
        send_requests(ROUND_REQUESTS / 8);
    }
}

static void reset_all_zones(void)
{
    Queue *q = &queues[below(NR_QUEUES)];

    wait_until_at_most(DEPTH - 1);
    for (int i = 0; i < DEPTH; i++) {
        Slot *s = &q->slots[i];

        if (!s->in_flight) {
            s->data = 0;
            choose_management(s, VIRTIO_BLK_T_ZONE_RESET_ALL, 0);
            send_request(q, s);
            publish(q);
            return;
        }
    }
}

static void look_at_counts(void)
{
    for (int i = 0; i < 20; i++) {
        check_counts(NULL);
        harvest();
    }
}

static void grow(void)
{
    for (int i = 0; i < 8; i++) {
        reset_all_zones();
        nr_new_zones += below(100);
        qtest_qmp_assert_success(
            qts, "{ 'execute': 'block_resize', 'arguments': {"
                 "  'node-name': 'top', 'size': %" PRId64 " } }",
            (int64_t)(NR_ZONES + nr_new_zones) * ZONE * SECTOR);
        send_requests(ROUND_REQUESTS / 16);
    }
}

static void (*const events[])(void) = {
    stop_and_cont, reset_device, reopen, unplug_and_plug, throttle,
    reset_all_zones, look_at_counts, grow,
};

/* Tests */

static unsigned stress_factor(void)
{
    const char *factor = g_getenv("ZONE_STRESS");

    return factor ? MAX(1, atoi(factor)) : 1;
}

/* It is no stress if the rules for zones never had a say in it. */
static void check_replies(void)
{
    static const uint32_t types[] = {
        VIRTIO_BLK_T_IN, VIRTIO_BLK_T_OUT, VIRTIO_BLK_T_FLUSH,
        VIRTIO_BLK_T_WRITE_ZEROES, VIRTIO_BLK_T_ZONE_APPEND,
        VIRTIO_BLK_T_ZONE_REPORT, VIRTIO_BLK_T_ZONE_OPEN,
        VIRTIO_BLK_T_ZONE_CLOSE, VIRTIO_BLK_T_ZONE_FINISH,
        VIRTIO_BLK_T_ZONE_RESET, VIRTIO_BLK_T_ZONE_RESET_ALL,
    };

    for (int i = 0; i < ARRAY_SIZE(types); i++) {
        g_assert_cmpuint(replies[types[i]][OK], >, 0);
    }
    g_assert_cmpuint(replies[VIRTIO_BLK_T_ZONE_APPEND][INVALID_CMD], >, 0);
    g_assert_cmpuint(replies[VIRTIO_BLK_T_ZONE_APPEND][ACTIVE_RESOURCE], >,
                     0);
    g_assert_cmpuint(replies[VIRTIO_BLK_T_ZONE_APPEND][OPEN_RESOURCE], >,
                     0);
    g_assert_cmpuint(replies[VIRTIO_BLK_T_OUT][UNALIGNED_WP], >, 0);
    g_assert_cmpuint(replies[VIRTIO_BLK_T_ZONE_OPEN][ACTIVE_RESOURCE], >,
                     0);
}

/* Everything is there after a power cycle, but nothing is open. */
static void check_power_cycle(void)
{
    struct virtio_blk_zone_descriptor before[NR_ZONES], after[NR_ZONES];

    check_all(before);
    quit();
    check_image();
    launch();
    check_all(after);
    for (uint32_t zone = 0; zone < NR_ZONES; zone++) {
        if (before[zone].z_state == VIRTIO_BLK_ZS_IOPEN ||
            before[zone].z_state == VIRTIO_BLK_ZS_EOPEN) {
            before[zone].z_state = before[zone].z_wp == before[zone].z_start ?
                VIRTIO_BLK_ZS_EMPTY : VIRTIO_BLK_ZS_CLOSED;
        }
    }
    g_assert_cmpmem(before, sizeof(before), after, sizeof(after));
    quit();
    check_image();
}

static void begin(void)
{
    Data none = { .fate = REFUSED };

    in_flight = 0;
    nr_new_zones = 0;
    nr_requests = nr_lost = 0;
    memset(replies, 0, sizeof(replies));
    memset(queues, 0, sizeof(queues));
    memset(zones, 0, sizeof(zones));
    memset(owners, 0, sizeof(owners));
    datas = g_array_new(false, false, sizeof(Data));
    g_array_append_val(datas, none);
    for (uint32_t zone = 0; zone < NR_ZONES; zone++) {
        zones[zone].end = zones[zone].next = zone_start(zone);
    }
    create();
    launch();
}

static void test_queues(const void *properties)
{
    struct virtio_blk_zone_descriptor descs[NR_ZONES];
    unsigned nr_rounds = NR_ROUNDS * stress_factor();
    gint64 time = 0;
    uint64_t timed = 0;

    threads = properties;
    rng = g_rand_new_with_seed(g_test_rand_int());
    begin();
    for (unsigned round = 0; round < nr_rounds; round++) {
        gint64 start = g_get_monotonic_time();
        uint64_t before = nr_requests;

        send_requests(ROUND_REQUESTS / 2);
        events[round % ARRAY_SIZE(events)]();
        send_requests(ROUND_REQUESTS / 2);
        wait_until_at_most(0);
        time += g_get_monotonic_time() - start;
        timed += nr_requests - before;

        check_all(descs);
        reset_some();
    }
    g_test_message("%" PRIu64 " requests, %" PRIu64 " lost, %" PRIu64
                   " a second", nr_requests, nr_lost,
                   timed * G_USEC_PER_SEC / MAX(time, 1));
    for (uint32_t type = 0; type < ARRAY_SIZE(replies); type++) {
        if (replies[type][OK]) {
            g_test_message("type %2u: %" PRIu64 " ok, %" PRIu64 " invalid, %"
                           PRIu64 " unaligned, %" PRIu64 " too many open, %"
                           PRIu64 " too many active", type, replies[type][OK],
                           replies[type][INVALID_CMD],
                           replies[type][UNALIGNED_WP],
                           replies[type][OPEN_RESOURCE],
                           replies[type][ACTIVE_RESOURCE]);
        }
    }
    check_replies();
    check_power_cycle();
    g_array_free(datas, true);
    g_rand_free(rng);
}

static void make_file(char **name, int size)
{
    int fd = g_file_open_tmp("qtest-virtio-blk-queues-zoned.XXXXXX", name,
                             NULL);

    g_assert_cmpint(fd, >=, 0);
    if (size) {
        g_assert_cmpint(ftruncate(fd, size), ==, 0);
        ram = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
        g_assert(ram != MAP_FAILED);
    }
    close(fd);
}

static void remove_file(char *name)
{
    unlink(name);
    g_free(name);
}

int main(int argc, char **argv)
{
    int ret;

    g_test_init(&argc, &argv, NULL);
    g_assert_true(have_qemu_img());
    make_file(&image, 0);
    make_file(&ram_file, RAM_SIZE);

    qtest_add_data_func("virtio-blk-queues-zoned/main-loop", "", test_queues);
    qtest_add_data_func("virtio-blk-queues-zoned/iothread",
                        ", 'iothread': 'io0'", test_queues);
    qtest_add_data_func("virtio-blk-queues-zoned/iothread-vq-mapping",
                        ", 'iothread-vq-mapping': ["
                        "    { 'iothread': 'io0' }, { 'iothread': 'io1' },"
                        "    { 'iothread': 'io2' }, { 'iothread': 'io3' } ]",
                        test_queues);
    ret = g_test_run();

    munmap(ram, RAM_SIZE);
    remove_file(ram_file);
    remove_file(image);
    return ret;
}
