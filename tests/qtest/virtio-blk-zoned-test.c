/*
 * QTest testcase for zoned virtio-blk devices
 *
 * Drivers stop most bad requests before a device sees them, so these are sent
 * by hand, to zoned qcow2 images.  What is expected is what VIRTIO 1.3 demands
 * ("5.2.x" is a section of it); where it leaves the choice, a comment says so.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include <glib/gstdio.h>
#include "libqtest.h"
#include "qemu/bswap.h"
#include "qobject/qdict.h"
#include "qobject/qlist.h"
#include "standard-headers/linux/virtio_blk.h"
#include "standard-headers/linux/virtio_config.h"
#include "standard-headers/linux/virtio_ring.h"
#include "libqos/libqos-malloc.h"
#include "libqos/malloc-pc.h"
#include "libqos/pci-pc.h"
#include "libqos/virtio.h"
#include "libqos/virtio-pci.h"

#define SECTOR      512
#define TIMEOUT_US  (60 * 1000 * 1000)

/* The last byte of the reply to each request */
enum {
    OK              = VIRTIO_BLK_S_OK,
    IOERR           = VIRTIO_BLK_S_IOERR,
    UNSUPP          = VIRTIO_BLK_S_UNSUPP,
    INVALID_CMD     = VIRTIO_BLK_S_ZONE_INVALID_CMD,
    UNALIGNED_WP    = VIRTIO_BLK_S_ZONE_UNALIGNED_WP,
    OPEN_RESOURCE   = VIRTIO_BLK_S_ZONE_OPEN_RESOURCE,
    ACTIVE_RESOURCE = VIRTIO_BLK_S_ZONE_ACTIVE_RESOURCE,
    NO_STATUS       = 0xff,
};

/* Bits of an entry of the image's zone table, see docs/interop/qcow2 */
#define ENTRY_READ_ONLY  (1ULL << 60)
#define ENTRY_OFFLINE    (1ULL << 61)
#define ZONED_EXTENSION  0x007a6264

/* The disk and its zones, in sectors; limits of 0 are none, so are zones */
typedef struct Geometry {
    uint64_t size;
    uint32_t zone;
    uint32_t capacity;
    uint32_t conventional;      /* zones */
    uint32_t max_open;
    uint32_t max_active;
    uint32_t max_append;
} Geometry;

#define ZONE  2048
#define Z(n)  ((uint64_t)(n) * ZONE)

/* Two conventional zones, seven more, and a short one; with and without gaps */
static const Geometry gaps = {
    .size = Z(9) + 1024, .zone = ZONE, .capacity = 1536, .conventional = 2,
    .max_append = 128,
};
static const Geometry no_gaps = {
    .size = Z(9) + 1024, .zone = ZONE, .capacity = ZONE, .conventional = 2,
    .max_append = 128,
};

/* A request, and what became of it */
typedef struct Request {
    uint32_t type;
    uint64_t sector;
    size_t out_len;             /* data for the device, each byte is ... */
    uint8_t fill;               /* ... this one, or ... */
    const void *out;            /* ... they are these */
    size_t in_len;              /* the reply with its status; if 0, only that */
    size_t piece;               /* longest descriptor; 0: one for each part */
    size_t bytes;               /* of the reply with a descriptor each */

    uint8_t *in;                /* the reply */
    uint8_t status;
    uint64_t addr;              /* of all parts in the guest */
    uint16_t head;              /* first descriptor */
} Request;

static char *image;
static Geometry geo;
static bool use_iothread;

static QTestState *qts;
static QGuestAllocator alloc;
static QPCIBus *bus;
static QVirtioPCIDevice *pci;
static QVirtioDevice *dev;
static QVirtQueue *vq;

/* The image */

static void create(Geometry geometry)
{
    g_autofree char *qemu_img = realpath(getenv("QTEST_QEMU_IMG"), NULL);
    g_autofree char *size = g_strdup_printf("%" PRIu64, geometry.size * SECTOR);
    g_autofree char *options = g_strdup_printf(
        "zone.mode=host-managed,zone.size=%" PRIu64 ",zone.capacity=%" PRIu64
        ",zone.conventional_zones=%u,zone.max_open_zones=%u"
        ",zone.max_active_zones=%u,zone.max_append_bytes=%u",
        (uint64_t)geometry.zone * SECTOR, (uint64_t)geometry.capacity * SECTOR,
        geometry.conventional, geometry.max_open, geometry.max_active,
        geometry.max_append * SECTOR);
    const char *argv[] = {
        qemu_img, "create", "-q", "-f", "qcow2", "-o",
        geometry.zone ? options : "compat=v3", image, size, NULL
    };
    int wait_status;

    g_assert(g_spawn_sync(NULL, (char **)argv, NULL, G_SPAWN_DEFAULT, NULL,
                          NULL, NULL, NULL, &wait_status, NULL));
    g_assert_cmpint(wait_status, ==, 0);
    geo = geometry;
}

/* Where the image file has the entry of a zone */
static uint64_t entry_offset(unsigned zone)
{
    g_autofree char *header = NULL;
    char *p;
    gsize len;

    g_assert(g_file_get_contents(image, &header, &len, NULL));
    p = header + ldl_be_p(header + 100);
    while (ldl_be_p(p) != ZONED_EXTENSION) {
        g_assert_cmphex(ldl_be_p(p), !=, 0);
        p += 8 + ROUND_UP(ldl_be_p(p + 4), 8);
    }
    return ldq_be_p(p + 8 + 40) + zone * 8;
}

/* Make a zone READ-ONLY or OFFLINE, while nobody has the image open */
static void mark(unsigned zone, uint64_t bit)
{
    off_t offset = entry_offset(zone);
    uint64_t entry;
    int fd = open(image, O_RDWR);

    g_assert_cmpint(pread(fd, &entry, 8, offset), ==, 8);
    entry |= cpu_to_be64(bit);
    g_assert_cmpint(pwrite(fd, &entry, 8, offset), ==, 8);
    close(fd);
}

/* The device */

/* @properties are the device's; more command line may follow */
static void launch_qemu(const char *blockdev, const char *properties)
{
    qts = qtest_initf("-machine pc -nodefaults %s -blockdev %s,node-name=disk "
                      "-device virtio-blk-pci,id=dev,drive=disk,addr=04.0%s%s",
                      use_iothread ? "-object iothread,id=io0" : "", blockdev,
                      use_iothread ? ",iothread=io0" : "", properties);
}

static void launch(const char *blockdev, const char *properties)
{
    QPCIAddress addr = { .devfn = QPCI_DEVFN(4, 0) };

    launch_qemu(blockdev, properties);
    pc_alloc_init(&alloc, qts, 0);
    bus = qpci_new_pc(qts, &alloc);
    pci = virtio_pci_new(bus, &addr);
    dev = &pci->vdev;
    qvirtio_pci_device_enable(pci);
    qvirtio_start_device(dev);
}

static void launch_image(const char *properties)
{
    g_autofree char *blockdev = g_strdup_printf(
        "driver=qcow2,file.driver=file,file.filename=%s", image);

    launch(blockdev, properties);
}

static uint64_t good_features(void)
{
    return qvirtio_get_features(dev) &
           ~(QVIRTIO_F_BAD_FEATURE | 1ULL << VIRTIO_RING_F_INDIRECT_DESC |
             1ULL << VIRTIO_RING_F_EVENT_IDX | 1ULL << VIRTIO_BLK_F_SCSI);
}

static void drive(uint64_t features)
{
    qvirtio_set_features(dev, features);
    vq = qvirtqueue_setup(dev, &alloc, 0);
    qvirtio_set_driver_ok(dev);
}

/*
 * No request of a guest may stop it: if one of a test that only sends bad ones
 * does, quit() notices.
 */
#define STOP_ON_ERROR ",werror=stop,rerror=stop"

static void start(const char *properties)
{
    g_autofree char *all = g_strconcat(STOP_ON_ERROR, properties, NULL);

    launch_image(all);
    drive(good_features());
}

static void quit_unchecked(void)
{
    if (vq) {
        qvirtqueue_cleanup(dev->bus, vq, &alloc);
        vq = NULL;
    }
    qvirtio_pci_device_disable(pci);
    g_free(pci->pdev);
    g_free(pci);
    qpci_free_pc(bus);
    alloc_destroy(&alloc);
    qtest_quit(qts);
}

static void quit(void)
{
    QDict *response = qtest_qmp_assert_success_ref(
        qts, "{ 'execute': 'query-status' }");

    g_assert_cmpstr(qdict_get_str(response, "status"), ==, "running");
    qobject_unref(response);
    g_assert_null(qtest_qmp_event_ref(qts, "BLOCK_IO_ERROR"));
    quit_unchecked();
}

static int64_t statistic(const char *name)
{
    QDict *response = qtest_qmp(qts, "{ 'execute': 'query-blockstats' }");
    QList *list = qdict_get_qlist(response, "return");
    QDict *stats = qdict_get_qdict(qobject_to(QDict, qlist_peek(list)),
                                   "stats");
    int64_t value = qdict_get_int(stats, name);

    qobject_unref(response);
    return value;
}

/* Requests */

static void add_part(uint16_t *head, uint64_t addr, size_t len, size_t piece,
                     bool is_in, bool is_last)
{
    uint64_t end = addr + len;

    while (addr < end) {
        size_t n = piece ? MIN(piece, end - addr) : len;
        uint16_t desc = qvirtqueue_add(qts, vq, addr, n, is_in,
                                       !is_last || addr + n < end);

        *head = MIN(*head, desc);
        addr += n;
    }
}

/* Make requests available to the device all at once */
static void submit(Request *reqs, int n)
{
    uint16_t idx = qtest_readw(qts, vq->avail + 2);

    for (int i = 0; i < n; i++) {
        Request *r = &reqs[i];
        struct virtio_blk_outhdr hdr = {
            .type = cpu_to_le32(r->type),
            .sector = cpu_to_le64(r->sector),
        };
        uint64_t data, reply;

        r->in_len = MAX(r->in_len, 1);
        r->addr = guest_alloc(&alloc, sizeof(hdr) + r->out_len + r->in_len);
        data = r->addr + sizeof(hdr);
        reply = data + r->out_len;

        qtest_memwrite(qts, r->addr, &hdr, sizeof(hdr));
        if (r->out) {
            qtest_memwrite(qts, data, r->out, r->out_len);
        } else if (r->out_len) {
            qtest_memset(qts, data, r->fill, r->out_len);
        }
        qtest_memset(qts, reply, NO_STATUS, r->in_len);

        r->head = UINT16_MAX;
        add_part(&r->head, r->addr, sizeof(hdr), r->piece, false, false);
        add_part(&r->head, data, r->out_len, r->piece, false, false);
        add_part(&r->head, reply, r->bytes, 1, true, false);
        add_part(&r->head, reply + r->bytes, r->in_len - r->bytes, r->piece,
                 true, true);
        qtest_writew(qts, vq->avail + 4 + 2 * ((idx + i) % vq->size), r->head);
    }
    g_assert_cmpuint(vq->free_head, <=, vq->size);
    qtest_writew(qts, vq->avail + 2, idx + n);
    dev->bus->virtqueue_kick(dev, vq);
}

/* Wait for all requests that were submitted */
static void wait_for(Request *reqs, int n)
{
    uint16_t idx = vq->last_used_idx + n;
    gint64 end = g_get_monotonic_time() + TIMEOUT_US;

    while (qtest_readw(qts, vq->used + 2) != idx) {
        g_assert_cmpint(g_get_monotonic_time(), <, end);
        g_usleep(100);
    }

    for (; vq->last_used_idx != idx; vq->last_used_idx++) {
        uint64_t elem = vq->used + 4 + 8 * (vq->last_used_idx % vq->size);
        uint32_t head = qtest_readl(qts, elem);
        Request *r = reqs;

        while (r->head != head) {
            r++;
            g_assert(r < reqs + n);
        }
        /* The status is the last byte (5.2.6), so all of the reply is used */
        g_assert_cmpuint(qtest_readl(qts, elem + 4), ==, r->in_len);

        g_free(r->in);
        r->in = g_malloc(r->in_len);
        qtest_memread(qts, r->addr + sizeof(struct virtio_blk_outhdr) +
                           r->out_len, r->in, r->in_len);
        r->status = r->in[r->in_len - 1];
        guest_free(&alloc, r->addr);
    }
    vq->free_head = 0;
    vq->num_free = vq->size;
}

static void free_replies(Request *reqs, int n)
{
    for (int i = 0; i < n; i++) {
        g_clear_pointer(&reqs[i].in, g_free);
    }
}

static void send_all(Request *reqs, int n)
{
    submit(reqs, n);
    wait_for(reqs, n);
}

static uint8_t status_of(Request req)
{
    send_all(&req, 1);
    free_replies(&req, 1);
    return req.status;
}

#define OUT(s, n, f) ((Request) {                                       \
        .type = VIRTIO_BLK_T_OUT, .sector = s, .out_len = (n) * SECTOR, \
        .fill = f })
