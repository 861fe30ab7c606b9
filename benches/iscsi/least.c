/* The least that an iSCSI target can cost: one connection, one thread, one receive and one send for what there is, and no storage
 * behind it. Reads are answered from memory that is never looked at, writes are received and forgotten. It is beside the
 * servers to tell how far they could be made faster or cheaper at all. RFC 7143, SBC-3.
 *
 * least SIZE_MIB     (prints the port that it listens on, on loopback)
 */
#include "pdu.h"
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

enum { INPUT = 1 << 20, SEGMENT = 256 << 10, BURST = 1 << 20, TAGS = 256 };

static uint8_t input[INPUT + HEADER], memory[BURST];
static uint64_t blocks;
static uint32_t stat_sn, exp_cmd_sn;
/* Of each write under way, what has not come, and what was not asked for. */
static uint32_t missing[TAGS], unasked[TAGS];

static void die(const char *what) {
    fprintf(stderr, "least: %s: %s\n", what, strerror(errno));
    exit(1);
}

static void broken(void) { die("cannot send"); }

/* Gathers an answer to a request. */
static uint8_t *answer(int opcode, const uint8_t *request, const void *data, uint32_t len) {
    uint8_t *header = push(data, len);
    header[0] = opcode, header[1] = 0x80;
    memcpy(header + 16, request + 16, 4);
    put32(header + 24, stat_sn);
    put32(header + 28, exp_cmd_sn);
    put32(header + 32, exp_cmd_sn + 127);
    return header;
}

static void push_status(const uint8_t *request) {
    answer(0x21, request, NULL, 0);
    stat_sn++;
}

static void push_data(const uint8_t *request, const uint8_t *data, uint32_t len) {
    for (uint32_t offset = 0, number = 0; offset < len; number++) {
        uint32_t part = len - offset < SEGMENT ? len - offset : SEGMENT;
        int is_last = offset + part == len;
        uint8_t *header = answer(0x25, request, data + offset, part);
        header[1] = is_last ? 0x81 : 0;
        memset(header + 20, 0xff, 4);
        put32(header + 36, number);
        put32(header + 40, offset);
        if (is_last) stat_sn++;
        offset += part;
    }
}

static void on_login(const uint8_t *request) {
    static const char agreed[] = "HeaderDigest=None\0DataDigest=None\0InitialR2T=No\0ImmediateData=Yes\0MaxRecvDataSegmentLength=262144\0"
                                 "MaxBurstLength=1048576\0FirstBurstLength=262144\0MaxConnections=1\0MaxOutstandingR2T=1\0"
                                 "DefaultTime2Wait=2\0DefaultTime2Retain=0\0DataPDUInOrder=Yes\0DataSequenceInOrder=Yes\0ErrorRecoveryLevel=0";
    static uint8_t text[1024];
    int stage = request[1] >> 2 & 3;
    memcpy(text, agreed, sizeof agreed);
    exp_cmd_sn = get32(request + 24);
    uint8_t *header = answer(0x23, request, text, stage ? sizeof agreed : 0);
    header[1] = request[1];
    memcpy(header + 8, request + 8, 6);
    header[15] = stage ? 1 : 0;
    stat_sn++;
}

static void ask_for(const uint8_t *request, uint32_t tag, uint32_t offset) {
    uint8_t *header = answer(0x31, request, NULL, 0);
    memcpy(header + 8, request + 8, 8);
    put32(header + 20, tag);
    put32(header + 40, offset);
    put32(header + 44, unasked[tag]);
    unasked[tag] = 0;
}

static void on_command(const uint8_t *request, uint32_t len) {
    const uint8_t *cdb = request + 32;
    uint32_t expected = get32(request + 20), tag = get32(request + 16);
    exp_cmd_sn++;
    if (cdb[0] == 0x88 && expected <= BURST) {
        push_data(request, memory, expected);
    } else if (cdb[0] == 0x8a && tag < TAGS) {
        uint32_t first = request[1] & 0x80 ? len : expected < SEGMENT ? expected : SEGMENT;
        missing[tag] = expected - len;
        unasked[tag] = expected - first;
        if (unasked[tag]) ask_for(request, tag, first);
        if (!missing[tag]) push_status(request);
    } else if (cdb[0] == 0x9e) {
        static uint8_t capacity[32];
        put32(capacity, (blocks - 1) >> 32);
        put32(capacity + 4, blocks - 1);
        put32(capacity + 8, 512);
        push_data(request, capacity, expected < 32 ? expected : 32);
    } else {
        push_status(request);
    }
}

static void on_data(const uint8_t *request, uint32_t len) {
    uint32_t tag = get32(request + 16);
    if (tag >= TAGS || missing[tag] < len) die("data for no command");
    missing[tag] -= len;
    if (!missing[tag]) push_status(request);
}

static void serve(void) {
    size_t have = 0, skip = 0;
    for (;;) {
        ssize_t got = recv(peer, input + have, INPUT, 0);
        if (got < 0 && errno == EINTR) continue;
        if (got <= 0) return;
        have += got;
        size_t at = 0;
        for (;;) {
            size_t skipped = skip < have - at ? skip : have - at;
            at += skipped, skip -= skipped;
            if (skip || have - at < HEADER) break;
            uint8_t *request = input + at;
            uint32_t len = data_bytes(request);
            at += HEADER, skip = padded(len);
            switch (request[0] & 0x3f) {
            case 0x01: on_command(request, len); break;
            case 0x03: on_login(request); break;
            case 0x05: on_data(request, len); break;
            case 0x06: answer(0x26, request, NULL, 0); stat_sn++; break;
            default: break;
            }
        }
        memmove(input, input + at, have - at);
        have -= at;
        flush();
    }
}

int main(int count, char **words) {
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof address;
    int on = 1, listener = socket(AF_INET, SOCK_STREAM, 0);
    blocks = (count == 2 ? strtoull(words[1], NULL, 10) : 0) << 11;
    if (!blocks) die("SIZE_MIB");
    if (bind(listener, (struct sockaddr *)&address, len) || listen(listener, 4)) die("cannot listen");
    if (getsockname(listener, (struct sockaddr *)&address, &len)) die("cannot tell the port");
    printf("%d\n", ntohs(address.sin_port));
    fflush(stdout);
    while ((peer = accept(listener, NULL, NULL)) >= 0) {
        setsockopt(peer, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
        serve();
        close(peer);
    }
    return 0;
}
