/* An echo server with nothing in it but the kernel: epoll, recv, send.
 *
 *   echo PORT
 *
 * What its message costs, no server on this machine can go below; nor can what it
 * takes more with many connections than with few.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <unistd.h>

enum { BACKLOG = 4096, EVENTS = 256, CHUNK = 1 << 16 };

/* What TCP has not taken yet; a connection with such a rest waits for room only. */
struct rest {
    char *data;
    size_t size;
};

static int epoll_fd;
static struct rest *rests; /* by descriptor */
static char chunk[CHUNK];

static void die(const char *what)
{
    fprintf(stderr, "%s: %s\n", what, strerror(errno));
    exit(1);
}

static void watch(int operation, int fd, uint32_t events)
{
    struct epoll_event event = {.events = events, .data.fd = fd};
    if (epoll_ctl(epoll_fd, operation, fd, &event))
        die("epoll_ctl");
}

static void end(int fd)
{
    free(rests[fd].data);
    rests[fd] = (struct rest){0};
    close(fd);
}

static void put(int fd, const char *data, size_t size)
{
    ssize_t sent = send(fd, data, size, MSG_NOSIGNAL);
    if (sent < 0 && errno != EAGAIN) {
        end(fd);
        return;
    }
    size_t left = size - (sent < 0 ? 0 : sent);
    struct rest *rest = &rests[fd];
    if (left) {
        char *copy = malloc(left);
        memcpy(copy, data + size - left, left);
        free(rest->data);
        *rest = (struct rest){copy, left};
        watch(EPOLL_CTL_MOD, fd, EPOLLOUT);
    } else if (rest->data) {
        free(rest->data);
        *rest = (struct rest){0};
        watch(EPOLL_CTL_MOD, fd, EPOLLIN);
    }
}

static void on_event(int fd)
{
    if (rests[fd].data) {
        put(fd, rests[fd].data, rests[fd].size);
        return;
    }
    ssize_t size = recv(fd, chunk, sizeof chunk, 0);
    if (size > 0)
        put(fd, chunk, size);
    else if (!size || errno != EAGAIN)
        end(fd);
}

static void take(int listener)
{
    int one = 1, fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK);
    if (fd < 0)
        return;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    watch(EPOLL_CTL_ADD, fd, EPOLLIN);
}

int main(int argc, char **argv)
{
    struct sockaddr_in address = {.sin_family = AF_INET};
    struct epoll_event events[EVENTS];
    struct rlimit files;
    int one = 1, listener = socket(AF_INET, SOCK_STREAM, 0);
    address.sin_port = htons(argc > 1 ? atoi(argv[1]) : 0);
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    if (bind(listener, (struct sockaddr *)&address, sizeof address) ||
        listen(listener, BACKLOG))
        die("listen");
    getrlimit(RLIMIT_NOFILE, &files);
    rests = calloc(files.rlim_cur, sizeof *rests);
    epoll_fd = epoll_create1(0);
    watch(EPOLL_CTL_ADD, listener, EPOLLIN);
    for (;;) {
        int count = epoll_wait(epoll_fd, events, EVENTS, -1);
        for (int i = 0; i < count; i++) {
            if (events[i].data.fd == listener)
                take(listener);
            else
                on_event(events[i].data.fd);
        }
    }
}