#define APPEND(s, n, f) ((Request) {                                    \
        .type = VIRTIO_BLK_T_ZONE_APPEND, .sector = s,                  \
        .out_len = (n) * SECTOR, .fill = f, .in_len = 9 })
#define IN(s, n) ((Request) {                                           \
        .type = VIRTIO_BLK_T_IN, .sector = s,                           \
        .in_len = (n) * SECTOR + 1 })
#define MANAGE(t, s) ((Request) {                                       \
        .type = VIRTIO_BLK_T_ZONE_ ## t, .sector = s })

static uint8_t out(uint64_t sector, size_t sectors, uint8_t fill)
{
    return status_of(OUT(sector, sectors, fill));
}

static uint8_t in(uint64_t sector, size_t sectors)
{
    return status_of(IN(sector, sectors));
}

static uint64_t append_sector(const Request *r)
{
    g_assert_cmpuint(r->in_len, >=, 9);
    return ldq_le_p(r->in);
}

/* An append which must succeed; the sector that it returns */
static uint64_t appended(uint64_t zone, size_t sectors, uint8_t fill)
{
    Request r = APPEND(zone, sectors, fill);
    uint64_t sector;

    send_all(&r, 1);
    g_assert_cmpint(r.status, ==, OK);
    sector = append_sector(&r);
    free_replies(&r, 1);
    return sector;
}

static uint8_t append(uint64_t zone, size_t sectors)
{
    return status_of(APPEND(zone, sectors, 0xa5));
}

static uint8_t manage(uint32_t type, uint64_t sector)
{
    return status_of((Request) { .type = type, .sector = sector });
}

static uint8_t open_zone(uint64_t sector)
{
    return manage(VIRTIO_BLK_T_ZONE_OPEN, sector);
}

static uint8_t close_zone(uint64_t sector)
{
    return manage(VIRTIO_BLK_T_ZONE_CLOSE, sector);
}

static uint8_t finish(uint64_t sector)
{
    return manage(VIRTIO_BLK_T_ZONE_FINISH, sector);
}

static uint8_t reset(uint64_t sector)
{
    return manage(VIRTIO_BLK_T_ZONE_RESET, sector);
}

static uint8_t reset_all(void)
{
    return manage(VIRTIO_BLK_T_ZONE_RESET_ALL, 0);
}

static uint8_t discard_or_zero(uint32_t type, uint64_t sector, uint32_t sectors,
                               uint32_t flags)
{
    struct virtio_blk_discard_write_zeroes segment = {
        .sector = cpu_to_le64(sector),
        .num_sectors = cpu_to_le32(sectors),
        .flags = cpu_to_le32(flags),
    };

    return status_of((Request) { .type = type, .out = &segment,
                            .out_len = sizeof(segment) });
}

static uint8_t write_zeroes(uint64_t sector, uint32_t sectors)
{
    return discard_or_zero(VIRTIO_BLK_T_WRITE_ZEROES, sector, sectors, 0);
}

static void assert_data(uint64_t sector, size_t sectors, uint8_t fill)
{
    Request r = IN(sector, sectors);

    send_all(&r, 1);
    g_assert_cmpint(r.status, ==, OK);
    for (size_t i = 0; i < sectors * SECTOR; i++) {
        g_assert_cmphex(r.in[i], ==, fill);
    }
    free_replies(&r, 1);
}

/* Reports */

static unsigned nr_zones(void)
{
    return DIV_ROUND_UP(geo.size, geo.zone);
}

static size_t report_len(unsigned zones)
{
    return sizeof(struct virtio_blk_zone_report) +
           zones * sizeof(struct virtio_blk_zone_descriptor) + 1;
}

static struct virtio_blk_zone_descriptor *descriptors(const Request *r)
{
    return (void *)(r->in + sizeof(struct virtio_blk_zone_report));
}

/* Check what VIRTIO says of the descriptor of a zone in any state */
static void check_descriptor(const struct virtio_blk_zone_descriptor *desc,
                             unsigned zone)
{
    uint64_t start = (uint64_t)zone * geo.zone;
    uint64_t len = MIN(geo.zone, geo.size - start);
    bool conventional = zone < geo.conventional;
    uint64_t capacity = conventional ? len : MIN(geo.capacity, len);
    uint64_t wp = le64_to_cpu(desc->z_wp);

    g_assert_cmpuint(le64_to_cpu(desc->z_start), ==, start);
    g_assert_cmpuint(le64_to_cpu(desc->z_cap), ==, capacity);
    g_assert_cmpint(desc->z_type, ==,
                    conventional ? VIRTIO_BLK_ZT_CONV : VIRTIO_BLK_ZT_SWR);
    g_assert_cmpint(desc->z_state == VIRTIO_BLK_ZS_NOT_WP, ==, conventional);
    for (size_t i = 0; i < sizeof(desc->reserved); i++) {
        g_assert_cmphex(desc->reserved[i], ==, 0);
    }

    switch (desc->z_state) {
    case VIRTIO_BLK_ZS_EMPTY:
        g_assert_cmpuint(wp, ==, start);
        break;
    case VIRTIO_BLK_ZS_CLOSED:
        g_assert_cmpuint(wp, >, start);
        /* fall through */
    case VIRTIO_BLK_ZS_IOPEN: /* at the start, when a write failed */
    case VIRTIO_BLK_ZS_EOPEN:
        g_assert_cmpuint(wp, >=, start);
        g_assert_cmpuint(wp, <, start + capacity);
        break;
    case VIRTIO_BLK_ZS_FULL:
    case VIRTIO_BLK_ZS_RDONLY:
    case VIRTIO_BLK_ZS_OFFLINE:
    case VIRTIO_BLK_ZS_NOT_WP:
        break;
    default:
        g_assert_not_reached();
    }
}

/*
 * Report all zones, check the descriptors, return a letter for each state:
 * - not write pointer, Empty, Implicitly open, explicitly Open, Closed, Full,
 * Read-only, X offline
 */
static char *report_states(uint64_t *wps)
{
    static const char letters[] = {
        [VIRTIO_BLK_ZS_NOT_WP] = '-', [VIRTIO_BLK_ZS_EMPTY] = 'E',
        [VIRTIO_BLK_ZS_IOPEN] = 'I', [VIRTIO_BLK_ZS_EOPEN] = 'O',
        [VIRTIO_BLK_ZS_CLOSED] = 'C', [VIRTIO_BLK_ZS_FULL] = 'F',
        [VIRTIO_BLK_ZS_RDONLY] = 'R', [VIRTIO_BLK_ZS_OFFLINE] = 'X',
    };
    unsigned n = nr_zones();
    Request r = {
        .type = VIRTIO_BLK_T_ZONE_REPORT, .in_len = report_len(n + 1),
    };
    char *states = g_malloc0(n + 1);

    send_all(&r, 1);
    g_assert_cmpint(r.status, ==, OK);
    g_assert_cmpuint(ldq_le_p(r.in), ==, n);
    for (unsigned i = 0; i < n; i++) {
        check_descriptor(&descriptors(&r)[i], i);
        states[i] = letters[descriptors(&r)[i].z_state];
        if (wps) {
            wps[i] = le64_to_cpu(descriptors(&r)[i].z_wp);
        }
    }
    free_replies(&r, 1);
    return states;
}

#define assert_states(expected) do {                            \
        g_autofree char *states_ = report_states(NULL);         \
        g_assert_cmpstr(states_, ==, expected);                 \
    } while (0)

static uint64_t wp(uint64_t sector)
{
    g_autofree uint64_t *wps = g_new(uint64_t, nr_zones());
    g_autofree char *states = report_states(wps);

    return wps[sector / geo.zone];
}

static void write_zone(uint64_t sector, size_t sectors, uint8_t fill)
{
    for (size_t done = 0; done < sectors; done += 1024) {
        g_assert_cmpint(out(sector + done, MIN(1024, sectors - done), fill),
                        ==, OK);
    }
}

/* Configuration space and features */

/* What a driver finds in configuration space, if the device has no geometry */
static struct virtio_blk_config expected_config(uint32_t block)
{
    struct virtio_blk_config config = {
        .capacity = cpu_to_le64(geo.size),
        .seg_max = cpu_to_le32(254),    /* queue of 256 without two headers */
        .geometry = {
            .cylinders = cpu_to_le16(23),
            .heads = 4,
            .sectors = 16,
        },
        .blk_size = cpu_to_le32(block),
        .wce = 1,
        .num_queues = cpu_to_le16(1),
        .max_write_zeroes_sectors = cpu_to_le32(INT32_MAX / SECTOR),
        .max_write_zeroes_seg = cpu_to_le32(1),
        .write_zeroes_may_unmap = 1,
        .zoned = {
            .zone_sectors = cpu_to_le32(geo.zone),
            .max_open_zones = cpu_to_le32(geo.max_open),
            .max_active_zones = cpu_to_le32(geo.max_active),
            .max_append_sectors = cpu_to_le32(geo.max_append),
            .write_granularity = cpu_to_le32(block),
            .model = VIRTIO_BLK_Z_HM,
        },
    };

    return config;
}

static void assert_config(const struct virtio_blk_config *expected)
{
    for (size_t i = 0; i < sizeof(*expected); i++) {
        uint8_t byte = qvirtio_config_readb(dev, i);

        if (byte != ((uint8_t *)expected)[i]) {
            g_test_message("at byte %zu", i);
        }
        g_assert_cmphex(byte, ==, ((uint8_t *)expected)[i]);
    }
}

#define CHS ",cyls=23,heads=4,secs=16"

static void test_config_has_the_zones(void)
{
    Geometry geometry = gaps;
    struct virtio_blk_config expected;

    create(geometry);
    start(CHS);
    expected = expected_config(512);
    assert_config(&expected);
    quit();

    geometry.max_open = 3;
    geometry.max_active = 5;
    geometry.max_append = 1536;
    create(geometry);
    start(CHS ",logical_block_size=4096,physical_block_size=4096");
    expected = expected_config(4096);
    assert_config(&expected);

    /* All fields of zoned are read-only (5.2.5) */
    for (size_t i = 0; i < sizeof(expected.zoned); i++) {
        qpci_io_writeb(pci->pdev, pci->bar, pci->device_cfg_offset +
                       offsetof(struct virtio_blk_config, zoned) + i, 0x5a);
    }
    assert_config(&expected);
    quit();
}

static void test_a_host_managed_disk_has_zoned_without_discard(void)
{
    uint64_t features;

    create(gaps);
    start(",discard=on");
    features = qvirtio_get_features(dev);
    g_assert_cmphex(features & 1ULL << VIRTIO_BLK_F_ZONED, !=, 0);
    /* 5.2.5.1: with this model, a driver must not negotiate it */
    g_assert_cmphex(features & 1ULL << VIRTIO_BLK_F_DISCARD, ==, 0);
    quit();
}

/* 5.2.6.2, also said of legacy drivers, who cannot negotiate the bit */
static void assert_zones_unsupported(void)
{
    g_assert_cmpint(append(Z(3), 8), ==, UNSUPP);
    g_assert_cmpint(status_of((Request) { .type = VIRTIO_BLK_T_ZONE_REPORT,
                                     .in_len = report_len(2) }), ==, UNSUPP);
    g_assert_cmpint(open_zone(Z(3)), ==, UNSUPP);
    g_assert_cmpint(close_zone(Z(3)), ==, UNSUPP);
    g_assert_cmpint(finish(Z(3)), ==, UNSUPP);
    g_assert_cmpint(reset(Z(3)), ==, UNSUPP);
    g_assert_cmpint(reset_all(), ==, UNSUPP);
    /* even if they are wrong in other ways, too */
    g_assert_cmpint(append(Z(3) + 1, 0), ==, UNSUPP);
    g_assert_cmpint(reset(1ULL << 55), ==, UNSUPP);
    g_assert_cmpint(manage(VIRTIO_BLK_T_ZONE_REPORT, 0), ==, UNSUPP);
}

/*
 * The standard leaves it to us what becomes of the other requests of a driver
 * that goes on with a host-managed disk that it cannot know.
 */
static void assert_nothing_supported(void)
{
    assert_zones_unsupported();
    g_assert_cmpint(in(0, 8), ==, UNSUPP);
    g_assert_cmpint(in(Z(3), 8), ==, UNSUPP);
    g_assert_cmpint(out(0, 8, 1), ==, UNSUPP);
    g_assert_cmpint(out(Z(3), 8, 1), ==, UNSUPP);
    g_assert_cmpint(write_zeroes(Z(3), 8), ==, UNSUPP);
    g_assert_cmpint(manage(VIRTIO_BLK_T_FLUSH, 0), ==, UNSUPP);
    g_assert_cmpint(status_of((Request) { .type = VIRTIO_BLK_T_GET_ID,
                                     .in_len = 21 }), ==, OK);
}

