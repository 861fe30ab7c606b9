// One iSCSI session of libiscsi, told what to do line by line on stdin; answers each line by one on stdout.
//
//     initiator [-r] [-q QUALIFIER] NAME URL
//
// -r: it connects again by itself, by another ISID, as libiscsi does. -q: the qualifier of its ISID, which is random
// without.
//
// An answer is "good" with what it read, "check KEY/ASC/ASCQ" in hexadecimal, "conflict" (of reservations), "status N"
// in hexadecimal, or "lost" when the session has ended. The first line is "ready", or "refused" and why.
//
//     tur                      luns                      capacity (blocks)
//     read LBA BLOCKS          "good BYTE", all being that byte, or "good mixed"
//     write LBA BLOCKS BYTE [fua]                        unmap LBA BLOCKS
//     flush                    number LBA                "good N", the first 8 bytes, least first
//     count LBA TIMES          adds one by COMPARE AND WRITE, so often; "good N" with how often another one was quicker
//     records FIRST COUNT      writes a record to each block of 4 KiB, by FUA and with a flush in turn; "acked N" after each
//     verify FIRST COUNT       "good", all of these being there, or "wrong N" of the first that is not
//     register OLD KEY APTPL   reserve KEY TYPE          release KEY TYPE          preempt KEY OTHER TYPE
//     keys                     holder (KEY TYPE or none)
//     logout

#include <inttypes.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <iscsi/iscsi.h>
#include <iscsi/scsi-lowlevel.h>

enum { SECTOR = 512, RECORD = 4096, RECORD_SECTORS = RECORD / SECTOR, MISCOMPARE = 0xe, ATTENTION = 6 };

static struct iscsi_context *session;
static int lun;

static void say(const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    vprintf(format, arguments);
    va_end(arguments);
    putchar('\n');
    fflush(stdout);
}

static int is_good(const struct scsi_task *task) {
    return task && task->status == SCSI_STATUS_GOOD;
}

static int is_check(const struct scsi_task *task, int key) {
    return task && task->status == SCSI_STATUS_CHECK_CONDITION && (int)task->sense.key == key;
}

static void say_failure(const struct scsi_task *task) {
    if (!task || task->status == SCSI_STATUS_ERROR || task->status == SCSI_STATUS_CANCELLED) {
        say("lost");
    } else if (task->status == SCSI_STATUS_CHECK_CONDITION) {
        say("check %x/%02x/%02x", task->sense.key, task->sense.ascq >> 8, task->sense.ascq & 255);
    } else if (task->status == SCSI_STATUS_RESERVATION_CONFLICT) {
        say("conflict");
    } else {
        say("status %x", task->status);
    }
}

static void settle(struct scsi_task *task) {
    if (is_good(task)) {
        say("good");
    } else {
        say_failure(task);
    }
    if (task) {
        scsi_free_scsi_task(task);
    }
}

// For what has read something: what is said of it when it is good is the caller's.
static int failed(struct scsi_task *task) {
    if (is_good(task)) {
        return 0;
    }
    settle(task);
    return 1;
}

static void *unmarshalled(struct scsi_task *task) {
    void *data = scsi_datain_unmarshall(task);
    if (!data) {
        fprintf(stderr, "what came cannot be understood\n");
        exit(1);
    }
    return data;
}

static struct scsi_task *write_bytes(uint64_t lba, unsigned char *bytes, uint32_t length, int fua) {
    return iscsi_write16_sync(session, lun, lba, bytes, length, SECTOR, 0, 0, fua, 0, 0);
}

static struct scsi_task *read_bytes(uint64_t lba, uint32_t length) {
    return iscsi_read16_sync(session, lun, lba, length, SECTOR, 0, 0, 0, 0, 0);
}

static void luns(void) {
    struct scsi_task *task = iscsi_reportluns_sync(session, 0, 4096);
    if (failed(task)) {
        return;
    }
    struct scsi_reportluns_list *list = unmarshalled(task);
    printf("good");
    for (uint32_t i = 0; i < list->num; i++) {
        printf(" %u", list->luns[i]);
    }
    say("");
    scsi_free_scsi_task(task);
}

