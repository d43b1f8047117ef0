/* A model server that costs next to nothing, so that a benchmark measures the proxy in front of it.
 *
 * KServe v1 over HTTP/1.1 keep-alive, one thread, epoll. Any POST with {"instances": [...]} is answered with as many
 * predictions as there are instances: the elements of the first array are counted by structure (strings, escapes and
 * nesting respected), in the same pass over the body that reads it. Any GET is answered with {"ready": true}.
 *
 * KServe v2 with tensors in binary, where the head says how much of the body is JSON: one output in binary, with as many
 * rows as the first "shape" has. As in a real server the sections are read and not looked at.
 *
 *   stub_backend [--base-us N] [--per-item-us N] [--slots N]
 *
 * With a service time, at most --slots calls are served at once and the others wait in line, as in a real server; the
 * time passes on a timerfd, without spinning. Prints its port, ends with its parent or on SIGTERM.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

#define MAX_FDS 4096
#define READ_BYTES (256 * 1024)
#define JSON_BYTES 1024 /* of a body with tensors in binary, kept to find its shape: a batch's has some 150 */

typedef struct connection {
    int fd;
    char head[16384];
    size_t head_bytes;
    long body_left;          /* bytes of the body still to come; -1: reading the head */
    int is_get, keep_alive;
    int depth, in_string, escaped, seen_array, in_element; /* of the structure scan */
    long elements;
    int binary;              /* tensors in binary: rows instead of elements */
    char json[JSON_BYTES + 1];
    size_t json_bytes;
    char *out;
    size_t out_bytes, out_sent;
    uint64_t due_ns;
    struct connection *next; /* in the queue of calls waiting for a slot */
} connection;

static connection *connections[MAX_FDS];
static connection *queue_head, *queue_tail, *serving[MAX_FDS];
static int epoll_fd, timer_fd, serving_count;
static long base_us, per_item_us, slots = 1;
static char read_buffer[READ_BYTES + 1]; /* NUL-terminated after every read: see scan() */

static uint64_t now_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000ull + (uint64_t)t.tv_nsec;
}

static void begin_message(connection *c) {
    c->head_bytes = 0;
    c->body_left = -1;
    c->depth = c->in_string = c->escaped = c->seen_array = c->in_element = 0;
    c->elements = 0;
    c->binary = 0;
    c->json_bytes = 0;
}

static void drop(connection *c) {
    connection **at = &queue_head;
    queue_tail = NULL;
    while (*at) {
        if (*at == c) { *at = c->next; continue; }
        queue_tail = *at;
        at = &(*at)->next;
    }
    for (int i = 0; i < serving_count; i++)
        if (serving[i] == c) serving[i--] = serving[--serving_count];
    connections[c->fd] = NULL;
    close(c->fd);
    free(c->out);
    free(c);
}

/* Counts the elements of the first array inside the top-level object. */
static void scan(connection *c, const char *bytes, size_t n) {
    for (size_t i = 0; i < n; i++) {
        if (c->depth > 2 && !c->in_string) { /* inside an element only brackets and strings matter: skip with SIMD */
            i += strcspn(bytes + i, "[]{}\"");
            if (i >= n) return;
        }
        char b = bytes[i];
        if (c->in_string) {
            if (c->escaped) { c->escaped = 0; continue; }
            const char *quote = bytes + i;
            while (quote < bytes + n && *quote != '"' && *quote != '\\') quote++;
            if (quote == bytes + n) return;
            i = (size_t)(quote - bytes);
            if (*quote == '\\') c->escaped = 1; else c->in_string = 0;
            continue;
        }
        switch (b) {
        case ' ': case '\t': case '\r': case '\n': case ':': continue;
        case '"':
            c->in_string = 1;
            break;
        case '[': case '{':
            if (c->depth == 1 && b == '[' && !c->seen_array) { c->seen_array = 1; c->depth++; c->in_element = 0; continue; }
            c->depth++;
            if (c->seen_array == 1 && c->depth == 3 && !c->in_element) { c->elements++; c->in_element = 1; }
            continue;
        case ']': case '}':
            c->depth--;
            if (c->seen_array == 1 && c->depth == 1) c->seen_array = 2;
            continue;
        case ',':
            if (c->seen_array == 1 && c->depth == 2) c->in_element = 0;
            continue;
        }
        if (c->seen_array == 1 && c->depth == 2 && !c->in_element) { c->elements++; c->in_element = 1; }
    }
}

/* Keeps the beginning of a body whose tensors are in binary. */
static void keep_json(connection *c, const char *bytes, size_t n) {
    size_t room = JSON_BYTES - c->json_bytes, take = n < room ? n : room;
    memcpy(c->json + c->json_bytes, bytes, take);
    c->json_bytes += take;
}