/* Accept features as drivers do, return whether the device agrees */
static bool features_ok(uint64_t features)
{
    uint8_t status = dev->bus->get_status(dev) | VIRTIO_CONFIG_S_FEATURES_OK;

    dev->features = features;
    dev->bus->set_features(dev, features);
    dev->bus->set_status(dev, status);
    dev->features_negotiated = true;
    return dev->bus->get_status(dev) & VIRTIO_CONFIG_S_FEATURES_OK;
}

static void test_features_are_not_ok_without_zoned(void)
{
    uint64_t features;

    create(gaps);
    launch_image(STOP_ON_ERROR);
    features = good_features() & ~(1ULL << VIRTIO_BLK_F_ZONED);
    g_assert_false(features_ok(features)); /* 5.2.5.2 */

    /* Some drivers don't look */
    vq = qvirtqueue_setup(dev, &alloc, 0);
    dev->bus->set_status(dev, dev->bus->get_status(dev) |
                              VIRTIO_CONFIG_S_DRIVER_OK);
    assert_nothing_supported();

    /* The next one knows zones, and finds them untouched */
    qvirtqueue_cleanup(dev->bus, vq, &alloc);
    qvirtio_start_device(dev);
    drive(good_features());
    assert_states("--EEEEEEEE");
    quit();
}

static void test_zones_are_for_whom_negotiated_them(void)
{
    create(gaps);
    start("");
    g_assert_cmpint(out(Z(3), 8, 1), ==, OK);
    g_assert_cmpint(open_zone(Z(4)), ==, OK);
    assert_states("--EIOEEEEE");

    qvirtqueue_cleanup(dev->bus, vq, &alloc);
    qvirtio_start_device(dev);
    g_assert_false(features_ok(good_features() &
                               ~(1ULL << VIRTIO_BLK_F_ZONED)));
    vq = qvirtqueue_setup(dev, &alloc, 0);
    assert_nothing_supported();

    /* A reset of the device is no power cycle of the disk */
    qvirtqueue_cleanup(dev->bus, vq, &alloc);
    qvirtio_start_device(dev);
    drive(good_features());
    assert_states("--EIOEEEEE");
    assert_data(Z(3), 8, 1);
    quit();
}

static void test_legacy_devices_are_not_zoned(void)
{
    create(gaps);
    launch_image(STOP_ON_ERROR ",disable-modern=on,disable-legacy=off");
    g_assert_cmphex(qvirtio_get_features(dev) & 1ULL << VIRTIO_BLK_F_ZONED,
                    ==, 0); /* 5.2.5.2 */
    drive(good_features());
    assert_nothing_supported();
    quit_unchecked();

    /* A driver that accepts what was not offered gets no further */
    launch_image(STOP_ON_ERROR ",disable-modern=on,disable-legacy=off");
    drive(good_features() | 1ULL << VIRTIO_BLK_F_ZONED);
    assert_nothing_supported();
    quit();
}

static void test_transitional_devices_are_zoned_for_modern_drivers(void)
{
    QPCIBar legacy;

    create(gaps);
    start(",disable-legacy=off");
    assert_states("--EEEEEEEE");
    legacy = qpci_iomap(pci->pdev, 0, NULL);
    g_assert_cmphex(qpci_io_readl(pci->pdev, legacy, 0) &
                    1ULL << VIRTIO_BLK_F_SEG_MAX, !=, 0);
    g_assert_cmphex(qpci_io_readl(pci->pdev, legacy, 0) &
                    1ULL << VIRTIO_BLK_F_ZONED, ==, 0);
    quit();
}

static void test_other_disks_have_no_zones(void)
{
    create((Geometry) { .size = Z(10) });
    launch_image(STOP_ON_ERROR);
    g_assert_cmphex(qvirtio_get_features(dev) & 1ULL << VIRTIO_BLK_F_ZONED,
                    ==, 0); /* 5.2.5.2: should not */
    drive(good_features());
    assert_zones_unsupported();
    g_assert_cmpint(out(0, 8, 0), ==, OK);
    g_assert_cmpint(in(Z(3) - 4, 8), ==, OK);
    quit();
}

/* Reports */

static void test_report_fills_what_room_there_is(void)
{
    create(gaps);
    start("");
    /* Not even room for the header: "all other error conditions" (5.2.6) */
    for (size_t len = 1; len < report_len(0); len++) {
        g_assert_cmpint(status_of((Request) { .type = VIRTIO_BLK_T_ZONE_REPORT,
                                         .in_len = len }), ==, INVALID_CMD);
    }
    /* nr_zones counts descriptors that fit as a whole (5.2.6) */
    for (size_t len = report_len(0); len < report_len(12); len += 7) {
        Request r = { .type = VIRTIO_BLK_T_ZONE_REPORT, .in_len = len };
        unsigned zones = MIN((len - report_len(0)) / 64, 10);

        send_all(&r, 1);
        g_assert_cmpint(r.status, ==, OK);
        g_assert_cmpuint(ldq_le_p(r.in), ==, zones);
        for (size_t i = 8; i < 64; i++) {
            g_assert_cmphex(r.in[i], ==, 0);
        }
        for (unsigned i = 0; i < zones; i++) {
            check_descriptor(&descriptors(&r)[i], i);
        }
        /* No byte of the host's memory, for example */
        for (size_t i = 64 + 64 * zones; i < len - 1; i++) {
            g_assert_cmphex(r.in[i], ==, NO_STATUS);
        }
        free_replies(&r, 1);
    }
    quit();
}

static void test_report_takes_any_descriptors(void)
{
    static const size_t pieces[] = { 1, 3, 7, 8, 63, 64, 65, 100 };

    create(gaps);
    start("");
    g_assert_cmpint(out(Z(5), 8, 1), ==, OK);
    for (int i = 0; i < ARRAY_SIZE(pieces); i++) {
        Request r = {
            .type = VIRTIO_BLK_T_ZONE_REPORT, .sector = Z(5),
            .in_len = report_len(2), .piece = pieces[i],
        };

        send_all(&r, 1);
        g_assert_cmpint(r.status, ==, OK);
        g_assert_cmpuint(ldq_le_p(r.in), ==, 2);
        check_descriptor(&descriptors(&r)[0], 5);
        check_descriptor(&descriptors(&r)[1], 6);
        g_assert_cmpuint(le64_to_cpu(descriptors(&r)[0].z_wp), ==, Z(5) + 8);
        free_replies(&r, 1);
    }
    quit();
}

static void test_report_starts_where_the_sector_is(void)
{
    static const uint64_t outside[] = {
        Z(9) + 1024, Z(10), 1ULL << 32, 1ULL << 54, 1ULL << 55,
        (1ULL << 55) + Z(3), 1ULL << 63, UINT64_MAX,
    };

    create(gaps);
    start("");
    for (uint64_t sector = 0; sector < geo.size; sector += 511) {
        Request r = {
            .type = VIRTIO_BLK_T_ZONE_REPORT, .sector = sector,
            .in_len = report_len(20),
        };
        unsigned first = sector / ZONE;

        send_all(&r, 1);
        g_assert_cmpint(r.status, ==, OK);
        g_assert_cmpuint(ldq_le_p(r.in), ==, 10 - first);
        for (unsigned i = first; i < 10; i++) {
            check_descriptor(&descriptors(&r)[i - first], i);
        }
        free_replies(&r, 1);
    }
    for (int i = 0; i < ARRAY_SIZE(outside); i++) {
        g_assert_cmpint(status_of((Request) { .type = VIRTIO_BLK_T_ZONE_REPORT,
                                         .sector = outside[i],
                                         .in_len = report_len(4) }),
                        ==, INVALID_CMD);
    }
    quit();
}

static void test_report_has_thousands_of_zones(void)
{
    Request r = { .type = VIRTIO_BLK_T_ZONE_REPORT };

    create((Geometry) {
        .size = 128 * 10000 + 64, .zone = 128, .capacity = 120,
        .max_append = 8,
    });
    start("");
    g_assert_cmpint(out(128 * 9000, 8, 1), ==, OK);
    r.in_len = report_len(10100);
    send_all(&r, 1);
    g_assert_cmpint(r.status, ==, OK);
    g_assert_cmpuint(ldq_le_p(r.in), ==, 10001);
    for (unsigned i = 0; i < 10001; i++) {
        check_descriptor(&descriptors(&r)[i], i);
        g_assert_cmpint(descriptors(&r)[i].z_state, ==,
                        i == 9000 ? VIRTIO_BLK_ZS_IOPEN : VIRTIO_BLK_ZS_EMPTY);
    }
    free_replies(&r, 1);
    quit();
}

/* They end inside of what describes a zone, after it, and where a step ends */
static void test_a_long_report_takes_any_descriptors(void)
{
    static const size_t bytes[] = { 0, 1, 63, 64, 65, 150 };
    static const size_t pieces[] = { 6999, 8192, 4096 * 64, 300000 };
    const unsigned zones = 10000;

    create((Geometry) {
        .size = 128 * zones, .zone = 128, .capacity = 120,
        .conventional = 9000, .max_append = 8,
    });
    mark(1, ENTRY_READ_ONLY);
    mark(4500, ENTRY_OFFLINE);
    mark(9100, ENTRY_OFFLINE);
    start("");
    for (int i = 0; i < ARRAY_SIZE(bytes) * ARRAY_SIZE(pieces); i++) {
        Request r = {
            .type = VIRTIO_BLK_T_ZONE_REPORT, .in_len = report_len(zones),
            .piece = pieces[i % ARRAY_SIZE(pieces)],
            .bytes = bytes[i / ARRAY_SIZE(pieces)],
        };

        send_all(&r, 1);
        g_assert_cmpint(r.status, ==, OK);
        g_assert_cmpuint(ldq_le_p(r.in), ==, zones);
        for (unsigned j = 0; j < zones; j++) {
            check_descriptor(&descriptors(&r)[j], j);
            g_assert_cmpint(descriptors(&r)[j].z_state, ==,
                            j < 9000 ? VIRTIO_BLK_ZS_NOT_WP :
                            j == 9100 ? VIRTIO_BLK_ZS_OFFLINE :
                            VIRTIO_BLK_ZS_EMPTY);
        }
        free_replies(&r, 1);
    }
    quit();
}

/* A long report is done in several steps */
static void test_a_reset_of_the_device_ends_reports(void)
{
    Request r = { .type = VIRTIO_BLK_T_ZONE_REPORT };
    struct virtio_blk_zone_report header;

    create((Geometry) {
        .size = 128 * 250000, .zone = 128, .capacity = 120, .max_append = 8,
    });
    start("");
    r.in_len = report_len(250000);
    for (int i = 0; i < 5; i++) {
        submit(&r, 1);
        qvirtqueue_cleanup(dev->bus, vq, &alloc);
        qvirtio_start_device(dev);
        /* The buffer is the driver's again */
        qtest_memset(qts, r.addr, 0x55, 16 + r.in_len);
        drive(good_features());
        g_assert_cmpint(in(0, 8), ==, OK);
        qtest_memread(qts, r.addr + 16, &header, sizeof(header));
        for (int j = 0; j < sizeof(header); j++) {
            g_assert_cmphex(((uint8_t *)&header)[j], ==, 0x55);
        }
        guest_free(&alloc, r.addr);
    }
    assert_data(0, 8, 0);
    quit();
}

/* States */

/* Zones in all states: -EIOCFRX. There are no limits. */
static void start_with_all_states(void)
{
    create((Geometry) {
        .size = Z(8), .zone = ZONE, .capacity = 1536, .conventional = 1,
        .max_append = 128,
    });
    start("");
    for (int zone = 0; zone < 8; zone++) {
        if (zone != 1) {
            g_assert_cmpint(out(Z(zone), 8, 1), ==, OK);
        }
    }
    quit();

    mark(6, ENTRY_READ_ONLY);
    mark(7, ENTRY_OFFLINE);
    start("");
    g_assert_cmpint(out(Z(2) + 8, 8, 1), ==, OK);
    g_assert_cmpint(open_zone(Z(3)), ==, OK);
    g_assert_cmpint(finish(Z(5)), ==, OK);
    assert_states("-EIOCFRX");
}

typedef struct Transition {
    Request req;                /* its sector counts from the zone's start */
    uint8_t status[8];          /* for each zone of start_with_all_states() */
    const char *after;
} Transition;

static void check_transition(const Transition *t)
{
    start_with_all_states();
    for (int zone = 0; zone < 8; zone++) {
        Request req = t->req;

        req.sector += Z(zone);
        g_test_message("zone %d", zone);
        g_assert_cmpint(status_of(req), ==, t->status[zone]);
    }
    assert_states(t->after);
    quit();
}

/*
 * 5.2.6 lists the transitions. "If the transition to this state can not be
 * performed" the status is INVALID_CMD (5.2.6.2), as for conventional and
 * offline zones.
 */
static void test_open_changes_states_as_listed(void)
{
    check_transition(&(Transition) {
        MANAGE(OPEN, 0),
        { INVALID_CMD, OK, OK, OK, OK, INVALID_CMD, INVALID_CMD, INVALID_CMD },
        "-OOOOFRX"
    });
}