static void capacity(void) {
    struct scsi_task *task = iscsi_readcapacity16_sync(session, lun);
    if (failed(task)) {
        return;
    }
    struct scsi_readcapacity16 *read = unmarshalled(task);
    say("good %" PRIu64, read->returned_lba + 1);
    scsi_free_scsi_task(task);
}

static void read_byte(uint64_t lba, uint32_t blocks) {
    struct scsi_task *task = read_bytes(lba, blocks * SECTOR);
    if (failed(task)) {
        return;
    }
    const unsigned char *bytes = task->datain.data;
    int is_one = task->datain.size == (int)(blocks * SECTOR) && !memcmp(bytes, bytes + 1, blocks * SECTOR - 1);
    if (is_one) {
        say("good %02x", bytes[0]);
    } else {
        say("good mixed");
    }
    scsi_free_scsi_task(task);
}

static void write_byte(uint64_t lba, uint32_t blocks, int byte, int fua) {
    unsigned char *bytes = malloc(blocks * SECTOR);
    memset(bytes, byte, blocks * SECTOR);
    settle(write_bytes(lba, bytes, blocks * SECTOR, fua));
    free(bytes);
}

static uint64_t number_of(const unsigned char *bytes) {
    uint64_t number = 0;
    for (int i = 7; i >= 0; i--) {
        number = number << 8 | bytes[i];
    }
    return number;
}

// All of a block or sector says which number it has.
static void fill(unsigned char *bytes, size_t length, uint64_t number) {
    for (size_t i = 0; i < length; i++) {
        bytes[i] = (unsigned char)(number >> 8 * (i % 8));
    }
}

static void number(uint64_t lba) {
    struct scsi_task *task = read_bytes(lba, SECTOR);
    if (failed(task)) {
        return;
    }
    say("good %" PRIu64, number_of(task->datain.data));
    scsi_free_scsi_task(task);
}

static void count(uint64_t lba, uint64_t times) {
    uint64_t late = 0;
    for (uint64_t done = 0; done < times;) {
        struct scsi_task *task = read_bytes(lba, SECTOR);
        if (failed(task)) {
            return;
        }
        unsigned char pair[2 * SECTOR];
        memcpy(pair, task->datain.data, SECTOR);
        fill(pair + SECTOR, SECTOR, number_of(pair) + 1);
        scsi_free_scsi_task(task);
        task = iscsi_compareandwrite_sync(session, lun, lba, pair, sizeof pair, SECTOR, 0, 0, 0, 0, 0);
        if (is_check(task, MISCOMPARE)) {
            late++;
        } else if (failed(task)) {
            return;
        } else {
            done++;
        }
        scsi_free_scsi_task(task);
    }
    say("good %" PRIu64, late);
}

// One of these is answered by a unit attention after the session was made anew: it is sent again then, as a disk driver
// does.
static struct scsi_task *record(uint64_t block, int fua) {
    unsigned char bytes[RECORD];
    fill(bytes, sizeof bytes, block + 1);
    for (;;) {
        struct scsi_task *task = write_bytes(block * RECORD_SECTORS, bytes, sizeof bytes, fua);
        if (is_good(task) && !fua) {
            scsi_free_scsi_task(task);
            task = iscsi_synchronizecache10_sync(session, lun, 0, 0, 0, 0);
        }
        if (!is_check(task, ATTENTION)) {
            return task;
        }
        scsi_free_scsi_task(task);
    }
}

static void records(uint64_t first, uint64_t count) {
    for (uint64_t block = first; block < first + count; block++) {
        struct scsi_task *task = record(block, block % 2 == 0);
        if (failed(task)) {
            return;
        }
        scsi_free_scsi_task(task);
        say("acked %" PRIu64, block);
    }
    say("good");
}

