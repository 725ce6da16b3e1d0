/* The load generator: one thread, one epoll, nothing allocated per message.
 *
 *   load echo --port P --pid PID --messages FILE --connections N --seconds S
 *        [--warmup S] [--raw | --deflate]
 *   load idle --port P --pid PID --connections N [--deflate]
 *   load rate --port P --pid PID --connections N --seconds S
 *
 * `echo` opens N connections, sends a message on each, waits for the whole echo
 * and sends the next; `idle` holds N open and answers pings until its standard
 * input ends; `rate` keeps N attempts going to connect, shake hands, close and
 * begin again.  `--raw` leaves the handshake and the frames away.  PID is the
 * server's: its CPU time is read at both ends of the measured window.  The
 * result is a line of JSON; an error is a line on standard error and status 1,
 * or status 3 where the server takes no permessage-deflate.
 *
 * FILE holds the messages as they go over the wire, framed and masked:
 * repeatedly two 32-bit lengths, the bytes to send and the payload of the echo,
 * of which the length is 0 where it can't be known (with deflate).
 *
 * Sockets are registered once, edge-triggered for both directions, so a small
 * message costs an epoll_wait (shared by all that are ready), a recv, a send.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <time.h>
#include <unistd.h>

enum { CONNECTING, SHAKING, OPEN, CLOSING, GONE };
enum { AT_ONCE = 128, EVENTS = 512, CHUNK = 1 << 18, HEAD = 2048 };

struct message {
    const uint8_t *wire, *echo;
    size_t wire_len, echo_len;
};

struct conn {
    int fd, state;
    char *head;           /* the response's, while SHAKING */
    size_t head_len;
    unsigned next;        /* which message is on its way */
    size_t sent, got;     /* of its wire bytes, of its echo's payload */
    int busy, checked;
    uint64_t began;
    uint8_t header[14];   /* of the frame that arrives */
    unsigned header_len;
    uint64_t left;
    int in_payload;
};

static struct options {
    const char *mode, *messages;
    int port, connections, raw, deflate;
    pid_t pid;
    double seconds, warmup;
} opt = {.connections = 1, .seconds = 1};

static struct message *messages;
static unsigned message_count;
static struct conn *conns;
static int epoll_fd, opened, in_flight, alive, started, stopping;
static uint64_t done, pings, outstanding;
static uint8_t chunk[CHUNK];

/* -- time, CPU, latencies ------------------------------------------------ */

static void die(const char *format, ...)
{
    va_list args;
    va_start(args, format);
    vfprintf(stderr, format, args);
    va_end(args);
    fputc('\n', stderr);
    exit(1);
}

static uint64_t clock_ns(clockid_t id)
{
    struct timespec t = {0};
    if (clock_gettime(id, &t))
        die("the server is gone");
    return t.tv_sec * 1000000000ull + t.tv_nsec;
}

static uint64_t now(void) { return clock_ns(CLOCK_MONOTONIC); }

static uint64_t server_cpu(void)
{
    clockid_t id;
    if (clock_getcpuclockid(opt.pid, &id))
        die("the server is gone");
    return clock_ns(id);
}

/* 64 buckets for each power of two: within 1.6 %. */
static uint32_t histogram[64 * 64];

static void record(uint64_t ns)
{
    int exponent = 63 - __builtin_clzll(ns | 64);
    histogram[(exponent - 6) * 64 + ((ns >> (exponent - 6)) & 63)]++;
}

static double percentile(double fraction)
{
    uint64_t total = 0, seen = 0;
    for (int i = 0; i < 64 * 64; i++)
        total += histogram[i];
    for (int i = 0; i < 64 * 64; i++) {
        seen += histogram[i];
        if (total && seen >= total * fraction)
            return ((uint64_t)(64 + i % 64) << (i / 64)) / 1000.0;
    }
    return 0;
}

static struct { uint64_t time, server, load; } begun;