static void test_close_changes_states_as_listed(void)
{
    check_transition(&(Transition) {
        MANAGE(CLOSE, 0),
        { INVALID_CMD, INVALID_CMD, OK, OK, OK, INVALID_CMD, INVALID_CMD,
          INVALID_CMD },
        "-ECCCFRX"
    });
}

/* The list lacks EMPTY and CLOSED to FULL, which ZBC and ZNS both have */
static void test_finish_changes_states_as_listed(void)
{
    check_transition(&(Transition) {
        MANAGE(FINISH, 0),
        { INVALID_CMD, OK, OK, OK, OK, OK, INVALID_CMD, INVALID_CMD },
        "-FFFFFRX"
    });
}

static void test_reset_changes_states_as_listed(void)
{
    check_transition(&(Transition) {
        MANAGE(RESET, 0),
        { INVALID_CMD, OK, OK, OK, OK, OK, INVALID_CMD, INVALID_CMD },
        "-EEEEERX"
    });
}

static void test_append_changes_states_as_listed(void)
{
    check_transition(&(Transition) {
        APPEND(0, 8, 2),
        { INVALID_CMD, OK, OK, OK, OK, INVALID_CMD, INVALID_CMD, INVALID_CMD },
        "-IIOIFRX"
    });
}

static void test_out_changes_states_as_listed(void)
{
    static const uint64_t wps[] = { 16, 0, 16, 8, 8, 8, 8, 8 };
    static const uint8_t status[] = {
        OK, OK, OK, OK, OK, INVALID_CMD, INVALID_CMD, INVALID_CMD
    };

    start_with_all_states();
    for (int zone = 0; zone < 8; zone++) {
        g_assert_cmpint(out(Z(zone) + wps[zone], 8, 2), ==, status[zone]);
    }
    assert_states("-IIOIFRX");
    quit();
}

/* The standard is silent about zones. Here, it is a write of zeroes. */
static void test_write_zeroes_changes_states_as_out(void)
{
    static const uint64_t wps[] = { 16, 0, 16, 8, 8, 8, 8, 8 };
    static const uint8_t status[] = {
        OK, OK, OK, OK, OK, INVALID_CMD, INVALID_CMD, INVALID_CMD
    };

    start_with_all_states();
    for (int zone = 0; zone < 8; zone++) {
        g_assert_cmpint(write_zeroes(Z(zone) + wps[zone], 8), ==,
                        status[zone]);
    }
    assert_states("-IIOIFRX");
    quit();
}

static void test_in_changes_no_state(void)
{
    check_transition(&(Transition) {
        IN(0, 16),
        { OK, OK, OK, OK, OK, OK, OK, INVALID_CMD },
        "-EIOCFRX"
    });
}

static void test_states_follow_the_write_pointer(void)
{
    create(gaps);
    start("");
    /* Opened and closed without data (5.2.6) */
    g_assert_cmpint(open_zone(Z(2)), ==, OK);
    g_assert_cmpint(close_zone(Z(2)), ==, OK);
    assert_states("--EEEEEEEE");

    /* The last sector of the capacity, by each kind of write */
    write_zone(Z(2), 1528, 1);
    g_assert_cmpint(open_zone(Z(3)), ==, OK);
    write_zone(Z(3), 1528, 1);
    write_zone(Z(4), 1528, 1);
    g_assert_cmpint(close_zone(Z(4)), ==, OK);
    write_zone(Z(5), 1528, 1);
    assert_states("--IOCIEEEE");
    g_assert_cmpint(out(Z(2) + 1528, 8, 1), ==, OK);
    g_assert_cmpint(out(Z(3) + 1528, 8, 1), ==, OK);
    g_assert_cmpuint(appended(Z(4), 8, 1), ==, Z(4) + 1528);
    g_assert_cmpint(write_zeroes(Z(5) + 1528, 8), ==, OK);
    assert_states("--FFFFEEEE");
    quit();
}

/*
 * 5.2.6: "zones of the type VIRTIO_BLK_ZT_CONV are always reported by the
 * device to be in the VIRTIO_BLK_ZS_NOT_WP state", even those that the image
 * says are broken
 */
static void test_conventional_zones_are_always_not_wp(void)
{
    create(gaps);
    mark(0, ENTRY_READ_ONLY);
    mark(1, ENTRY_OFFLINE);
    start("");
    assert_states("--EEEEEEEE");
    g_assert_cmpint(out(0, 8, 1), ==, INVALID_CMD);
    g_assert_cmpint(out(ZONE, 8, 1), ==, INVALID_CMD);
    g_assert_cmpint(in(0, 8), ==, OK);
    g_assert_cmpint(in(ZONE, 8), ==, INVALID_CMD);
    quit();
}

/* Management */

static const uint32_t zone_ops[] = {
    VIRTIO_BLK_T_ZONE_OPEN, VIRTIO_BLK_T_ZONE_CLOSE,
    VIRTIO_BLK_T_ZONE_FINISH, VIRTIO_BLK_T_ZONE_RESET,
};

/* "All other error conditions" (5.2.6) */
static void test_management_needs_the_start_of_a_zone(void)
{
    static const uint64_t sectors[] = {
        Z(3) + 1, Z(3) + 8, Z(3) + 1024, Z(4) - 1, Z(9) + 1023,
        Z(9) + 1024, Z(10), 1ULL << 32, 1ULL << 54, 1ULL << 55,
        (1ULL << 55) + Z(3), (1ULL << 55) + 1, 1ULL << 63,
        (1ULL << 63) + Z(3), UINT64_MAX - ZONE + 1, UINT64_MAX,
    };

    create(gaps);
    start("");
    g_assert_cmpint(out(Z(3), 8, 1), ==, OK);
    g_assert_cmpint(out(Z(9), 8, 1), ==, OK);
    for (int op = 0; op < ARRAY_SIZE(zone_ops); op++) {
        for (int i = 0; i < ARRAY_SIZE(sectors); i++) {
            g_assert_cmpint(manage(zone_ops[op], sectors[i]), ==, INVALID_CMD);
        }
    }
    assert_states("--EIEEEEEI");
    quit();
}

/*
 * VIRTIO_BLK_T_OUT says which way data goes, and is part of the types that
 * have it. With or without it, other numbers are no requests.
 */
static void test_numbers_that_are_no_request_are_unsupported(void)
{
    static const uint32_t types[] = {
        10, 12, 14, 17, 19, 21, 23, 25, 27, 28, 29, 0x100 + 24, 0x10000 + 15,
    };

    create(gaps);
    start("");
    g_assert_cmpint(out(Z(3), 8, 1), ==, OK);
    for (int i = 0; i < ARRAY_SIZE(types); i++) {
        g_test_message("type %u", types[i]);
        g_assert_cmpint(status_of((Request) { .type = types[i], .sector = Z(3),
                                         .out_len = 512, .in_len = 1000 }),
                        ==, UNSUPP);
    }
    assert_states("--EIEEEEEE");
    g_assert_cmpuint(wp(Z(3)), ==, Z(3) + 8);
    quit();
}

static void test_reset_all_takes_the_zones_that_can_be_reset(void)
{
    start_with_all_states();
    g_assert_cmpint(reset_all(), ==, OK);
    assert_states("-EEEEERX"); /* 5.2.6.2 */
    for (int zone = 1; zone < 6; zone++) {
        assert_data(Z(zone), 8, 0);
        g_assert_cmpint(out(Z(zone), 8, 3), ==, OK);
    }
    assert_data(0, 8, 1);
    assert_data(Z(6), 8, 1);
    /* The sector is not used (5.2.6) */
    g_assert_cmpint(manage(VIRTIO_BLK_T_ZONE_RESET_ALL, UINT64_MAX), ==, OK);
    assert_states("-EEEEERX");
    quit();
}

static void test_reset_all_is_not_reset_of_the_only_zone(void)
{
    create((Geometry) {
        .size = ZONE, .zone = ZONE, .capacity = ZONE, .max_append = 8,
    });
    start("");
    g_assert_cmpint(out(0, 8, 1), ==, OK);
    g_assert_cmpint(reset(0), ==, OK);
    assert_states("E");
    g_assert_cmpint(out(0, 8, 1), ==, OK);
    g_assert_cmpint(reset_all(), ==, OK);
    assert_states("E");
    g_assert_cmpint(out(0, 8, 1), ==, OK);
    quit();

    mark(0, ENTRY_READ_ONLY);
    start("");
    g_assert_cmpint(reset(0), ==, INVALID_CMD);
    g_assert_cmpint(reset_all(), ==, OK);
    assert_states("R");
    assert_data(0, 8, 1);
    quit();
}

/* OUT */

static void test_out_is_at_the_write_pointer(void)
{
    create(gaps);
    start("");
    g_assert_cmpint(out(Z(2) + 8, 8, 1), ==, UNALIGNED_WP); /* 5.2.6.2 */
    assert_states("--EEEEEEEE");
    g_assert_cmpint(out(Z(2), 8, 1), ==, OK);
    g_assert_cmpint(out(Z(2), 8, 2), ==, UNALIGNED_WP);
    g_assert_cmpint(out(Z(2) + 7, 8, 2), ==, UNALIGNED_WP);
    g_assert_cmpint(out(Z(2) + 9, 8, 2), ==, UNALIGNED_WP);
    g_assert_cmpint(write_zeroes(Z(2), 8), ==, UNALIGNED_WP);
    g_assert_cmpint(write_zeroes(Z(2) + 16, 8), ==, UNALIGNED_WP);
    g_assert_cmpuint(wp(Z(2)), ==, Z(2) + 8);
    g_assert_cmpint(out(Z(2) + 8, 1, 3), ==, OK);
    g_assert_cmpuint(wp(Z(2)), ==, Z(2) + 9);
    assert_data(Z(2), 8, 1);
    assert_data(Z(2) + 8, 1, 3);
    assert_data(Z(2) + 9, 100, 0);

    /* Conventional zones can be written anywhere (5.2.6) */
    g_assert_cmpint(out(1000, 8, 1), ==, OK);
    g_assert_cmpint(out(100, 8, 2), ==, OK);
    g_assert_cmpint(out(1000, 8, 3), ==, OK);
    assert_data(1000, 8, 3);
    quit();
}

static void test_out_of_part_of_a_sector_is_unaligned(void)
{
    create(gaps);
    start("");
    /* "the ending sector ... is not a multiple of ..." (5.2.6) */
    for (size_t len = 1; len < 3 * SECTOR; len += 100) {
        g_assert_cmpint(status_of((Request) { .type = VIRTIO_BLK_T_OUT,
                                         .sector = Z(2), .out_len = len }),
                        ==, UNALIGNED_WP);
    }
    assert_states("--EEEEEEEE");
    quit();
}

static void test_out_without_data_opens_no_zone(void)
{
    create(gaps);
    start("");
    /* The standard has no status for that */
    g_assert_cmpint(out(Z(2), 0, 0), ==, INVALID_CMD);
    assert_states("--EEEEEEEE"); /* 5.2.6: "with a non-zero data size" */
    quit();
}

static void test_out_does_not_exceed_the_capacity(void)
{
    create(gaps);
    start("");
    /* 5.2.6.2: "exceeds the remaining writable capacity" */
    g_assert_cmpint(out(Z(2), 1537, 1), ==, INVALID_CMD);
    g_assert_cmpint(out(Z(2), ZONE, 1), ==, INVALID_CMD);
    write_zone(Z(2), 1528, 1);
    g_assert_cmpint(out(Z(2) + 1528, 9, 2), ==, INVALID_CMD);
    g_assert_cmpint(write_zeroes(Z(2) + 1528, 9), ==, INVALID_CMD);
    g_assert_cmpuint(wp(Z(2)), ==, Z(2) + 1528);
    g_assert_cmpint(out(Z(2) + 1528, 8, 1), ==, OK);
    assert_states("--FEEEEEEE");

    /* In a FULL zone none remains */
    g_assert_cmpint(out(Z(2), 8, 2), ==, INVALID_CMD);
    g_assert_cmpint(out(Z(2) + 1536, 8, 2), ==, INVALID_CMD);
    g_assert_cmpint(out(Z(3) - 8, 8, 2), ==, INVALID_CMD);
    assert_data(Z(2), 1536, 1);
    assert_data(Z(2) + 1536, 512, 0);
    quit();
}

static void test_out_does_not_span_zones(void)
{
    create(no_gaps);
    start("");
    write_zone(Z(2), ZONE - 8, 1);
    g_assert_cmpint(out(Z(3) - 8, 16, 2), ==, INVALID_CMD); /* 5.2.6.2 */
    g_assert_cmpint(write_zeroes(Z(3) - 8, 16), ==, INVALID_CMD);
    g_assert_cmpuint(wp(Z(2)), ==, Z(3) - 8);
    g_assert_cmpuint(wp(Z(3)), ==, Z(3));
    g_assert_cmpint(out(Z(4), ZONE + 8, 2), ==, INVALID_CMD);
    /* From a conventional zone on, the standard leaves it to us */
    g_assert_cmpint(out(Z(2) - 8, 16, 2), ==, INVALID_CMD);
    assert_data(Z(2) - 8, 8, 0);
    g_assert_cmpint(out(Z(1) - 8, 16, 3), ==, OK);
    assert_data(Z(1) - 8, 16, 3);
    assert_states("--IEEEEEEE");
    quit();
}

