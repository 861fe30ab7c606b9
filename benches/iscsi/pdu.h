/* What the bench's initiator and its least target share: numbers as a PDU has them, and PDUs that are gathered and sent together.
 * RFC 7143 11.2. */
#ifndef PDU_H
#define PDU_H

#include <arpa/inet.h>
#include <errno.h>
#include <stdint.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/uio.h>

enum { HEADER = 48, PIECES_MAX = 1000 };

/* The connection that PDUs go to. */
static int peer = -1;

static struct iovec pieces[PIECES_MAX];
static uint8_t headers[PIECES_MAX][HEADER];
static int pieces_len;

/* What is done when the connection takes nothing more; it does not return. */
static void broken(void);

static uint32_t get32(const uint8_t *at) {
    uint32_t value;
    memcpy(&value, at, 4);
    return ntohl(value);
}

static void put32(uint8_t *at, uint32_t value) {
    value = htonl(value);
    memcpy(at, &value, 4);
}

static uint32_t padded(uint32_t len) { return (len + 3) & ~3u; }

/* The length of the data segment that a header announces. */
static uint32_t data_bytes(const uint8_t *header) { return header[5] << 16 | header[6] << 8 | header[7]; }

/* Sends what was gathered. */
static void flush(void) {
    struct iovec *at = pieces;
    while (pieces_len > 0) {
        struct msghdr message = {.msg_iov = at, .msg_iovlen = pieces_len};
        ssize_t sent = sendmsg(peer, &message, MSG_NOSIGNAL);
        if (sent < 0 && errno == EINTR) continue;
        if (sent < 0) broken();
        while (pieces_len > 0 && (size_t)sent >= at->iov_len) {
            sent -= at->iov_len;
            at++;
            pieces_len--;
        }
        if (pieces_len > 0) {
            at->iov_base = (uint8_t *)at->iov_base + sent;
            at->iov_len -= sent;
        }
    }
}

/* Gathers a PDU; `data` stays where it is until it is sent. */
static uint8_t *push(const void *data, uint32_t len) {
    if (pieces_len + 2 > PIECES_MAX) flush();
    uint8_t *header = headers[pieces_len];
    memset(header, 0, HEADER);
    header[5] = len >> 16, header[6] = len >> 8, header[7] = len;
    pieces[pieces_len++] = (struct iovec){header, HEADER};
    if (len) pieces[pieces_len++] = (struct iovec){(void *)data, padded(len)};
    return header;
}

#endif