static void begin(void)
{
    begun.time = now();
    begun.server = server_cpu();
    begun.load = clock_ns(CLOCK_PROCESS_CPUTIME_ID);
    done = pings = 0;
    memset(histogram, 0, sizeof histogram);
}

static void print_result(void)
{
    uint64_t server = server_cpu() - begun.server;
    uint64_t load = clock_ns(CLOCK_PROCESS_CPUTIME_ID) - begun.load;
    double seconds = (now() - begun.time) / 1e9;
    printf("{\"count\": %llu, \"pings\": %llu, \"seconds\": %.6f, \"server_cpu\": %.6f, "
           "\"load_cpu\": %.6f, \"p50\": %.1f, \"p99\": %.1f}\n",
           (unsigned long long)done, (unsigned long long)pings, seconds, server / 1e9,
           load / 1e9, percentile(.5), percentile(.99));
    fflush(stdout);
}

/* -- opening and ending -------------------------------------------------- */

static void open_one(struct conn *c)
{
    static unsigned source;
    struct sockaddr_in from = {.sin_family = AF_INET}, to = from;
    char *head = c->head ? c->head : malloc(HEAD);
    int one = 1;
    memset(c, 0, sizeof *c);
    c->head = head;
    c->fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    if (c->fd < 0)
        die("socket: %s", strerror(errno));
    setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    /* Many addresses, since one has 28,000 ports and TIME_WAIT keeps them. */
    from.sin_addr.s_addr = htonl(0x7f000002 + source++ % 200);
#ifdef IP_BIND_ADDRESS_NO_PORT
    setsockopt(c->fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &one, sizeof one);
#endif
    if (bind(c->fd, (struct sockaddr *)&from, sizeof from))
        die("bind: %s", strerror(errno));
    to.sin_port = htons(opt.port);
    to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    if (connect(c->fd, (struct sockaddr *)&to, sizeof to) && errno != EINPROGRESS)
        die("connect: %s", strerror(errno));
    struct epoll_event event = {EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET, {.ptr = c}};
    if (epoll_ctl(epoll_fd, EPOLL_CTL_ADD, c->fd, &event))
        die("epoll_ctl: %s", strerror(errno));
    c->began = now();
    in_flight++;
    alive++;
}

static void send_close(struct conn *c)
{
    /* 1000, masked with zeros. */
    static const uint8_t frame[] = {0x88, 0x82, 0, 0, 0, 0, 0x03, 0xe8};
    c->state = CLOSING;
    if (send(c->fd, frame, sizeof frame, MSG_NOSIGNAL) < 0 && errno != EPIPE &&
        errno != ECONNRESET)
        die("send: %s", strerror(errno));
}

static void end(struct conn *c)
{
    if (c->state != CLOSING)
        die("the server closed the connection (%s)",
            c->state < OPEN ? "during the handshake" : "before the echo was complete");
    close(c->fd);
    c->state = GONE;
    alive--;
    if (!strcmp(opt.mode, "rate") && started) {
        done++;
        record(now() - c->began);
        if (!stopping)
            open_one(c);
    }
}

/* -- sending ------------------------------------------------------------- */

static void push(struct conn *c)
{
    const struct message *m = &messages[c->next];
    while (c->sent < m->wire_len) {
        ssize_t n = send(c->fd, m->wire + c->sent, m->wire_len - c->sent, MSG_NOSIGNAL);
        if (n < 0) {
            if (errno == EAGAIN)
                return;
            die("send: %s", strerror(errno));
        }
        c->sent += n;
    }
}

static void send_next(struct conn *c)
{
    c->next = (c->next + 1) % message_count;
    c->sent = c->got = 0;
    c->busy = 1;
    outstanding++;
    c->began = now();
    push(c);
}

static void echoed(struct conn *c)
{
    const struct message *m = &messages[c->next];
    if (m->echo_len && c->got != m->echo_len)
        die("an echo of %zu bytes instead of %zu", c->got, m->echo_len);
    record(now() - c->began);
    c->busy = 0;
    c->checked = 1;
    outstanding--;
    done++;
    if (!stopping)
        send_next(c);
}

