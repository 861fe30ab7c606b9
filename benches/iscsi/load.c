/* An iSCSI initiator that asks as fast as it can: one session with one connection, so many commands of one kind under way.
 *
 * Debian's fio speaks no iSCSI. This spends little on each command, so that what is measured is the target: headers are sent
 * together, and what is read is received and counted, not looked at. It offers what Linux's initiator does: immediate data,
 * no R2T for the first burst, no digests. RFC 7143, SBC-3.
 *
 * load HOST PORT TARGET LUN randread|randwrite|read|write BLOCK DEPTH SECONDS   (0: the LUN once through)
 * One JSON object on stdout.
 */
#include "pdu.h"
#include <inttypes.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

enum { DEPTH_MAX = 128, INPUT = 1 << 20, SOURCE = 4 << 20, SAMPLES_MAX = 1 << 22 };

static struct {
    uint32_t cmd_sn, exp_stat_sn, max_cmd_sn;
    /* What the target takes in one data segment, and what was agreed on. */
    uint32_t segment_max, burst_max, first_burst;
    int initial_r2t, immediate_data;
    uint8_t lun[8];
} session = {.cmd_sn = 1, .segment_max = 8192, .burst_max = 262144, .first_burst = 65536, .initial_r2t = 1, .immediate_data = 1};

static struct {
    int is_busy;
    uint64_t begun_ns, offset;
    uint32_t moved;
} slots[DEPTH_MAX];

static uint8_t input[INPUT], source[SOURCE];
static uint32_t *samples, samples_len;

static void die(const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    fputs("load: ", stderr);
    vfprintf(stderr, format, arguments);
    fputc('\n', stderr);
    va_end(arguments);
    exit(1);
}

static void broken(void) { die("cannot send: %s", strerror(errno)); }

