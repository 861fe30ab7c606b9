/* The least that an iSCSI target can cost: one connection, one thread, one receive and one send for what there is, and no storage
 * behind it. Reads are answered from memory that is never looked at, writes are received and forgotten. It is beside the
 * servers to tell how far they could be made faster or cheaper at all. RFC 7143, SBC-3.
 *
 * least SIZE_MIB     (prints the port that it listens on, on loopback)
 */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

enum { HEADER = 48, INPUT = 1 << 20, SEGMENT = 256 << 10, BURST = 1 << 20, PIECES_MAX = 1000, TAGS = 256 };

static uint8_t input[INPUT + HEADER], memory[BURST], headers[PIECES_MAX][HEADER];
static struct iovec pieces[PIECES_MAX];
static int pieces_len, connection;
static uint64_t blocks;
static uint32_t stat_sn, exp_cmd_sn;
/* Of each write under way, what has not come, and what was not asked for. */
static uint32_t missing[TAGS], unasked[TAGS];

static void die(const char *what) {
    fprintf(stderr, "least: %s: %s\n", what, strerror(errno));
    exit(1);
}

static uint32_t get32(const uint8_t *at) {
    uint32_t value;
    memcpy(&value, at, 4);
    return ntohl(value);
}

static void put32(uint8_t *at, uint32_t value) {
    value = htonl(value);
    memcpy(at, &value, 4);
}

static void flush(void) {
    struct iovec *at = pieces;
    while (pieces_len > 0) {
        struct msghdr message = {.msg_iov = at, .msg_iovlen = pieces_len};
        ssize_t sent = sendmsg(connection, &message, MSG_NOSIGNAL);
        if (sent < 0 && errno == EINTR) continue;
        if (sent < 0) exit(0);
        while (pieces_len > 0 && (size_t)sent >= at->iov_len) sent -= at->iov_len, at++, pieces_len--;
        if (pieces_len > 0) at->iov_base = (uint8_t *)at->iov_base + sent, at->iov_len -= sent;
    }
}

static uint8_t *push(int opcode, const uint8_t *request, const void *data, uint32_t len) {
    if (pieces_len + 2 > PIECES_MAX) flush();
    uint8_t *header = headers[pieces_len];
    memset(header, 0, HEADER);
    header[0] = opcode, header[1] = 0x80;
    header[5] = len >> 16, header[6] = len >> 8, header[7] = len;
    memcpy(header + 16, request + 16, 4);
    put32(header + 24, stat_sn);
    put32(header + 28, exp_cmd_sn);
    put32(header + 32, exp_cmd_sn + 127);
    pieces[pieces_len++] = (struct iovec){header, HEADER};
    if (len) pieces[pieces_len++] = (struct iovec){(void *)data, (len + 3) & ~3u};
    return header;
}

static void push_status(const uint8_t *request) {
    push(0x21, request, NULL, 0);
    stat_sn++;
}

static void push_data(const uint8_t *request, const uint8_t *data, uint32_t len) {
    for (uint32_t offset = 0, number = 0; offset < len; number++) {
        uint32_t part = len - offset < SEGMENT ? len - offset : SEGMENT;
        int is_last = offset + part == len;
        uint8_t *header = push(0x25, request, data + offset, part);
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
    uint8_t *header = push(0x23, request, text, stage ? sizeof agreed : 0);
    header[1] = request[1];
    memcpy(header + 8, request + 8, 6);
    header[15] = stage ? 1 : 0;
    stat_sn++;
}

static void ask_for(const uint8_t *request, uint32_t tag, uint32_t offset) {
    uint8_t *header = push(0x31, request, NULL, 0);
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
        ssize_t got = recv(connection, input + have, INPUT, 0);
        if (got < 0 && errno == EINTR) continue;
        if (got <= 0) return;
        have += got;
        size_t at = 0;
        for (;;) {
            size_t skipped = skip < have - at ? skip : have - at;
            at += skipped, skip -= skipped;
            if (skip || have - at < HEADER) break;
            uint8_t *request = input + at;
            uint32_t len = request[5] << 16 | request[6] << 8 | request[7];
            at += HEADER, skip = (len + 3) & ~3u;
            switch (request[0] & 0x3f) {
            case 0x01: on_command(request, len); break;
            case 0x03: on_login(request); break;
            case 0x05: on_data(request, len); break;
            case 0x06: push(0x26, request, NULL, 0); stat_sn++; break;
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
    while ((connection = accept(listener, NULL, NULL)) >= 0) {
        setsockopt(connection, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
        serve();
        close(connection);
    }
    return 0;
}