/* -- receiving ----------------------------------------------------------- */

static void take_payload(struct conn *c, const uint8_t *data, size_t size)
{
    if (!c->busy)
        die("data that nobody asked for");
    const struct message *m = &messages[c->next];
    if (m->echo_len && !c->checked &&
        (c->got + size > m->echo_len || memcmp(data, m->echo + c->got, size)))
        die("the echo differs from the message");
    c->got += size;
}

/* A control frame is complete: `data` is its payload, of at most 125 bytes. */
static int take_control(struct conn *c, const uint8_t *data, size_t size)
{
    int opcode = c->header[0] & 15;
    if (opcode == 8) {
        end(c); /* not waiting for TCP: some write HTTP behind their Close */
        return 0;
    } else if (opcode == 9 && c->state == OPEN) {
        uint8_t pong[131] = {0x8a, 0x80 | size};
        memcpy(pong + 6, data, size); /* masked with zeros */
        if (send(c->fd, pong, 6 + size, MSG_NOSIGNAL) != (ssize_t)(6 + size))
            die("no room for a pong");
        pings++;
    }
    return 1;
}

/* Whether the header is complete; if so `left` is the payload's length. */
static int parse_header(struct conn *c)
{
    unsigned length = c->header[1] & 127, extra = length == 127 ? 8 : length == 126 ? 2 : 0;
    if (c->header_len < 2 + extra)
        return 0;
    if (c->header[1] & 128)
        die("a masked frame from the server");
    c->left = extra ? 0 : length;
    for (unsigned i = 0; i < extra; i++)
        c->left = c->left << 8 | c->header[2 + i];
    return 1;
}

/* Returns 0 once the connection is gone. */
static int take_frames(struct conn *c, const uint8_t *data, size_t size)
{
    while (size || (c->in_payload && !c->left)) {
        if (!c->in_payload) {
            c->header[c->header_len++] = *data++;
            size--;
            c->in_payload = c->header_len >= 2 && parse_header(c);
            if (!c->in_payload)
                continue;
        }
        int control = c->header[0] & 8;
        size_t n = size < c->left ? size : c->left;
        if (control && n < c->left) {
            /* Rare enough to insist that it comes whole. */
            die("a control frame in pieces");
        }
        if (control) {
            c->in_payload = c->header_len = 0;
            if (!take_control(c, data, n))
                return 0;
        } else if (n) {
            take_payload(c, data, n);
        }
        data += n;
        size -= n;
        c->left -= n;
        if (!control && !c->left) {
            c->in_payload = c->header_len = 0;
            if (c->header[0] & 128)
                echoed(c);
        }
    }
    return 1;
}

static void take_raw(struct conn *c, const uint8_t *data, size_t size)
{
    take_payload(c, data, size);
    if (c->got >= messages[c->next].echo_len)
        echoed(c);
}

/* -- the handshake ------------------------------------------------------- */

static void is_open(struct conn *c)
{
    c->state = OPEN;
    in_flight--;
    opened++;
    free(c->head);
    c->head = NULL;
    if (!strcmp(opt.mode, "rate"))
        send_close(c);
}

static void ask(struct conn *c)
{
    char request[512];
    int size = snprintf(request, sizeof request,
                        "GET / HTTP/1.1\r\nHost: 127.0.0.1:%d\r\nUpgrade: websocket\r\n"
                        "Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
                        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n%s\r\n", opt.port,
                        opt.deflate ? "Sec-WebSocket-Extensions: permessage-deflate; "
                                      "client_max_window_bits\r\n" : "");
    c->state = SHAKING;
    if (send(c->fd, request, size, MSG_NOSIGNAL) != size)
        die("connect: %s", strerror(errno));
}