static void test_out_stays_on_the_disk(void)
{
    static const uint64_t outside[] = {
        Z(9) + 1024, Z(10), 1ULL << 32, 1ULL << 55, (1ULL << 55) + Z(2),
        1ULL << 63, UINT64_MAX - 7, UINT64_MAX,
    };

    create(gaps);
    start("");
    /* No rule of zones, so the status of old (5.2.6) */
    for (int i = 0; i < ARRAY_SIZE(outside); i++) {
        g_assert_cmpint(out(outside[i], 8, 1), ==, IOERR);
        g_assert_cmpint(write_zeroes(outside[i], 8), ==, IOERR);
        g_assert_cmpint(in(outside[i], 8), ==, IOERR);
    }
    g_assert_cmpint(in(Z(9) + 1020, 8), ==, IOERR);
    /* From within a sequential zone, it is more than its capacity (5.2.6.2) */
    g_assert_cmpint(out(Z(9), 1025, 1), ==, INVALID_CMD);
    write_zone(Z(9), 1016, 1);
    g_assert_cmpint(out(Z(9) + 1016, 16, 1), ==, INVALID_CMD);
    g_assert_cmpuint(wp(Z(9)), ==, Z(9) + 1016);
    assert_states("--EEEEEEEI");
    quit();
}

/* Blocks of 4 KiB, which are the write granularity, too */
static void test_out_and_append_have_the_granularity(void)
{
    create(gaps);
    start(",logical_block_size=4096,physical_block_size=4096");
    g_assert_cmpint(out(Z(2), 1, 1), ==, UNALIGNED_WP);
    g_assert_cmpint(out(Z(2), 9, 1), ==, UNALIGNED_WP);
    g_assert_cmpint(out(Z(2) + 4, 8, 1), ==, UNALIGNED_WP);
    g_assert_cmpint(append(Z(2), 1), ==, UNALIGNED_WP);
    g_assert_cmpint(append(Z(2), 7), ==, UNALIGNED_WP);
    g_assert_cmpint(append(Z(2), 9), ==, UNALIGNED_WP);
    assert_states("--EEEEEEEE");
    g_assert_cmpint(out(Z(2), 8, 1), ==, OK);
    g_assert_cmpuint(appended(Z(2), 8, 1), ==, Z(2) + 8);
    g_assert_cmpuint(wp(Z(2)), ==, Z(2) + 16);

    /* Of a conventional zone it is what it is of other disks */
    g_assert_cmpint(out(0, 1, 1), ==, IOERR);
    g_assert_cmpint(out(4, 8, 1), ==, IOERR);
    g_assert_cmpint(out(8, 8, 1), ==, OK);
    /* as outside of the disk */
    g_assert_cmpint(out((1ULL << 55) + 4, 8, 1), ==, IOERR);
    g_assert_cmpint(in(Z(2), 1), ==, IOERR);
    quit();
}

/* IN */

static void test_in_above_the_write_pointer_is_zeroes(void)
{
    create(gaps);
    start("");
    write_zone(Z(2), 100, 1);
    write_zone(Z(3), 100, 2);
    g_assert_cmpint(finish(Z(3)), ==, OK);
    write_zone(Z(4), 1536, 3);
    g_assert_cmpint(reset(Z(4)), ==, OK);
    g_assert_cmpint(out(Z(4), 8, 4), ==, OK);
    /* "a device-specific byte pattern ... is the preferred approach" */
    assert_data(Z(2), 100, 1);
    assert_data(Z(2) + 100, ZONE - 100, 0);
    assert_data(Z(3), 100, 2);
    assert_data(Z(3) + 100, ZONE - 100, 0);
    assert_data(Z(4), 8, 4);
    assert_data(Z(4) + 8, ZONE - 8, 0);
    assert_data(Z(5), ZONE, 0);
    quit();
}

static void test_in_does_not_span_zones(void)
{
    create(gaps);
    start("");
    g_assert_cmpint(out(Z(2) - 8, 8, 1), ==, OK);
    g_assert_cmpint(in(Z(3) - 8, 16), ==, INVALID_CMD); /* 5.2.6.2 */
    g_assert_cmpint(in(Z(3), ZONE + 1), ==, INVALID_CMD);
    g_assert_cmpint(in(Z(2), 4 * ZONE), ==, INVALID_CMD);
    g_assert_cmpint(in(Z(9) - 1, 2), ==, INVALID_CMD);
    /* From a conventional zone on, the standard leaves it to us */
    g_assert_cmpint(in(Z(2) - 8, 16), ==, INVALID_CMD);
    g_assert_cmpint(in(Z(1) - 8, 16), ==, OK);
    g_assert_cmpint(in(Z(2) - 8, 8), ==, OK);
    g_assert_cmpint(in(Z(3), ZONE), ==, OK);
    g_assert_cmpint(in(Z(9), 1024), ==, OK);
    quit();
}

/* APPEND */

static void test_append_tells_where_the_data_is(void)
{
    static const size_t pieces[] = { 0, 1, 2, 5, 8, 9, 24, 500 };
    uint64_t at = Z(2);

    create(gaps);
    start("");
    for (int i = 0; i < ARRAY_SIZE(pieces); i++) {
        /* With room behind the sector, but the status is the last byte */
        for (size_t in_len = 9; in_len < 40; in_len += 13) {
            Request r = APPEND(Z(2), 1, i + 1);

            r.in_len = in_len;
            r.piece = pieces[i];
            /* The queue has 256 descriptors */
            r.out_len *= r.piece < 5 && r.piece ? 0 : 1;
            send_all(&r, 1);
            g_assert_cmpint(r.status, ==, r.out_len ? OK : INVALID_CMD);
            if (r.out_len) {
                g_assert_cmpuint(append_sector(&r), ==, at);
                assert_data(at++, 1, i + 1);
            }
            free_replies(&r, 1);
        }
    }
    g_assert_cmpuint(wp(Z(2)), ==, at);

    /* OUT and APPEND share the write pointer */
    g_assert_cmpint(out(at, 8, 9), ==, OK);
    g_assert_cmpuint(appended(Z(2), 128, 10), ==, at + 8);
    assert_data(at + 8, 128, 10);
    quit();
}

static void test_append_needs_room_for_the_sector(void)
{
    create(gaps);
    start("");
    for (size_t len = 1; len < 9; len++) {
        Request r = APPEND(Z(2), 8, 1);

        r.in_len = len;
        /* "All other error conditions" (5.2.6) */
        g_assert_cmpint(status_of(r), ==, INVALID_CMD);
    }
    assert_states("--EEEEEEEE");
    quit();
}

static void test_append_needs_the_start_of_a_sequential_zone(void)
{
    static const uint64_t sectors[] = {
        /* Not the start, not sequential, not on the disk */
        Z(2) + 1, Z(2) + 8, Z(2) + 128, Z(3) - 8, Z(9) + 512,
        0, 8, Z(1), Z(2) - 8,
        Z(9) + 1024, Z(10), 1ULL << 32, 1ULL << 54,
        1ULL << 55, (1ULL << 55) + Z(2), (1ULL << 63) + Z(2), UINT64_MAX,
        UINT64_MAX - ZONE + 1,
    };

    create(gaps);
    start("");
    for (int i = 0; i < ARRAY_SIZE(sectors); i++) {
        /* 5.2.6.2 */
        g_assert_cmpint(append(sectors[i], 8), ==, INVALID_CMD);
        g_assert_cmpint(append(sectors[i], 0), ==, INVALID_CMD);
    }
    assert_states("--EEEEEEEE");
    assert_data(0, 8, 0);
    quit();
}

static void test_append_has_a_size(void)
{
    create(gaps);
    start("");
    g_assert_cmpint(append(Z(2), 0), ==, INVALID_CMD);
    assert_states("--EEEEEEEE"); /* 5.2.6: "with a non-zero data size" */
    /* 5.2.6.2: "exceeds max_append_sectors" */
    g_assert_cmpint(append(Z(2), 129), ==, INVALID_CMD);
    g_assert_cmpint(append(Z(2), 1536), ==, INVALID_CMD);
    g_assert_cmpint(append(Z(2), 3 * ZONE), ==, INVALID_CMD);
    g_assert_cmpint(append(Z(2), 128), ==, OK);
    /* Not a multiple of write_granularity (5.2.6) */
    for (size_t len = 1; len < 3 * SECTOR; len += 100) {
        Request r = APPEND(Z(2), 0, 1);

        r.out_len = len;
        g_assert_cmpint(status_of(r), ==, UNALIGNED_WP);
    }
    g_assert_cmpuint(wp(Z(2)), ==, Z(2) + 128);
    quit();
}

static void test_append_does_not_exceed_the_capacity(void)
{
    create(gaps);
    start("");
    write_zone(Z(2), 1530, 1);
    g_assert_cmpint(append(Z(2), 7), ==, INVALID_CMD); /* 5.2.6.2 */
    g_assert_cmpint(append(Z(2), 128), ==, INVALID_CMD);
    g_assert_cmpuint(wp(Z(2)), ==, Z(2) + 1530);
    g_assert_cmpuint(appended(Z(2), 6, 2), ==, Z(2) + 1530);
    assert_states("--FEEEEEEE");
    g_assert_cmpint(append(Z(2), 1), ==, INVALID_CMD);
    assert_data(Z(2) + 1530, 6, 2);
    quit();
}

static void test_append_does_not_span_zones(void)
{
    create(no_gaps);
    start("");
    write_zone(Z(2), ZONE - 8, 1);
    g_assert_cmpint(append(Z(2), 16), ==, INVALID_CMD);
    g_assert_cmpuint(appended(Z(2), 8, 2), ==, Z(3) - 8);
    assert_states("--FEEEEEEE");
    quit();
}

static void test_appends_in_flight_get_a_place_each(void)
{
    Request reqs[40];
    bool taken[40] = {};

    create(gaps);
    start("");
    for (int i = 0; i < 40; i++) {
        reqs[i] = APPEND(Z(2 + i % 2), 8, i);
    }
    send_all(reqs, 40);
    for (int i = 0; i < 40; i++) {
        uint64_t sector = append_sector(&reqs[i]);
        unsigned slot = (sector - Z(2 + i % 2)) / 8;

        g_assert_cmpint(reqs[i].status, ==, OK);
        g_assert_cmpuint(sector % 8, ==, 0);
        g_assert_cmpuint(slot, <, 20);
        g_assert_false(taken[2 * slot + i % 2]);
        taken[2 * slot + i % 2] = true;
        assert_data(sector, 8, i);
    }
    g_assert_cmpuint(wp(Z(2)), ==, Z(2) + 160);
    g_assert_cmpuint(wp(Z(3)), ==, Z(3) + 160);
    free_replies(reqs, 40);
    quit();
}

/* The short last zone */

static void test_the_short_last_zone_is_a_zone(void)
{
    create(gaps);
    start("");
    g_assert_cmpint(open_zone(Z(9)), ==, OK);
    assert_states("--EEEEEEEO");
    g_assert_cmpint(close_zone(Z(9)), ==, OK);
    g_assert_cmpint(finish(Z(9)), ==, OK);
    assert_states("--EEEEEEEF");
    g_assert_cmpint(reset(Z(9)), ==, OK);
    assert_states("--EEEEEEEE");
    g_assert_cmpuint(appended(Z(9), 8, 1), ==, Z(9));
    write_zone(Z(9) + 8, 1008, 2);
    g_assert_cmpint(append(Z(9), 9), ==, INVALID_CMD);
    g_assert_cmpuint(appended(Z(9), 8, 3), ==, Z(9) + 1016);
    assert_states("--EEEEEEEF");
    g_assert_cmpint(append(Z(9), 8), ==, INVALID_CMD);
    assert_data(Z(9) + 8, 1008, 2);
    assert_data(Z(9) + 1016, 8, 3);
    g_assert_cmpint(reset_all(), ==, OK);
    assert_states("--EEEEEEEE");
    quit();
}

/* Growing */

static void grow(uint64_t size)
{
    qtest_qmp_assert_success(qts, "{ 'execute': 'block_resize', "
                             "'arguments': { 'node-name': 'disk', "
                             "'size': %" PRId64 " } }",
                             (int64_t)size * SECTOR);
    qvirtio_wait_config_isr(dev, TIMEOUT_US);
    geo.size = size;
}