static void verify(uint64_t first, uint64_t count) {
    for (uint64_t block = first; block < first + count; block++) {
        struct scsi_task *task = read_bytes(block * RECORD_SECTORS, RECORD);
        if (failed(task)) {
            return;
        }
        unsigned char bytes[RECORD];
        fill(bytes, sizeof bytes, block + 1);
        int is_there = task->datain.size == RECORD && !memcmp(task->datain.data, bytes, RECORD);
        scsi_free_scsi_task(task);
        if (!is_there) {
            say("wrong %" PRIu64, block);
            return;
        }
    }
    say("good");
}

static void unmap(uint64_t lba, uint32_t blocks) {
    struct unmap_list list = { .lba = lba, .num = blocks };
    settle(iscsi_unmap_sync(session, lun, 0, 0, &list, 1));
}

static void reserve_out(int action, int type, uint64_t key, uint64_t other, int aptpl) {
    struct scsi_persistent_reserve_out_basic basic;
    memset(&basic, 0, sizeof basic);
    basic.reservation_key = key;
    basic.service_action_reservation_key = other;
    basic.aptpl = (uint8_t)aptpl;
    settle(iscsi_persistent_reserve_out_sync(session, lun, action, SCSI_PERSISTENT_RESERVE_SCOPE_LU, type, &basic));
}

static void keys(void) {
    struct scsi_task *task = iscsi_persistent_reserve_in_sync(session, lun, SCSI_PERSISTENT_RESERVE_READ_KEYS, 4096);
    if (failed(task)) {
        return;
    }
    struct scsi_persistent_reserve_in_read_keys *read = unmarshalled(task);
    printf("good");
    for (int i = 0; i < read->num_keys; i++) {
        printf(" %" PRIx64, read->keys[i]);
    }
    say("");
    scsi_free_scsi_task(task);
}

static void holder(void) {
    int action = SCSI_PERSISTENT_RESERVE_READ_RESERVATION;
    struct scsi_task *task = iscsi_persistent_reserve_in_sync(session, lun, action, 4096);
    if (failed(task)) {
        return;
    }
    struct scsi_persistent_reserve_in_read_reservation *read = unmarshalled(task);
    if (read->reserved) {
        say("good %" PRIx64 " %u", read->reservation_key, read->pr_type);
    } else {
        say("good none");
    }
    scsi_free_scsi_task(task);
}

static uint64_t argument(int base) {
    const char *word = strtok(NULL, " \n");
    if (!word) {
        fprintf(stderr, "an argument is missing\n");
        exit(2);
    }
    return strtoull(word, NULL, base);
}

static uint64_t decimal(void) {
    return argument(10);
}

static uint64_t hexadecimal(void) {
    return argument(16);
}

// Arguments of a call have no order in C, so each is read into a name first.
static int do_reservations(const char *verb) {
    if (!strcmp(verb, "register")) {
        uint64_t old = hexadecimal(), key = hexadecimal();
        reserve_out(SCSI_PERSISTENT_RESERVE_REGISTER, 0, old, key, (int)decimal());
    } else if (!strcmp(verb, "reserve")) {
        uint64_t key = hexadecimal();
        reserve_out(SCSI_PERSISTENT_RESERVE_RESERVE, (int)decimal(), key, 0, 0);
    } else if (!strcmp(verb, "release")) {
        uint64_t key = hexadecimal();
        reserve_out(SCSI_PERSISTENT_RESERVE_RELEASE, (int)decimal(), key, 0, 0);
    } else if (!strcmp(verb, "preempt")) {
        uint64_t key = hexadecimal(), other = hexadecimal();
        reserve_out(SCSI_PERSISTENT_RESERVE_PREEMPT, (int)decimal(), key, other, 0);
    } else if (!strcmp(verb, "keys")) {
        keys();
    } else if (!strcmp(verb, "holder")) {
        holder();
    } else {
        return 0;
    }
    return 1;
}