/* Returns 0 once the connection is gone. */
static int take_response(struct conn *c, const uint8_t *data, size_t size)
{
    size_t n = size < HEAD - 1 - c->head_len ? size : HEAD - 1 - c->head_len;
    memcpy(c->head + c->head_len, data, n);
    c->head[c->head_len + n] = 0;
    char *end_of_head = strstr(c->head, "\r\n\r\n");
    if (!end_of_head && n < size)
        die("a response of more than %d bytes", HEAD);
    if (!end_of_head) {
        c->head_len += n;
        return 1;
    }
    size_t used = end_of_head + 4 - c->head - c->head_len;
    *end_of_head = 0;
    if (strncmp(c->head, "HTTP/1.1 101", 12) || !strstr(c->head, "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="))
        die("refused: %.40s", c->head);
    if (opt.deflate && !strcasestr(c->head, "permessage-deflate")) {
        fprintf(stderr, "no permessage-deflate\n");
        exit(3);
    }
    is_open(c);
    return used < size ? take_frames(c, data + used, size - used) : 1;
}

/* -- the loop ------------------------------------------------------------ */

static void readable(struct conn *c)
{
    for (;;) {
        ssize_t n = recv(c->fd, chunk, sizeof chunk, 0);
        if (n < 0 && errno == EAGAIN)
            return;
        if (n <= 0) {
            if (n < 0 && c->state != CLOSING)
                die("recv: %s", strerror(errno));
            end(c);
            return;
        }
        if (c->state == SHAKING) {
            if (!take_response(c, chunk, n))
                return;
        } else if (opt.raw) {
            take_raw(c, chunk, n);
        } else if (!take_frames(c, chunk, n)) {
            return;
        }
        /* A short read has emptied the socket: what comes next is an event. */
        if (n < (ssize_t)sizeof chunk)
            return;
    }
}

static void on_event(struct conn *c, uint32_t events)
{
    if (c->state == CONNECTING) {
        int error = 0;
        socklen_t size = sizeof error;
        getsockopt(c->fd, SOL_SOCKET, SO_ERROR, &error, &size);
        if (error)
            die("connect: %s", strerror(error));
        if (!(events & EPOLLOUT))
            return;
        if (opt.raw)
            is_open(c);
        else
            ask(c);
        return;
    }
    if (events & EPOLLOUT && c->busy)
        push(c);
    if (events & (EPOLLIN | EPOLLRDHUP | EPOLLHUP | EPOLLERR)) {
        readable(c);
        /* An end that came with the last bytes makes no other event; what is
           CONNECTING by now is another connection. */
        if (events & EPOLLRDHUP && c->state != CONNECTING && c->state != GONE)
            readable(c);
    }
}

/* Run until the time `until`, or while `*more` where that is given. */
static void run(uint64_t until, const int *more)
{
    struct epoll_event events[EVENTS];
    for (;;) {
        uint64_t t = now();
        if (t >= until || (more && !*more))
            return;
        uint64_t wait = (until - t) / 1000000 + 1;
        int n = epoll_wait(epoll_fd, events, EVENTS, wait > 1000 ? 1000 : (int)wait);
        for (int i = 0; i < n; i++) {
            if (!events[i].data.ptr)
                return; /* standard input */
            on_event(events[i].data.ptr, events[i].events);
        }
    }
}

static void open_all(void)
{
    /* 10 s, and as many again for each 1,000. */
    uint64_t deadline = now() + 10000000000ull + opt.connections * 10000000ull;
    for (int i = 0; i < opt.connections; i++) {
        open_one(&conns[i]);
        while (in_flight >= AT_ONCE && now() < deadline)
            run(now() + 1000000, NULL);
    }
    while (opened < opt.connections) {
        if (now() >= deadline)
            die("only %d of %d connections opened in time", opened, opt.connections);
        run(now() + 1000000, NULL);
    }
}

static void close_all(void)
{
    for (int i = 0; i < opt.connections; i++) {
        if (conns[i].state != OPEN)
            continue;
        if (opt.raw) {
            close(conns[i].fd);
            alive--;
        } else {
            send_close(&conns[i]);
        }
    }
    run(now() + 2000000000ull, &alive);
}