static void count_rows(connection *c) {
    c->json[c->json_bytes] = 0;
    char *shape = strstr(c->json, "\"shape\"");
    c->elements = shape ? atol(shape + strcspn(shape, "0123456789")) : 0;
}

static int flush_out(connection *c) {
    while (c->out_sent < c->out_bytes) {
        ssize_t n = send(c->fd, c->out + c->out_sent, c->out_bytes - c->out_sent, MSG_NOSIGNAL);
        if (n < 0) {
            if (errno == EAGAIN) {
                struct epoll_event e = {EPOLLIN | EPOLLOUT, {.fd = c->fd}};
                epoll_ctl(epoll_fd, EPOLL_CTL_MOD, c->fd, &e);
                return 1;
            }
            drop(c);
            return 0;
        }
        c->out_sent += (size_t)n;
    }
    free(c->out);
    c->out = NULL;
    if (!c->keep_alive) { drop(c); return 0; }
    return 1;
}

/* Three FP32 per row. */
static int respond_binary(connection *c) {
    static const char item[12] = {0};
    char json[256];
    int json_bytes = sprintf(json,
        "{\"model_name\":\"stub\",\"outputs\":[{\"name\":\"y\",\"datatype\":\"FP32\",\"shape\":[%ld,3],"
        "\"parameters\":{\"binary_data_size\":%ld}}]}", c->elements, c->elements * (long)sizeof item);
    size_t body = (size_t)json_bytes + (size_t)c->elements * sizeof item;
    c->out = malloc(512 + body);
    char *p = c->out + sprintf(c->out, "HTTP/1.1 200 OK\r\ncontent-type: application/octet-stream\r\n"
                               "inference-header-content-length: %d\r\ncontent-length: %zu\r\n%s\r\n",
                               json_bytes, body, c->keep_alive ? "" : "connection: close\r\n");
    memcpy(p, json, (size_t)json_bytes);
    p += json_bytes;
    for (long i = 0; i < c->elements; i++, p += sizeof item) memcpy(p, item, sizeof item);
    c->out_bytes = (size_t)(p - c->out);
    c->out_sent = 0;
    begin_message(c);
    return flush_out(c);
}

static int respond(connection *c) {
    if (c->binary && !c->is_get) return respond_binary(c);
    static const char ready[] = "{\"name\": \"stub\", \"ready\": true}";
    static const char item[] = "[0.1,0.7,0.2]";
    size_t body = c->is_get ? sizeof ready - 1
                            : 16 + 2 + (size_t)c->elements * (sizeof item - 1) + (c->elements ? (size_t)c->elements - 1 : 0);
    c->out = malloc(256 + body);
    char *p = c->out + sprintf(c->out, "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %zu\r\n%s\r\n",
                               body, c->keep_alive ? "" : "connection: close\r\n");
    if (c->is_get) {
        memcpy(p, ready, sizeof ready - 1);
        p += sizeof ready - 1;
    } else {
        memcpy(p, "{\"predictions\":[", 16);
        p += 16;
        for (long i = 0; i < c->elements; i++) {
            if (i) *p++ = ',';
            memcpy(p, item, sizeof item - 1);
            p += sizeof item - 1;
        }
        *p++ = ']';
        *p++ = '}';
    }
    c->out_bytes = (size_t)(p - c->out);
    c->out_sent = 0;
    begin_message(c);
    return flush_out(c);
}

static void arm_timer(void) {
    uint64_t first = 0;
    for (int i = 0; i < serving_count; i++)
        if (!first || serving[i]->due_ns < first) first = serving[i]->due_ns;
    struct itimerspec t = {{0, 0}, {(time_t)(first / 1000000000ull), (long)(first % 1000000000ull)}};
    timerfd_settime(timer_fd, TFD_TIMER_ABSTIME, &t, NULL);
}

static void fill_slots(void) {
    while (queue_head && serving_count < slots) {
        connection *c = queue_head;
        queue_head = c->next;
        if (!queue_head) queue_tail = NULL;
        c->next = NULL;
        c->due_ns = now_ns() + 1000ull * (uint64_t)(base_us + per_item_us * c->elements);
        serving[serving_count++] = c;
    }
    arm_timer();
}

static int serve(connection *c) {
    if (c->is_get || (!base_us && !per_item_us)) return respond(c);
    if (queue_tail) queue_tail->next = c; else queue_head = c;
    queue_tail = c;
    fill_slots();
    return 1;
}