static uint64_t now_ns(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

/* What this process took of a processor so far. */
static double processor_us(void) {
    struct rusage used;
    getrusage(RUSAGE_SELF, &used);
    return 1e6 * (used.ru_utime.tv_sec + used.ru_stime.tv_sec) + used.ru_utime.tv_usec + used.ru_stime.tv_usec;
}

static uint64_t next_random(void) {
    static uint64_t state = 0x9e3779b97f4a7c15;
    state ^= state << 13;
    state ^= state >> 7;
    return state ^= state << 17;
}

static void put64(uint8_t *at, uint64_t value) {
    put32(at, value >> 32);
    put32(at + 4, (uint32_t)value);
}

/* Receives all of it. */
static void take(uint8_t *at, size_t len) {
    while (len > 0) {
        ssize_t got = recv(peer, at, len, 0);
        if (got < 0 && errno == EINTR) continue;
        if (got < 0 && errno == EAGAIN) die("no answer in 20 s");
        if (got <= 0) die("the target hung up");
        at += got, len -= got;
    }
}

static void on_key(const char *key, const char *value) {
    uint32_t number = strtoul(value, NULL, 10);
    if (!strcmp(key, "MaxRecvDataSegmentLength")) session.segment_max = number;
    if (!strcmp(key, "MaxBurstLength")) session.burst_max = number;
    if (!strcmp(key, "FirstBurstLength")) session.first_burst = number;
    if (!strcmp(key, "InitialR2T")) session.initial_r2t = !strcmp(value, "Yes");
    if (!strcmp(key, "ImmediateData")) session.immediate_data = !strcmp(value, "Yes");
}

/* Sends login text for a stage until the target goes on to the next one. */
static void pass_stage(int stage, int next, const char *text, uint32_t len) {
    static uint8_t data[65536], header[HEADER];
    for (int tries = 0; tries < 8; tries++, len = 0) {
        memset(data, 0, padded(len));
        if (len) memcpy(data, text, len);
        uint8_t *request = push(data, len);
        request[0] = 0x43;
        request[1] = 0x80 | stage << 2 | next;
        request[8] = 0x80; /* An ISID of the random kind. */
        request[10] = 0xa1, request[11] = 0x1b;
        put32(request + 24, session.cmd_sn);
        put32(request + 28, session.exp_stat_sn);
        flush();
        take(header, HEADER);
        uint32_t answered = data_bytes(header);
        if (header[0] != 0x23 || answered > sizeof data - 4) die("no login response: opcode %02x", header[0]);
        take(data, padded(answered));
        data[answered] = 0;
        if (header[36]) die("login refused: status %02x%02x", header[36], header[37]);
        session.exp_stat_sn = get32(header + 24) + 1;
        session.max_cmd_sn = get32(header + 32);
        for (char *pair = (char *)data, *end = pair + answered; pair < end; pair += strlen(pair) + 1) {
            char *equals = strchr(pair, '=');
            if (!equals) continue;
            *equals = 0;
            on_key(pair, equals + 1);
            pair = equals + 1;
        }
        if (header[1] & 0x80) return;
    }
    die("the target does not go on with the login");
}

static void log_in(const char *host, int port, const char *target) {
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(port)};
    int on = 1;
    if (inet_pton(AF_INET, host, &address.sin_addr) != 1) die("%s is no address", host);
    peer = socket(AF_INET, SOCK_STREAM, 0);
    setsockopt(peer, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    struct timeval patience = {.tv_sec = 20};
    setsockopt(peer, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
    if (connect(peer, (struct sockaddr *)&address, sizeof address)) die("cannot connect: %s", strerror(errno));
    char text[1024];
    int len = snprintf(text, sizeof text,
                       "InitiatorName=iqn.2026-11.io.aljibe:bench%cTargetName=%s%cSessionType=Normal%cAuthMethod=None%c", 0, target, 0, 0, 0);
    pass_stage(0, 1, text, len);
    len = snprintf(text, sizeof text,
                   "HeaderDigest=None%cDataDigest=None%cInitialR2T=No%cImmediateData=Yes%cMaxRecvDataSegmentLength=262144%c"
                   "MaxBurstLength=1048576%cFirstBurstLength=262144%cMaxConnections=1%cMaxOutstandingR2T=1%c"
                   "DefaultTime2Wait=2%cDefaultTime2Retain=0%cDataPDUInOrder=Yes%cDataSequenceInOrder=Yes%cErrorRecoveryLevel=0%c",
                   0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0);
    pass_stage(1, 3, text, len);
}

/* The header of a command; the flags F, R and W are the caller's. */
static uint8_t *push_command(uint32_t tag, int flags, uint32_t expected, const void *data, uint32_t len) {
    uint8_t *header = push(data, len);
    header[0] = 0x01;
    header[1] = flags | 0x01;
    memcpy(header + 8, session.lun, 8);
    put32(header + 16, tag);
    put32(header + 20, expected);
    put32(header + 24, session.cmd_sn++);
    put32(header + 28, session.exp_stat_sn);
    return header + 32;
}

/* Sends data behind a command: `ttt` is all ones for what was not asked for. */
static void push_data(uint32_t tag, uint32_t ttt, uint32_t offset, uint32_t len) {
    for (uint32_t number = 0; len > 0; number++) {
        uint32_t part = len < session.segment_max ? len : session.segment_max;
        uint8_t *header = push(source + slots[tag].offset % (SOURCE / 2) + offset, part);
        header[0] = 0x05;
        header[1] = part == len ? 0x80 : 0;
        memcpy(header + 8, session.lun, 8);
        put32(header + 16, tag);
        put32(header + 20, ttt);
        put32(header + 28, session.exp_stat_sn);
        put32(header + 36, number);
        put32(header + 40, offset);
        offset += part, len -= part;
    }
}

static uint32_t least(uint32_t one, uint32_t other) { return one < other ? one : other; }

static void ask(uint32_t tag, int is_write, uint64_t offset, uint32_t block) {
    uint32_t now = 0, first = 0;
    slots[tag].is_busy = 1;
    slots[tag].begun_ns = now_ns();
    slots[tag].moved = 0;
    slots[tag].offset = offset;
    if (is_write) {
        if (session.immediate_data) now = least(block, least(session.segment_max, session.first_burst));
        first = session.initial_r2t ? now : least(block, session.first_burst);
    }
    int is_final = first == now;
    /* No two writes of a place say the same but by chance. */
    if (is_write) put64(source + offset % (SOURCE / 2), next_random());
    uint8_t *cdb = push_command(tag, (is_final ? 0x80 : 0) | (is_write ? 0x20 : 0x40), block, source + offset % (SOURCE / 2), now);
    cdb[0] = is_write ? 0x8a : 0x88;
    put64(cdb + 2, offset / 512);
    put32(cdb + 10, block / 512);
    if (!is_final) push_data(tag, 0xffffffff, now, first - now);
}

/* Takes a header whose data is behind it at `data`; returns the tag of a command that is over, or -1. */
static int on_header(const uint8_t *header, const uint8_t *data, uint32_t len) {
    uint32_t tag = get32(header + 16);
    session.max_cmd_sn = get32(header + 32);
    switch (header[0] & 0x3f) {
    case 0x20: /* NOP-In: a ping is answered. */
        if (get32(header + 20) != 0xffffffff) {
            uint8_t *answer = push(NULL, 0);
            answer[0] = 0x40;
            answer[1] = 0x80;
            memcpy(answer + 8, header + 8, 8);
            put32(answer + 16, 0xffffffff);
            memcpy(answer + 20, header + 20, 4);
            put32(answer + 24, session.cmd_sn);
            put32(answer + 28, session.exp_stat_sn);
        }
        return -1;
    case 0x21:
        session.exp_stat_sn = get32(header + 24) + 1;
        if (header[2] || header[3]) {
            die("command failed: response %02x, status %02x, sense key %x, %02x/%02x", header[2], header[3],
                len >= 16 ? data[4] & 15 : 0, len >= 16 ? data[14] : 0, len >= 16 ? data[15] : 0);
        }
        return tag;
    case 0x25:
        if (tag < DEPTH_MAX) slots[tag].moved += len;
        if (!(header[1] & 0x01)) return -1;
        session.exp_stat_sn = get32(header + 24) + 1;
        if (header[3]) die("command failed: status %02x with data", header[3]);
        return tag;
    case 0x31:
        if (tag >= DEPTH_MAX || !slots[tag].is_busy) die("an R2T for no command");
        push_data(tag, get32(header + 20), get32(header + 40), get32(header + 44));
        return -1;
    default:
        die("unexpected PDU %02x", header[0]);
        return -1;
    }
}

/* Carries out one command by itself; returns the bytes that it read into `answer`, or -1 for CHECK CONDITION. */
static int alone(const uint8_t *cdb, uint8_t *answer, uint32_t room) {
    static uint8_t header[HEADER], data[65536];
    int got = 0;
    memcpy(push_command(0, 0x80 | (room ? 0x40 : 0), room, NULL, 0), cdb, 16);
    flush();
    for (;;) {
        take(header, HEADER);
        uint32_t len = data_bytes(header);
        if (len > sizeof data - 4) die("an answer that is too long");
        take(data, padded(len));
        session.max_cmd_sn = get32(header + 32);
        if (header[0] == 0x25) {
            memcpy(answer, data, least(len, room));
            got = least(len, room);
            if (!(header[1] & 0x01)) continue;
        } else if (header[0] != 0x21) {
            continue;
        }
        session.exp_stat_sn = get32(header + 24) + 1;
        return header[3] ? -1 : got;
    }
}

static uint64_t size_of_unit(void) {
    uint8_t ready[16] = {0}, capacity[16] = {0x9e, 0x10, [13] = 32}, answer[32];
    for (int tries = 0; alone(ready, NULL, 0) < 0; tries++) {
        if (tries == 8) die("the unit is not ready");
    }
    if (alone(capacity, answer, 32) < 12 || get32(answer + 8) != 512) die("no capacity in blocks of 512 bytes");
    return (((uint64_t)get32(answer) << 32 | get32(answer + 4)) + 1) * 512;
}

struct job {
    int is_write, is_random;
    uint32_t block, depth;
    uint64_t blocks, asked, done, end_ns;
};

static void ask_all(struct job *job, uint32_t *free_tags, uint32_t *free_len, int is_over) {
    while (*free_len > 0 && !is_over && (int32_t)(session.max_cmd_sn - session.cmd_sn) >= 0) {
        if (!job->end_ns && job->asked == job->blocks) break;
        uint64_t number = job->is_random ? next_random() % job->blocks : job->asked % job->blocks;
        job->asked++;
        ask(free_tags[--*free_len], job->is_write, number * job->block, job->block);
    }
    flush();
}

static void on_end(struct job *job, uint32_t tag, uint64_t now) {
    if (tag >= job->depth || !slots[tag].is_busy) die("an answer to no command");
    if (!job->is_write && slots[tag].moved != job->block) die("a read of %u bytes", slots[tag].moved);
    slots[tag].is_busy = 0;
    if (samples_len < SAMPLES_MAX) samples[samples_len++] = (now - slots[tag].begun_ns) / 1000;
    job->done++;
}

static void run(struct job *job) {
    uint32_t free_tags[DEPTH_MAX], free_len = 0;
    size_t have = 0, skip = 0;
    for (uint32_t tag = 0; tag < job->depth; tag++) free_tags[free_len++] = tag;
    for (;;) {
        uint64_t now = now_ns();
        ask_all(job, free_tags, &free_len, job->end_ns && now >= job->end_ns);
        if (free_len == job->depth && job->asked == job->done) return;
        ssize_t got = recv(peer, input + have, INPUT - have, 0);
        if (got < 0 && errno == EINTR) continue;
        if (got < 0 && errno == EAGAIN) die("no answer in 20 s");
        if (got <= 0) die("the target hung up");
        have += got;
        now = now_ns();
        size_t at = 0;
        for (;;) {
            size_t skipped = skip < have - at ? skip : have - at;
            at += skipped, skip -= skipped;
            if (skip > 0 || have - at < HEADER) break;
            uint32_t len = data_bytes(input + at);
            /* What is read is passed over; the rest is short and waited for. */
            int is_read = (input[at] & 0x3f) == 0x25;
            if (!is_read && have - at < HEADER + padded(len)) break;
            int tag = on_header(input + at, input + at + HEADER, len);
            at += HEADER, skip = padded(len);
            if (tag >= 0) {
                on_end(job, tag, now);
                free_tags[free_len++] = tag;
            }
        }
        memmove(input, input + at, have - at);
        have -= at;
    }
}

static int by_size(const void *one, const void *other) {
    uint32_t left = *(const uint32_t *)one, right = *(const uint32_t *)other;
    return (left > right) - (left < right);
}

int main(int count, char **words) {
    if (count != 9) die("HOST PORT TARGET LUN randread|randwrite|read|write BLOCK DEPTH SECONDS");
    const char *pattern = words[5];
    struct job job = {.block = atoi(words[6]), .depth = atoi(words[7])};
    job.is_random = !strncmp(pattern, "rand", 4);
    job.is_write = !strcmp(pattern + (job.is_random ? 4 : 0), "write");
    if (!job.is_write && strcmp(pattern + (job.is_random ? 4 : 0), "read")) die("no pattern is called %s", pattern);
    if (job.depth < 1 || job.depth > DEPTH_MAX || !job.block || job.block % 512 || job.block > SOURCE / 2) die("bad block or depth");
    session.lun[1] = atoi(words[4]);
    samples = malloc(SAMPLES_MAX * sizeof *samples);
    if (!samples) die("no memory");
    for (size_t at = 0; at < SOURCE; at += 8) put64(source + at, next_random());
    log_in(words[1], atoi(words[2]), words[3]);
    job.blocks = size_of_unit() / job.block;
    if (!job.blocks) die("the unit is shorter than a block");
    double used_us = processor_us();
    uint64_t begun = now_ns(), seconds = strtoull(words[8], NULL, 10);
    if (seconds) job.end_ns = begun + seconds * 1000000000;
    run(&job);
    double elapsed = (now_ns() - begun) / 1e9;
    used_us = (processor_us() - used_us) / job.done;
    qsort(samples, samples_len, sizeof *samples, by_size);
    printf("{\"operations\": %" PRIu64 ", \"seconds\": %.6f, \"own_us\": %.2f, \"p50_us\": %u, \"p99_us\": %u}\n", job.done, elapsed, used_us,
           samples[samples_len / 2], samples[samples_len - 1 - samples_len / 100]);
    return 0;
}