static int do_data(const char *verb) {
    if (!strcmp(verb, "read")) {
        uint64_t lba = decimal();
        read_byte(lba, (uint32_t)decimal());
    } else if (!strcmp(verb, "write")) {
        uint64_t lba = decimal(), blocks = decimal(), byte = hexadecimal();
        write_byte(lba, (uint32_t)blocks, (int)byte, strtok(NULL, " \n") != NULL);
    } else if (!strcmp(verb, "unmap")) {
        uint64_t lba = decimal();
        unmap(lba, (uint32_t)decimal());
    } else if (!strcmp(verb, "flush")) {
        settle(iscsi_synchronizecache10_sync(session, lun, 0, 0, 0, 0));
    } else if (!strcmp(verb, "number")) {
        number(decimal());
    } else if (!strcmp(verb, "count")) {
        uint64_t lba = decimal();
        count(lba, decimal());
    } else if (!strcmp(verb, "records")) {
        uint64_t first = decimal();
        records(first, decimal());
    } else if (!strcmp(verb, "verify")) {
        uint64_t first = decimal();
        verify(first, decimal());
    } else {
        return 0;
    }
    return 1;
}

static void obey(const char *verb) {
    if (!strcmp(verb, "tur")) {
        settle(iscsi_testunitready_sync(session, lun));
    } else if (!strcmp(verb, "luns")) {
        luns();
    } else if (!strcmp(verb, "capacity")) {
        capacity();
    } else if (!strcmp(verb, "logout")) {
        say(iscsi_logout_sync(session) ? "lost" : "good");
    } else if (!do_data(verb) && !do_reservations(verb)) {
        fprintf(stderr, "no verb %s\n", verb);
        exit(2);
    }
}

// Answers the target's pings meanwhile, and connects again if it is to: whether there is an order, or the end of them.
static int await_order(void) {
    for (;;) {
        // No events: it waits with no connection until it tries again, and the old one would wake this all the time.
        short events = (short)iscsi_which_events(session);
        struct pollfd waited[2] = {
            { .fd = STDIN_FILENO, .events = POLLIN },
            { .fd = events ? iscsi_get_fd(session) : -1, .events = events },
        };
        if (poll(waited, 2, 500) < 0) {
            return 0;
        }
        if (waited[0].revents) {
            return 1;
        }
        // A session that has ended for good tells so by the next order's answer.
        if (iscsi_service(session, waited[1].revents)) {
            return poll(waited, 1, -1) > 0;
        }
    }
}

int main(int count, char **words) {
    int reconnects = 0, option;
    long qualifier = -1;
    while ((option = getopt(count, words, "rq:")) != -1) {
        if (option == 'r') {
            reconnects = 1;
        } else if (option == 'q') {
            qualifier = strtol(optarg, NULL, 10);
        } else {
            return 2;
        }
    }
    if (count - optind != 2 || !(session = iscsi_create_context(words[optind]))) {
        return 2;
    }
    struct iscsi_url *url = iscsi_parse_full_url(session, words[optind + 1]);
    if (!url) {
        fprintf(stderr, "%s\n", iscsi_get_error(session));
        return 2;
    }
    lun = url->lun;
    iscsi_set_targetname(session, url->target);
    iscsi_set_session_type(session, ISCSI_SESSION_NORMAL);
    iscsi_set_header_digest(session, ISCSI_HEADER_DIGEST_CRC32C_NONE);
    iscsi_set_noautoreconnect(session, !reconnects);
    if (qualifier >= 0) {
        iscsi_set_isid_en(session, 0, (uint32_t)qualifier);
    }
    if (iscsi_full_connect_sync(session, url->portal, lun)) {
        say("refused %s", iscsi_get_error(session));
        return 3;
    }
    say("ready");
    setvbuf(stdin, NULL, _IONBF, 0);
    char line[256];
    while (await_order() && fgets(line, sizeof line, stdin)) {
        const char *verb = strtok(line, " \n");
        if (verb) {
            obey(verb);
        }
    }
    iscsi_destroy_url(url);
    iscsi_destroy_context(session);
    return 0;
}