static void timer_fired(void) {
    uint64_t ticks, now = now_ns();
    if (read(timer_fd, &ticks, sizeof ticks) < 0) return;
    for (int i = 0; i < serving_count; i++)
        if (serving[i]->due_ns <= now) {
            connection *c = serving[i];
            serving[i--] = serving[--serving_count];
            respond(c);
        }
    fill_slots();
}

static int parse_head(connection *c) {
    c->head[c->head_bytes] = 0;
    c->is_get = !strncmp(c->head, "GET ", 4);
    c->keep_alive = strcasestr(c->head, "\r\nconnection: close") == NULL;
    char *length = strcasestr(c->head, "\r\ncontent-length:");
    c->body_left = length ? atol(length + 17) : 0;
    c->binary = strcasestr(c->head, "\r\ninference-header-content-length:") != NULL;
    return 1;
}

static void readable(connection *c) {
    ssize_t n = recv(c->fd, read_buffer, READ_BYTES, 0);
    if (n <= 0) {
        if (n == 0 || errno != EAGAIN) drop(c);
        return;
    }
    read_buffer[n] = 0;
    char *p = read_buffer, *end = read_buffer + n;
    int fd = c->fd;
    while (p < end && connections[fd] == c) {
        if (c->body_left < 0) {
            size_t had = c->head_bytes, room = sizeof c->head - 1 - had;
            size_t take = (size_t)(end - p) < room ? (size_t)(end - p) : room;
            memcpy(c->head + had, p, take);
            char *stop = memmem(c->head + (had > 3 ? had - 3 : 0), take + (had > 3 ? 3 : had), "\r\n\r\n", 4);
            if (!stop) {
                c->head_bytes += take;
                if (c->head_bytes == sizeof c->head - 1) drop(c);
                return;
            }
            size_t whole = (size_t)(stop - c->head) + 4;
            p += whole - had;
            c->head_bytes = whole;
            parse_head(c);
        }
        size_t take = (size_t)(end - p) < (size_t)c->body_left ? (size_t)(end - p) : (size_t)c->body_left;
        if (c->binary) keep_json(c, p, take); else scan(c, p, take);
        p += take;
        c->body_left -= (long)take;
        if (c->body_left == 0) {
            c->body_left = -1;
            if (c->binary) count_rows(c);
            if (!serve(c)) return;
        }
    }
}

static long option(int argc, char **argv, const char *name, long otherwise) {
    for (int i = 1; i + 1 < argc; i++)
        if (!strcmp(argv[i], name)) return atol(argv[i + 1]);
    return otherwise;
}

int main(int argc, char **argv) {
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    base_us = option(argc, argv, "--base-us", 0);
    per_item_us = option(argc, argv, "--per-item-us", 0);
    slots = option(argc, argv, "--slots", 1);
    int listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0), one = 1;
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof address;
    if (bind(listener, (struct sockaddr *)&address, size) || listen(listener, 1024)) { perror("stub"); return 1; }
    getsockname(listener, (struct sockaddr *)&address, &size);
    printf("%d\n", ntohs(address.sin_port));
    fflush(stdout);
    epoll_fd = epoll_create1(0);
    timer_fd = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK);
    struct epoll_event e = {EPOLLIN, {.fd = listener}}, events[256];
    epoll_ctl(epoll_fd, EPOLL_CTL_ADD, listener, &e);
    e.data.fd = timer_fd;
    epoll_ctl(epoll_fd, EPOLL_CTL_ADD, timer_fd, &e);
    for (;;) {
        int n = epoll_wait(epoll_fd, events, 256, -1);
        for (int i = 0; i < n; i++) {
            int fd = events[i].data.fd;
            if (fd == timer_fd) { timer_fired(); continue; }
            if (fd == listener) {
                int peer = accept4(listener, NULL, NULL, SOCK_NONBLOCK);
                if (peer < 0) continue;
                if (peer >= MAX_FDS) { close(peer); continue; }
                setsockopt(peer, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
                connection *c = connections[peer] = calloc(1, sizeof *c);
                c->fd = peer;
                begin_message(c);
                e.events = EPOLLIN;
                e.data.fd = peer;
                epoll_ctl(epoll_fd, EPOLL_CTL_ADD, peer, &e);
                continue;
            }
            connection *c = connections[fd];
            if (!c) continue;
            if (c->out && (events[i].events & EPOLLOUT)) {
                e.events = EPOLLIN;
                e.data.fd = fd;
                epoll_ctl(epoll_fd, EPOLL_CTL_MOD, fd, &e);
                if (!flush_out(c)) continue;
            }
            if (events[i].events & (EPOLLIN | EPOLLHUP | EPOLLERR)) readable(c);
        }
    }
}