static void test_the_driver_is_told_of_a_disk_that_grows(void)
{
    Geometry geometry = gaps;
    struct virtio_blk_config expected;

    geometry.max_open = geometry.max_active = 3;
    create(geometry);
    start(CHS);
    g_assert_cmpint(out(0, 8, 1), ==, OK);
    g_assert_cmpint(out(Z(3), 8, 2), ==, OK);
    g_assert_cmpint(finish(Z(9)), ==, OK);
    g_assert_cmpint(in(Z(9) + 1024, 8), ==, IOERR);
    g_assert_cmpint(reset(Z(10)), ==, INVALID_CMD);

    grow(Z(11) + 8);
    expected = expected_config(512);
    assert_config(&expected);
    assert_states("--EIEEEEEFEE");
    g_assert_cmpint(in(Z(11) + 8, 8), ==, IOERR);
    assert_data(Z(9), ZONE, 0);
    g_assert_cmpint(out(Z(11), 9, 3), ==, INVALID_CMD);
    g_assert_cmpint(out(Z(10), 8, 3), ==, OK);
    g_assert_cmpuint(appended(Z(10), 8, 4), ==, Z(10) + 8);
    g_assert_cmpint(open_zone(Z(2)), ==, OK);
    g_assert_cmpint(append(Z(11), 8), ==, ACTIVE_RESOURCE);

    /* Now it is the part of a zone that is left, which is EMPTY. */
    grow(Z(12));
    g_assert_cmpint(reset(Z(3)), ==, OK);
    g_assert_cmpuint(appended(Z(11), 8, 5), ==, Z(11));
    g_assert_cmpint(out(Z(11) + 8, 8, 6), ==, OK);
    assert_states("--OEEEEEEFII");

    assert_data(0, 8, 1);
    assert_data(Z(10), 8, 3);
    assert_data(Z(10) + 8, 8, 4);
    assert_data(Z(11), 8, 5);
    assert_data(Z(11) + 8, 8, 6);
    g_assert_cmpint(reset_all(), ==, OK);
    assert_states("--EEEEEEEEEE");
    quit();

    start("");
    assert_states("--EEEEEEEEEE");
    quit();
}

/* Limits */

static void start_with_limits(uint32_t max_open, uint32_t max_active)
{
    Geometry geometry = gaps;

    geometry.max_open = max_open;
    geometry.max_active = max_active;
    create(geometry);
    start("");
}

/* What needs one more open zone, with its status, and that nothing changes */
static void assert_no_room(uint64_t sector, uint64_t at, uint8_t status)
{
    g_autofree char *states = report_states(NULL);

    g_assert_cmpint(open_zone(sector), ==, status); /* 5.2.6.2 */
    g_assert_cmpint(out(at, 8, 1), ==, status);
    g_assert_cmpint(write_zeroes(at, 8), ==, status);
    g_assert_cmpint(append(sector, 8), ==, status);
    assert_states(states);
}

static void test_open_zones_are_limited(void)
{
    start_with_limits(2, 0);
    g_assert_cmpint(out(Z(4), 8, 1), ==, OK);
    g_assert_cmpint(close_zone(Z(4)), ==, OK);
    g_assert_cmpint(open_zone(Z(2)), ==, OK);
    g_assert_cmpint(open_zone(Z(3)), ==, OK);
    assert_states("--OOCEEEEE");
    assert_no_room(Z(5), Z(5), OPEN_RESOURCE);
    assert_no_room(Z(4), Z(4) + 8, OPEN_RESOURCE);
    /* Open ones have theirs already */
    g_assert_cmpint(open_zone(Z(2)), ==, OK);
    g_assert_cmpint(out(Z(2), 8, 1), ==, OK);

    /* Each way out of being open makes room: here with data, ... */
    g_assert_cmpint(close_zone(Z(2)), ==, OK);
    g_assert_cmpint(open_zone(Z(5)), ==, OK);
    assert_states("--COCOEEEE");
    assert_no_room(Z(6), Z(6), OPEN_RESOURCE);
    /* without data, ... */
    g_assert_cmpint(close_zone(Z(3)), ==, OK);
    g_assert_cmpint(open_zone(Z(6)), ==, OK);
    assert_states("--CECOOEEE");
    assert_no_room(Z(7), Z(7), OPEN_RESOURCE);
    g_assert_cmpint(finish(Z(5)), ==, OK);
    g_assert_cmpint(open_zone(Z(7)), ==, OK);
    assert_no_room(Z(8), Z(8), OPEN_RESOURCE);
    g_assert_cmpint(reset(Z(6)), ==, OK);
    g_assert_cmpint(open_zone(Z(8)), ==, OK);
    assert_no_room(Z(6), Z(6), OPEN_RESOURCE);
    write_zone(Z(7), 1536, 1);
    g_assert_cmpint(open_zone(Z(6)), ==, OK);
    assert_states("--CECFOFOE");
    assert_no_room(Z(9), Z(9), OPEN_RESOURCE);
    g_assert_cmpint(reset_all(), ==, OK);
    g_assert_cmpint(open_zone(Z(9)), ==, OK);
    assert_states("--EEEEEEEO");
    quit();
}

/* 5.2.6: "by the device when another zone is entering" an open state */
static void test_implicitly_open_zones_make_room(void)
{
    start_with_limits(2, 0);
    g_assert_cmpint(out(Z(2), 8, 1), ==, OK);
    g_assert_cmpint(out(Z(3), 8, 1), ==, OK);
    g_assert_cmpint(out(Z(2) + 8, 8, 1), ==, OK);
    /* Here it is the one that was not written for the longest time */
    g_assert_cmpint(append(Z(4), 8), ==, OK);
    assert_states("--ICIEEEEE");
    g_assert_cmpint(open_zone(Z(5)), ==, OK);
    assert_states("--CCIOEEEE");
    g_assert_cmpint(out(Z(3) + 8, 8, 1), ==, OK);
    assert_states("--CICOEEEE");
    g_assert_cmpint(open_zone(Z(3)), ==, OK);
    assert_states("--COCOEEEE");
    assert_no_room(Z(2), Z(2) + 16, OPEN_RESOURCE);
    /* FINISH needs none (ZNS) */
    g_assert_cmpint(finish(Z(2)), ==, OK);
    g_assert_cmpint(finish(Z(6)), ==, OK);
    assert_states("--FOCOFEEE");
    quit();
}

static void test_active_zones_are_limited(void)
{
    start_with_limits(2, 3);
    for (int zone = 2; zone < 5; zone++) {
        g_assert_cmpint(out(Z(zone), 8, 1), ==, OK);
        g_assert_cmpint(close_zone(Z(zone)), ==, OK);
    }
    assert_states("--CCCEEEEE");
    assert_no_room(Z(5), Z(5), ACTIVE_RESOURCE);
    /* Closed ones are active already */
    g_assert_cmpint(open_zone(Z(2)), ==, OK);
    g_assert_cmpint(out(Z(3) + 8, 8, 1), ==, OK);
    assert_states("--OICEEEEE");
    /* Closing an implicitly open zone does not help */
    assert_no_room(Z(5), Z(5), ACTIVE_RESOURCE);
    g_assert_cmpint(out(Z(4) + 8, 8, 1), ==, OK);
    assert_states("--OCIEEEEE");
    g_assert_cmpint(finish(Z(5)), ==, OK);
    assert_no_room(Z(6), Z(6), ACTIVE_RESOURCE);

    g_assert_cmpint(reset(Z(3)), ==, OK);
    g_assert_cmpint(out(Z(6), 8, 1), ==, OK);
    assert_states("--OECFIEEE");
    assert_no_room(Z(7), Z(7), ACTIVE_RESOURCE);
    g_assert_cmpint(finish(Z(2)), ==, OK);
    g_assert_cmpint(append(Z(7), 8), ==, OK);
    assert_no_room(Z(8), Z(8), ACTIVE_RESOURCE);
    quit();

    /* Closed ones are counted from the start, too */
    start("");
    assert_states("--FECFCCEE");
    assert_no_room(Z(8), Z(8), ACTIVE_RESOURCE);
    quit();
}

/* 5.2.6: "terminated ... with VIRTIO_BLK_S_ZONE_ACTIVE_RESOURCE" */
static void test_both_limits_are_reported_as_the_active_one(void)
{
    start_with_limits(2, 2);
    g_assert_cmpint(open_zone(Z(2)), ==, OK);
    g_assert_cmpint(open_zone(Z(3)), ==, OK);
    assert_no_room(Z(4), Z(4), ACTIVE_RESOURCE);
    quit();
}

/* DISCARD, WRITE ZEROES */

static void test_discard_and_write_zeroes_have_flags(void)
{
    static const uint32_t unmap = VIRTIO_BLK_WRITE_ZEROES_FLAG_UNMAP;

    create(gaps);
    start("");
    /* 5.2.6.2, on zones as anywhere */
    for (int zone = 0; zone < 4; zone++) {
        g_assert_cmpint(discard_or_zero(VIRTIO_BLK_T_WRITE_ZEROES, Z(zone), 8,
                                        2), ==, UNSUPP);
        g_assert_cmpint(discard_or_zero(VIRTIO_BLK_T_WRITE_ZEROES, Z(zone), 8,
                                        1U << 31 | unmap), ==, UNSUPP);
        g_assert_cmpint(discard_or_zero(VIRTIO_BLK_T_DISCARD, Z(zone), 8, 2),
                        ==, UNSUPP);
        g_assert_cmpint(discard_or_zero(VIRTIO_BLK_T_DISCARD, Z(zone), 8,
                                        unmap), ==, UNSUPP);
    }
    assert_states("--EEEEEEEE");
    g_assert_cmpint(discard_or_zero(VIRTIO_BLK_T_WRITE_ZEROES, Z(2), 8, unmap),
                    ==, OK);
    g_assert_cmpuint(wp(Z(2)), ==, Z(2) + 8);
    quit();
}

static void test_write_zeroes_leaves_zeroes(void)
{
    create(gaps);
    start("");
    write_zone(Z(2), 1536, 1);
    g_assert_cmpint(reset(Z(2)), ==, OK);
    g_assert_cmpint(out(Z(2), 8, 2), ==, OK);
    g_assert_cmpint(write_zeroes(Z(2) + 8, 200), ==, OK);
    g_assert_cmpint(out(Z(2) + 208, 8, 3), ==, OK);
    assert_data(Z(2), 8, 2);
    assert_data(Z(2) + 8, 200, 0);
    assert_data(Z(2) + 208, 8, 3);
    assert_data(Z(2) + 216, ZONE - 216, 0);

    g_assert_cmpint(out(Z(2) - 16, 16, 4), ==, OK);
    g_assert_cmpint(write_zeroes(Z(2) - 16, 8), ==, OK);
    assert_data(Z(2) - 16, 8, 0);
    assert_data(Z(2) - 8, 8, 4);
    g_assert_cmpint(write_zeroes(Z(2) - 8, 16), ==, INVALID_CMD);
    assert_data(Z(2) - 8, 8, 4);
    quit();
}

/*
 * A driver must not discard (5.2.5.1). Of one that does we demand that zones
 * keep their states.
 */
static void test_discard_moves_no_write_pointer(void)
{
    create(gaps);
    start("");
    g_assert_cmpint(out(Z(2), 64, 1), ==, OK);
    write_zone(Z(3), 1536, 1);
    for (int zone = 2; zone < 6; zone++) {
        discard_or_zero(VIRTIO_BLK_T_DISCARD, Z(zone), ZONE, 0);
        discard_or_zero(VIRTIO_BLK_T_DISCARD, Z(zone) + 8, 8, 0);
    }
    assert_states("--IFEEEEEE");
    g_assert_cmpuint(wp(Z(2)), ==, Z(2) + 64);
    g_assert_cmpint(out(Z(2) + 64, 8, 1), ==, OK);
    quit();
}

/* Merging */

/* What each of some requests gets that arrive together */
static void assert_statuses(Request *reqs, int n, const uint8_t *statuses)
{
    send_all(reqs, n);
    for (int i = 0; i < n; i++) {
        g_test_message("request %d", i);
        g_assert_cmpint(reqs[i].status, ==, statuses[i]);
    }
    free_replies(reqs, n);
}

static void test_writes_merge_inside_of_a_conventional_zone(void)
{
    for (int zone = 1; zone < 3; zone++) {
        Request reqs[4];

        create(no_gaps);
        start("");
        for (int i = 0; i < 4; i++) {
            reqs[i] = OUT(Z(zone) + 8 * i, 8, i + 1);
        }
        assert_statuses(reqs, 4, (const uint8_t[]) { OK, OK, OK, OK });
        g_assert_cmpint(statistic("wr_merged"), ==, zone == 1 ? 3 : 0);
        for (int i = 0; i < 4; i++) {
            assert_data(Z(zone) + 8 * i, 8, i + 1);
        }
        quit();
    }
}