/* The measured window; longer where the server is so slow that nothing would
   have been done in it. */
static void measure(void)
{
    begin();
    run(begun.time + (uint64_t)(opt.seconds * 1e9), NULL);
    uint64_t few = opt.connections < 4 ? opt.connections : 4;
    while (done < few && now() < begun.time + 3000000000ull)
        run(now() + 10000000, NULL);
    print_result();
    stopping = 1;
}

static void echo(void)
{
    open_all();
    started = 1;
    for (int i = 0; i < opt.connections; i++) {
        conns[i].next = i;
        send_next(&conns[i]);
    }
    run(now() + (uint64_t)(opt.warmup * 1e9), NULL);
    measure();
    for (uint64_t deadline = now() + 1000000000ull; outstanding && now() < deadline;)
        run(now() + 1000000, NULL);
    close_all();
}

static void idle(void)
{
    open_all();
    begin();
    print_result();
    struct epoll_event event = {EPOLLIN, {.ptr = NULL}};
    epoll_ctl(epoll_fd, EPOLL_CTL_ADD, 0, &event);
    run(UINT64_MAX, NULL);
    print_result();
    close_all();
}

static void rate(void)
{
    started = 1;
    for (int i = 0; i < opt.connections; i++)
        open_one(&conns[i]);
    run(now() + (uint64_t)(opt.warmup * 1e9), NULL);
    measure();
    run(now() + 2000000000ull, &alive);
}

/* -- the command line ---------------------------------------------------- */

static void load_messages(void)
{
    FILE *file = fopen(opt.messages, "rb");
    uint32_t sizes[2];
    if (!file)
        die("%s: %s", opt.messages, strerror(errno));
    while (fread(sizes, 4, 2, file) == 2) {
        uint8_t *data = malloc(sizes[0] + sizes[1]);
        if (fread(data, 1, sizes[0] + sizes[1], file) != sizes[0] + sizes[1])
            die("%s ends early", opt.messages);
        messages = realloc(messages, (message_count + 1) * sizeof *messages);
        messages[message_count++] =
            (struct message){data, data + sizes[0], sizes[0], sizes[1]};
    }
    fclose(file);
    if (!message_count)
        die("%s has no messages", opt.messages);
}

static void parse_options(int argc, char **argv)
{
    opt.mode = argc > 1 ? argv[1] : "";
    for (int i = 2; i < argc; i++) {
        const char *name = argv[i];
        if (!strcmp(name, "--raw"))
            opt.raw = 1;
        else if (!strcmp(name, "--deflate"))
            opt.deflate = 1;
        else if (++i == argc)
            die("%s needs a value", name);
        else if (!strcmp(name, "--port"))
            opt.port = atoi(argv[i]);
        else if (!strcmp(name, "--pid"))
            opt.pid = atoi(argv[i]);
        else if (!strcmp(name, "--connections"))
            opt.connections = atoi(argv[i]);
        else if (!strcmp(name, "--messages"))
            opt.messages = argv[i];
        else if (!strcmp(name, "--seconds"))
            opt.seconds = atof(argv[i]);
        else if (!strcmp(name, "--warmup"))
            opt.warmup = atof(argv[i]);
        else
            die("unknown option %s", name);
    }
}

int main(int argc, char **argv)
{
    signal(SIGPIPE, SIG_IGN);
    parse_options(argc, argv);
    conns = calloc(opt.connections, sizeof *conns);
    epoll_fd = epoll_create1(0);
    if (!strcmp(opt.mode, "echo")) {
        if (!opt.messages)
            die("echo needs --messages");
        load_messages();
        echo();
    } else if (!strcmp(opt.mode, "idle")) {
        idle();
    } else if (!strcmp(opt.mode, "rate")) {
        rate();
    } else {
        die("usage: load echo|idle|rate --port P --pid PID ...");
    }
    return 0;
}