static void test_writes_do_not_merge_across_zones(void)
{
    create(no_gaps);
    start("");
    for (int zone = 2; zone < 5; zone++) {
        write_zone(Z(zone), ZONE - 8, zone);
    }
    /* Conventional, conventional */
    assert_statuses((Request[]) { OUT(Z(1) - 8, 8, 1), OUT(Z(1), 8, 2) }, 2,
                    (const uint8_t[]) { OK, OK });
    /* Sequential, sequential */
    assert_statuses((Request[]) { OUT(Z(5) - 8, 8, 3), OUT(Z(5), 8, 4) }, 2,
                    (const uint8_t[]) { OK, OK });
    /* Conventional, sequential, of which the second cannot be written */
    assert_statuses((Request[]) { OUT(Z(2) - 8, 8, 5), OUT(Z(2), 8, 6) }, 2,
                    (const uint8_t[]) { OK, UNALIGNED_WP });
    /* The other way round */
    assert_statuses((Request[]) { OUT(Z(5) - 8, 8, 7), OUT(Z(5) + 8, 8, 8) },
                    2, (const uint8_t[]) { INVALID_CMD, OK });
    assert_statuses((Request[]) { OUT(Z(6) - 8, 8, 7), OUT(Z(6), 8, 8) },
                    2, (const uint8_t[]) { UNALIGNED_WP, OK });
    g_assert_cmpint(statistic("wr_merged"), ==, 0);
    assert_data(Z(1) - 8, 8, 1);
    assert_data(Z(1), 8, 2);
    assert_data(Z(5) - 8, 8, 3);
    assert_data(Z(5), 8, 4);
    assert_data(Z(2) - 8, 8, 5);
    assert_data(Z(2), 8, 2);
    assert_data(Z(5) + 8, 8, 8);
    assert_data(Z(6), 8, 8);
    assert_states("--IIFIIEEE");
    quit();
}

/* A good write is good in whatever company it is */
static void test_bad_writes_do_not_harm_their_neighbours(void)
{
    create(gaps);
    start("");
    /* Up to the capacity, and above */
    write_zone(Z(2), 1528, 1);
    assert_statuses((Request[]) {
        OUT(Z(2) + 1528, 8, 2), OUT(Z(2) + 1536, 8, 2)
    }, 2, (const uint8_t[]) { OK, INVALID_CMD });
    assert_states("--FEEEEEEE");

    /* Below the write pointer, and at it */
    g_assert_cmpint(out(Z(3), 8, 1), ==, OK);
    assert_statuses((Request[]) {
        OUT(Z(3), 8, 2), OUT(Z(3) + 8, 8, 3), OUT(Z(3) + 16, 8, 4)
    }, 3, (const uint8_t[]) { UNALIGNED_WP, OK, OK });
    assert_data(Z(3), 8, 1);
    assert_data(Z(3) + 8, 8, 3);
    assert_data(Z(3) + 16, 8, 4);
    g_assert_cmpuint(wp(Z(3)), ==, Z(3) + 24);
    quit();
}

static void test_bad_reads_do_not_harm_their_neighbours(void)
{
    create(gaps);
    mark(3, ENTRY_OFFLINE);
    start("");
    assert_statuses((Request[]) {
        IN(Z(3) - 8, 8), IN(Z(3), 8), IN(Z(4) - 8, 8), IN(Z(4), 8)
    }, 4, (const uint8_t[]) { OK, INVALID_CMD, INVALID_CMD, OK });
    quit();
}

/*
 * VIRTIO knows no order of requests, but drivers may rely on the one that they
 * see: zones are managed as if each write before had been sent alone.
 */
static void test_nothing_overtakes_writes_that_wait_to_merge(void)
{
    struct virtio_blk_discard_write_zeroes segment = {
        .sector = cpu_to_le64(Z(2) + 8), .num_sectors = cpu_to_le32(8),
    };

    create(gaps);
    start("");
    assert_statuses((Request[]) {
        OUT(Z(2), 8, 1),
        { .type = VIRTIO_BLK_T_WRITE_ZEROES, .out = &segment,
          .out_len = sizeof(segment) },
        OUT(Z(2) + 16, 8, 2),
        APPEND(Z(2), 8, 3),
        OUT(Z(2) + 32, 8, 4),
        MANAGE(OPEN, Z(2)),
        OUT(Z(2) + 40, 8, 5),
        MANAGE(FINISH, Z(2)),
    }, 8, (const uint8_t[]) { OK, OK, OK, OK, OK, OK, OK, OK });
    assert_states("--FEEEEEEE");
    assert_data(Z(2), 8, 1);
    assert_data(Z(2) + 8, 8, 0);
    assert_data(Z(2) + 16, 8, 2);
    assert_data(Z(2) + 24, 8, 3);
    assert_data(Z(2) + 32, 8, 4);
    assert_data(Z(2) + 40, 8, 5);

    assert_statuses((Request[]) {
        OUT(Z(3), 8, 1), MANAGE(RESET, Z(3)), OUT(Z(3), 8, 2)
    }, 3, (const uint8_t[]) { OK, OK, OK });
    g_assert_cmpuint(wp(Z(3)), ==, Z(3) + 8);
    assert_data(Z(3), 8, 2);
    quit();
}

/* Statistics */

static void test_appends_are_counted(void)
{
    create(gaps);
    start("");
    g_assert_cmpint(append(Z(2), 8), ==, OK);
    g_assert_cmpint(append(Z(3), 128), ==, OK);
    g_assert_cmpint(statistic("zone_append_operations"), ==, 2);
    g_assert_cmpint(statistic("zone_append_bytes"), ==, 136 * SECTOR);
    g_assert_cmpint(statistic("zone_append_total_time_ns"), >, 0);
    g_assert_cmpint(statistic("failed_zone_append_operations"), ==, 0);
    g_assert_cmpint(statistic("invalid_zone_append_operations"), ==, 0);

    /* Refused by the device ... */
    g_assert_cmpint(append(Z(2) + 1, 8), ==, INVALID_CMD);
    g_assert_cmpint(append(0, 8), ==, INVALID_CMD);
    g_assert_cmpint(append(Z(2), 129), ==, INVALID_CMD);
    g_assert_cmpint(statistic("invalid_zone_append_operations"), ==, 3);
    /* ... and by the zone */
    g_assert_cmpint(finish(Z(2)), ==, OK);
    g_assert_cmpint(append(Z(2), 8), ==, INVALID_CMD);
    g_assert_cmpint(statistic("failed_zone_append_operations"), ==, 1);

    g_assert_cmpint(statistic("invalid_zone_append_operations"), ==, 3);
    g_assert_cmpint(statistic("zone_append_operations"), ==, 2);
    g_assert_cmpint(statistic("zone_append_bytes"), ==, 136 * SECTOR);
    g_assert_cmpint(statistic("wr_operations"), ==, 0);
    quit();
}

/* Errors of the host */

/*
 * Have a write to the image file fail: at an offset, or the next one of a
 * guest's data if -1.  (When clusters cannot be mapped ahead, because of a
 * write that fails before that, the image does without.)
 */
static void start_faulty(int err, int64_t offset, const char *policy)
{
    g_autofree char *where = offset < 0 ?
        g_strdup("file.inject-error.0.event=write_aio,") :
        g_strdup_printf("file.inject-error.0.event=none,"
                        "file.inject-error.0.sector=%" PRId64 ",",
                        offset / SECTOR);
    g_autofree char *blockdev = g_strdup_printf(
        "driver=qcow2,file.driver=blkdebug,file.image.driver=file,"
        "file.inject-error.0.iotype=write,file.inject-error.0.once=on,"
        "file.inject-error.0.errno=%d,%sfile.image.filename=%s",
        err, where, image);

    launch(blockdev, policy);
    drive(good_features());
}

/* Wait until an error has stopped the guest, and let it go on */
static void cont(void)
{
    qtest_qmp_eventwait(qts, "STOP");
    qtest_qmp_assert_success(qts, "{ 'execute': 'cont' }");
    qtest_qmp_eventwait(qts, "RESUME");
}

/* Send a request, and expect an event with this action */
static uint8_t send_with_event(Request req, const char *action)
{
    QDict *event, *data;

    submit(&req, 1);
    event = qtest_qmp_eventwait_ref(qts, "BLOCK_IO_ERROR");
    data = qdict_get_qdict(event, "data");
    g_assert_cmpstr(qdict_get_str(data, "operation"), ==, "write");
    g_assert_cmpstr(qdict_get_str(data, "action"), ==, action);
    qobject_unref(event);
    if (g_str_equal(action, "stop")) {
        g_assert_cmphex(qtest_readb(qts, req.addr + 16 + req.out_len +
                                         req.in_len - 1), ==, NO_STATUS);
        cont();
    }
    wait_for(&req, 1);
    if (req.status == OK && req.type == VIRTIO_BLK_T_ZONE_APPEND) {
        g_assert_cmpuint(append_sector(&req), ==, req.sector);
    }
    free_replies(&req, 1);
    return req.status;
}

/* Requests that fail in all ways, and what they get without an error */
static const Request faulty_requests[] = {
    { .type = VIRTIO_BLK_T_ZONE_APPEND, .sector = Z(3), .out_len = 4096,
      .fill = 1, .in_len = 9 },
    { .type = VIRTIO_BLK_T_ZONE_APPEND, .sector = Z(3), .out_len = 4096,
      .fill = 1, .in_len = 20, .piece = 500 },
    { .type = VIRTIO_BLK_T_ZONE_APPEND, .sector = Z(3), .out_len = 4096,
      .fill = 1, .in_len = 9, .piece = 100 },
    { .type = VIRTIO_BLK_T_OUT, .sector = Z(3), .out_len = 4096, .fill = 1 },
    { .type = VIRTIO_BLK_T_ZONE_FINISH, .sector = Z(2) },
    { .type = VIRTIO_BLK_T_ZONE_RESET, .sector = Z(2) },
    { .type = VIRTIO_BLK_T_ZONE_RESET_ALL },
};

static bool is_data(const Request *req)
{
    return req->out_len;
}

/* For requests without data, the image's zone table is what fails */
static void start_faulty_for(const Request *req, int err, const char *policy)
{
    create(gaps);
    start("");
    g_assert_cmpint(out(Z(2), 8, 2), ==, OK);
    quit();
    start_faulty(err, is_data(req) ? -1 : entry_offset(0), policy);
}

static void assert_failed(const Request *req)
{
    /* A zone that is open already stays so */
    if (is_data(req)) {
        assert_states("--CIEEEEEE");
        g_assert_cmpuint(wp(Z(3)), ==, Z(3));
        assert_data(Z(3), 8, 0);
    } else {
        assert_states("--CEEEEEEE");
    }
    assert_data(Z(2), 8, 2);
}

static void assert_succeeded(const Request *req)
{
    if (is_data(req)) {
        assert_states("--CIEEEEEE");
        assert_data(Z(3), 8, 1);
    } else if (req->type == VIRTIO_BLK_T_ZONE_FINISH) {
        assert_states("--FEEEEEEE");
    } else {
        assert_states("--EEEEEEEE");
    }
}

static void test_werror_report_reports(void)
{
    for (int i = 0; i < ARRAY_SIZE(faulty_requests); i++) {
        Request req = faulty_requests[i];

        start_faulty_for(&req, EIO, ",werror=report");
        g_assert_cmpint(send_with_event(req, "report"), ==, IOERR);
        assert_failed(&req);
        g_assert_cmpint(status_of(req), ==, OK);
        assert_succeeded(&req);
        quit();
    }
}

static void test_werror_stop_stops_and_tries_again(void)
{
    for (int i = 0; i < ARRAY_SIZE(faulty_requests); i++) {
        Request req = faulty_requests[i];

        start_faulty_for(&req, EIO, ",werror=stop");
        g_assert_cmpint(send_with_event(req, "stop"), ==, OK);
        assert_succeeded(&req);
        quit();
    }
}

static void test_werror_enospc_stops_for_that_only(void)
{
    for (int i = 0; i < ARRAY_SIZE(faulty_requests); i++) {
        Request req = faulty_requests[i];

        start_faulty_for(&req, ENOSPC, ",werror=enospc");
        g_assert_cmpint(send_with_event(req, "stop"), ==, OK);
        assert_succeeded(&req);
        quit();

        start_faulty_for(&req, EIO, ",werror=enospc");
        g_assert_cmpint(send_with_event(req, "report"), ==, IOERR);
        assert_failed(&req);
        quit();
    }
}

static void test_werror_ignore_invents_no_sector(void)
{
    for (int i = 0; i < ARRAY_SIZE(faulty_requests); i++) {
        Request req = faulty_requests[i];
        bool is_append = req.type == VIRTIO_BLK_T_ZONE_APPEND;

        start_faulty_for(&req, EIO, ",werror=ignore");
        g_assert_cmpint(send_with_event(req, "ignore"), ==,
                        is_append ? IOERR : OK);
        assert_failed(&req);
        g_assert_cmpint(status_of(req), ==, OK);
        assert_succeeded(&req);
        quit();
    }
}

/* These mean something else when they come from a zone */
static void test_errors_of_the_host_are_not_taken_for_those_of_zones(void)
{
    static const int errors[] = { EINVAL, ERANGE, EOVERFLOW, ETOOMANYREFS };

    for (int i = 0; i < ARRAY_SIZE(faulty_requests); i++) {
        Request req = faulty_requests[i];

        start_faulty_for(&req, errors[i % ARRAY_SIZE(errors)],
                         ",werror=report");
        g_assert_cmpint(send_with_event(req, "report"), ==, IOERR);
        quit();
        if (i > 0 && req.type == faulty_requests[i - 1].type) {
            continue;
        }
        for (int j = 0; j < ARRAY_SIZE(errors); j++) {
            start_faulty_for(&req, errors[j], ",werror=report");
            g_assert_cmpint(send_with_event(req, "report"), ==, IOERR);
            assert_failed(&req);
            quit();
        }
    }
}

static void wait_for_migration(void)
{
    QDict *response;
    g_autofree char *status = NULL;

    do {
        g_usleep(1000);
        g_free(status);
        response = qtest_qmp_assert_success_ref(
            qts, "{ 'execute': 'query-migrate' }");
        status = g_strdup(qdict_get_try_str(response, "status") ?: "");
        g_assert_cmpstr(status, !=, "failed");
        qobject_unref(response);
    } while (!g_str_equal(status, "completed"));
}

/* More writes than are merged at once, to two zones in turns, and appends */
#define NR_IN_ORDER 72

static void make_writes_in_order(Request *reqs)
{
    int n = 0;

    for (int i = 0; i < 34; i++) {
        reqs[n++] = OUT(Z(2) + 8 * i, 8, i + 1);
        reqs[n++] = OUT(Z(4) + 16 * i, 16, i + 1);
    }
    for (int i = 0; i < 4; i++) {
        reqs[n++] = APPEND(Z(2), 8, 50);
    }
    g_assert_cmpint(n, ==, NR_IN_ORDER);
}

static void assert_writes_in_order(Request *reqs)
{
    wait_for(reqs, NR_IN_ORDER);
    for (int i = 0; i < NR_IN_ORDER; i++) {
        g_test_message("request %d", i);
        g_assert_cmpint(reqs[i].status, ==, OK);
    }
    free_replies(reqs, NR_IN_ORDER);
    for (int i = 0; i < 34; i++) {
        assert_data(Z(2) + 8 * i, 8, i + 1);
        assert_data(Z(4) + 16 * i, 16, i + 1);
    }
    assert_data(Z(2) + 8 * 34, 8 * 4, 50);
}

static void test_writes_are_tried_again_in_order(void)
{
    Request reqs[NR_IN_ORDER];

    create(gaps);
    start_faulty(ENOSPC, -1, ",werror=stop");
    make_writes_in_order(reqs);
    submit(reqs, NR_IN_ORDER);
    cont();
    assert_writes_in_order(reqs);
    quit();
}

static void test_writes_are_tried_again_in_order_after_migration(void)
{
    g_autofree char *file = g_strconcat(image, ".migration", NULL);
    g_autofree char *uri = g_strconcat("file:", file, NULL);
    g_autofree char *incoming = g_strconcat(STOP_ON_ERROR " -incoming ", uri,
                                            NULL);
    g_autofree char *blockdev = g_strdup_printf(
        "driver=qcow2,file.driver=file,file.filename=%s", image);
    Request reqs[NR_IN_ORDER];

    create(gaps);
    start_faulty(ENOSPC, -1, ",werror=stop");
    make_writes_in_order(reqs);
    submit(reqs, NR_IN_ORDER);
    qtest_qmp_eventwait(qts, "STOP");
    qtest_qmp_assert_success(qts, "{ 'execute': 'migrate', 'arguments': {"
                             "  'uri': %s } }", uri);
    wait_for_migration();
    qtest_quit(qts);

    launch_qemu(blockdev, incoming);
    bus->qts = qts;
    wait_for_migration();
    qtest_qmp_assert_success(qts, "{ 'execute': 'cont' }");
    assert_writes_in_order(reqs);
    unlink(file);
    quit();
}

static void test_failed_appends_are_counted(void)
{
    const Request req = APPEND(Z(3), 8, 1);

    start_faulty_for(&req, EIO, ",werror=report");
    g_assert_cmpint(send_with_event(req, "report"), ==, IOERR);
    g_assert_cmpint(statistic("failed_zone_append_operations"), ==, 1);
    g_assert_cmpint(statistic("zone_append_operations"), ==, 0);
    quit();
}

/* 5.2.6.2 of VIRTIO_BLK_F_RO: "MUST set ... VIRTIO_BLK_S_IOERR for a write" */
static void test_read_only_disks_can_be_reported_and_read(void)
{
    g_autofree char *blockdev = g_strdup_printf(
        "driver=qcow2,read-only=on,file.driver=file,file.filename=%s", image);

    create(gaps);
    start("");
    g_assert_cmpint(out(Z(2), 8, 1), ==, OK);
    quit();

    launch(blockdev, STOP_ON_ERROR);
    g_assert_cmphex(qvirtio_get_features(dev) & 1ULL << VIRTIO_BLK_F_RO,
                    !=, 0);
    drive(good_features());
    g_assert_cmpint(out(0, 8, 1), ==, IOERR);
    g_assert_cmpint(out(Z(2) + 8, 8, 1), ==, IOERR);
    g_assert_cmpint(append(Z(2), 8), ==, IOERR);
    /* The standard leaves open whether these are writes */
    g_assert_cmpint(write_zeroes(Z(2) + 8, 8), ==, IOERR);
    for (int op = 0; op < ARRAY_SIZE(zone_ops); op++) {
        g_assert_cmpint(manage(zone_ops[op], Z(2)), ==, IOERR);
    }
    g_assert_cmpint(reset_all(), ==, IOERR);
    assert_states("--CEEEEEEE");
    assert_data(Z(2), 8, 1);
    quit();
}

/* Realize */

/* Plug a disk with blocks of 4 KiB; what is wrong with it, or "" */
static char *plug(Geometry geometry)
{
    QDict *response, *error;
    char *message = NULL;

    create(geometry);
    qts = qtest_init("-machine pc -nodefaults");
    qtest_qmp_assert_success(
        qts, "{ 'execute': 'blockdev-add', 'arguments': {"
             "  'node-name': 'disk', 'driver': 'qcow2',"
             "  'file': { 'driver': 'file', 'filename': %s } } }", image);
    response = qtest_qmp(
        qts, "{ 'execute': 'device_add', 'arguments': {"
             "  'driver': 'virtio-blk-pci', 'drive': 'disk',"
             "  'logical_block_size': 4096, 'physical_block_size': 4096 } }");
    if (qdict_haskey(response, "error")) {
        error = qdict_get_qdict(response, "error");
        message = g_strdup(qdict_get_str(error, "desc"));
    }
    qobject_unref(response);
    qtest_quit(qts);
    return message ?: g_strdup("");
}

static void test_block_sizes_that_do_not_fit_are_refused(void)
{
    static const struct {
        Geometry geometry;
        const char *message;
    } cases[] = {
        { { .size = Z(4) + 1024, .zone = ZONE, .capacity = 1528,
            .max_append = 128 }, "" },
        { { .size = Z(4) + 1024, .zone = ZONE, .capacity = 1528,
            .max_append = 8 }, "" },
        { { .size = Z(4) + 1025, .zone = ZONE, .capacity = 1528,
            .max_append = 128 },
          "disk size 4719104 is not a multiple of logical_block_size 4096" },
        { { .size = Z(4) + 1024, .zone = ZONE, .capacity = 1529,
            .max_append = 128 },
          "zone capacity 782848 is not a multiple of logical_block_size 4096"
        },
        { { .size = Z(4) + 1024, .zone = ZONE, .capacity = 1528,
            .max_append = 129 }, "maximum size of a zone append 66048 is not "
          "a multiple of logical_block_size 4096" },
        { { .size = Z(4) + 1024, .zone = ZONE, .capacity = 1528,
            .max_append = 1 }, "maximum size of a zone append 512 is smaller "
          "than a block of 4096" },
    };

    for (int i = 0; i < ARRAY_SIZE(cases); i++) {
        g_autofree char *message = plug(cases[i].geometry);

        g_assert_cmpstr(message, ==, cases[i].message);
    }
}

/* All tests */

typedef struct Test {
    const char *name;
    void (*run)(void);
    bool in_iothread;           /* as well */
} Test;

#define TEST(name) { #name, test_ ## name, false }
#define BOTH(name) { #name, test_ ## name, true }

static const Test tests[] = {
    TEST(config_has_the_zones),
    TEST(a_host_managed_disk_has_zoned_without_discard),
    TEST(features_are_not_ok_without_zoned),
    BOTH(zones_are_for_whom_negotiated_them),
    TEST(legacy_devices_are_not_zoned),
    TEST(transitional_devices_are_zoned_for_modern_drivers),
    TEST(other_disks_have_no_zones),
    TEST(report_fills_what_room_there_is),
    TEST(report_takes_any_descriptors),
    TEST(report_starts_where_the_sector_is),
    BOTH(report_has_thousands_of_zones),
    BOTH(a_long_report_takes_any_descriptors),
    BOTH(a_reset_of_the_device_ends_reports),
    TEST(open_changes_states_as_listed),
    TEST(close_changes_states_as_listed),
    TEST(finish_changes_states_as_listed),
    TEST(reset_changes_states_as_listed),
    BOTH(append_changes_states_as_listed),
    BOTH(out_changes_states_as_listed),
    TEST(write_zeroes_changes_states_as_out),
    TEST(in_changes_no_state),
    TEST(states_follow_the_write_pointer),
    TEST(conventional_zones_are_always_not_wp),
    TEST(management_needs_the_start_of_a_zone),
    TEST(numbers_that_are_no_request_are_unsupported),
    BOTH(reset_all_takes_the_zones_that_can_be_reset),
    TEST(reset_all_is_not_reset_of_the_only_zone),
    TEST(out_is_at_the_write_pointer),
    TEST(out_of_part_of_a_sector_is_unaligned),
    TEST(out_without_data_opens_no_zone),
    TEST(out_does_not_exceed_the_capacity),
    TEST(out_does_not_span_zones),
    TEST(out_stays_on_the_disk),
    TEST(out_and_append_have_the_granularity),
    TEST(in_above_the_write_pointer_is_zeroes),
    TEST(in_does_not_span_zones),
    TEST(append_tells_where_the_data_is),
    TEST(append_needs_room_for_the_sector),
    TEST(append_needs_the_start_of_a_sequential_zone),
    TEST(append_has_a_size),
    TEST(append_does_not_exceed_the_capacity),
    TEST(append_does_not_span_zones),
    BOTH(appends_in_flight_get_a_place_each),
    TEST(the_short_last_zone_is_a_zone),
    BOTH(the_driver_is_told_of_a_disk_that_grows),
    TEST(open_zones_are_limited),
    BOTH(implicitly_open_zones_make_room),
    BOTH(active_zones_are_limited),
    TEST(both_limits_are_reported_as_the_active_one),
    TEST(discard_and_write_zeroes_have_flags),
    TEST(write_zeroes_leaves_zeroes),
    TEST(discard_moves_no_write_pointer),
    BOTH(writes_merge_inside_of_a_conventional_zone),
    BOTH(writes_do_not_merge_across_zones),
    BOTH(bad_writes_do_not_harm_their_neighbours),
    BOTH(bad_reads_do_not_harm_their_neighbours),
    BOTH(nothing_overtakes_writes_that_wait_to_merge),
    TEST(appends_are_counted),
    BOTH(werror_report_reports),
    BOTH(werror_stop_stops_and_tries_again),
    TEST(werror_enospc_stops_for_that_only),
    BOTH(werror_ignore_invents_no_sector),
    TEST(errors_of_the_host_are_not_taken_for_those_of_zones),
    BOTH(writes_are_tried_again_in_order),
    BOTH(writes_are_tried_again_in_order_after_migration),
    TEST(failed_appends_are_counted),
    TEST(read_only_disks_can_be_reported_and_read),
    TEST(block_sizes_that_do_not_fit_are_refused),
};

static void run_test(const void *test)
{
    use_iothread = false;
    ((const Test *)test)->run();
}

static void run_test_in_iothread(const void *test)
{
    use_iothread = true;
    ((const Test *)test)->run();
}

static void add_test(const Test *test)
{
    g_autofree char *name = g_strdelimit(g_strdup(test->name), "_", '-');
    g_autofree char *path = g_strconcat("virtio-blk-zoned/", name, NULL);
    g_autofree char *iothread = g_strconcat(path, "/iothread", NULL);

    qtest_add_data_func(path, test, run_test);
    if (test->in_iothread) {
        qtest_add_data_func(iothread, test, run_test_in_iothread);
    }
}

int main(int argc, char **argv)
{
    int fd, ret;

    g_test_init(&argc, &argv, NULL);
    g_assert_true(have_qemu_img());
    fd = g_file_open_tmp("qtest-virtio-blk-zoned.XXXXXX", &image, NULL);
    g_assert_cmpint(fd, >=, 0);
    close(fd);

    for (int i = 0; i < ARRAY_SIZE(tests); i++) {
        add_test(&tests[i]);
    }
    ret = g_test_run();
    unlink(image);
    g_free(image);
    return ret;
}
