/* A TLS client on the system's libssl that uses its functions in the ways that scripting languages don't.
 *
 *   retry MODE PORT FILE...
 *
 * sends the bytes of every FILE over a connection of its own, reads until the server closes, and prints
 * a line "STATUS BYTES SSL RETRIES PARTIAL" for each: the HTTP status, the reply's length, the address of
 * the SSL object, how many calls had to be made again, and how many writes took only a part.
 *
 * The prototypes are declared here because a machine without libssl's headers has the library.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

typedef struct ssl_st SSL;
typedef struct ssl_ctx_st SSL_CTX;
typedef struct ssl_method_st SSL_METHOD;
const SSL_METHOD *TLS_client_method(void);
SSL_CTX *SSL_CTX_new(const SSL_METHOD *method);
SSL *SSL_new(SSL_CTX *ctx);
int SSL_set_fd(SSL *ssl, int fd);
int SSL_connect(SSL *ssl);
int SSL_write(SSL *ssl, const void *buf, int num);
int SSL_read(SSL *ssl, void *buf, int num);
int SSL_peek(SSL *ssl, void *buf, int num);
int SSL_write_ex(SSL *ssl, const void *buf, size_t num, size_t *written);
int SSL_read_ex(SSL *ssl, void *buf, size_t num, size_t *readbytes);
int SSL_get_error(const SSL *ssl, int ret);
long SSL_ctrl(SSL *ssl, int cmd, long larg, void *parg);
int SSL_shutdown(SSL *ssl);
int SSL_clear(SSL *ssl);
void SSL_free(SSL *ssl);

#define SSL_ERROR_WANT_READ 2
#define SSL_ERROR_WANT_WRITE 3
#define SSL_CTRL_MODE 33
#define SSL_MODE_ENABLE_PARTIAL_WRITE 1L

static int nonblocking, partial, with_ex, peeking;
static size_t read_size = 65536;
static long retries, partial_writes;

static void fail(const char *what) {
    perror(what);
    exit(1);
}

static int dial(int port) {
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(port)};
    to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    int small = 4096; /* so that a write finds the socket full */
    if (fd < 0 || (nonblocking && setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &small, sizeof small) < 0)) fail("socket");
    if (connect(fd, (struct sockaddr *)&to, sizeof to) < 0) fail("connect");
    return fd;
}

/* Waits for what the last call wanted; 0 if it failed for good. */
static int wait_for(SSL *ssl, int fd, int result) {
    struct pollfd one = {.fd = fd};
    switch (SSL_get_error(ssl, result)) {
    case SSL_ERROR_WANT_READ: one.events = POLLIN; break;
    case SSL_ERROR_WANT_WRITE: one.events = POLLOUT; break;
    default: return 0;
    }
    retries++;
    return poll(&one, 1, 30000) == 1;
}

static void send_all(SSL *ssl, int fd, const char *data, size_t length) {
    while (length > 0) {
        size_t written = 0;
        int result = with_ex ? SSL_write_ex(ssl, data, length, &written) : SSL_write(ssl, data, (int)length);
        if (result <= 0) {
            if (!wait_for(ssl, fd, result)) fail("SSL_write");
            continue; /* with the same arguments, as the interface demands */
        }
        if (!with_ex) written = (size_t)result;
        if (written < length) partial_writes++;
        data += written;
        length -= written;
    }
}

static size_t receive_all(SSL *ssl, int fd, int *status) {
    char *buffer = malloc(read_size), head[64] = {0};
    size_t total = 0;
    for (;;) {
        size_t got = 0;
        if (peeking) SSL_peek(ssl, buffer, (int)read_size);
        int result = with_ex ? SSL_read_ex(ssl, buffer, read_size, &got) : SSL_read(ssl, buffer, (int)read_size);
        if (result <= 0) {
            if (wait_for(ssl, fd, result)) continue;
            break; /* the end of the connection */
        }
        if (!with_ex) got = (size_t)result;
        if (total < sizeof head - 1) {
            size_t room = sizeof head - 1 - total;
            memcpy(head + total, buffer, got < room ? got : room);
        }
        total += got;
    }
    free(buffer);
    *status = 0;
    sscanf(head, "HTTP/1.1 %d", status);
    return total;
}

/* The file where nothing of it was ever touched: none of its pages is in this process yet, and if the file
 * system allows it none is in memory. */
static char *map(const char *path, size_t *length) {
    int fd = open(path, O_RDONLY);
    off_t end = lseek(fd, 0, SEEK_END);
    if (fd < 0 || end <= 0 || fsync(fd) < 0 || posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED)) fail(path);
    *length = (size_t)end;
    char *data = mmap(NULL, *length, PROT_READ, MAP_PRIVATE, fd, 0);
    if (data == MAP_FAILED || madvise(data, *length, MADV_RANDOM) < 0) fail("mmap");
    close(fd);
    return data;
}

static char *load(const char *path, size_t *length) {
    FILE *file = fopen(path, "rb");
    if (!file || fseek(file, 0, SEEK_END)) fail(path);
    *length = (size_t)ftell(file);
    rewind(file);
    char *data = malloc(*length + 1);
    if (fread(data, 1, *length, file) != *length) fail(path);
    fclose(file);
    return data;
}

int main(int argc, char **argv) {
    if (argc < 4) return 2;
    const char *mode = argv[1];
    int clearing = !strcmp(mode, "clear"), mapping = !strcmp(mode, "mapped");
    partial = !strcmp(mode, "partial") || !strcmp(mode, "ex-partial");
    nonblocking = partial || !strcmp(mode, "retry");
    with_ex = !strncmp(mode, "ex", 2);
    peeking = !strcmp(mode, "peek");
    if (!strcmp(mode, "tiny")) read_size = 3;
    if (!strcmp(mode, "whole")) read_size = 8 << 20;
    signal(SIGPIPE, SIG_IGN);

    SSL_CTX *context = SSL_CTX_new(TLS_client_method());
    SSL *ssl = NULL;
    for (int i = 3; i < argc; i++) {
        size_t length;
        int status;
        char *data = mapping ? map(argv[i], &length) : load(argv[i], &length);
        int fd = dial(atoi(argv[2]));
        if (ssl && clearing) {
            if (SSL_clear(ssl) != 1) fail("SSL_clear");
        } else {
            ssl = SSL_new(context);
        }
        if (partial) SSL_ctrl(ssl, SSL_CTRL_MODE, SSL_MODE_ENABLE_PARTIAL_WRITE, NULL);
        if (SSL_set_fd(ssl, fd) != 1 || SSL_connect(ssl) != 1) fail("SSL_connect");
        if (nonblocking && fcntl(fd, F_SETFL, O_NONBLOCK) < 0) fail("fcntl");
        retries = partial_writes = 0;
        send_all(ssl, fd, data, length);
        size_t total = receive_all(ssl, fd, &status);
        printf("%d %zu %p %ld %ld\n", status, total, (void *)ssl, retries, partial_writes);
        fflush(stdout);
        SSL_shutdown(ssl);
        close(fd);
        if (!clearing) SSL_free(ssl);
        if (mapping) munmap(data, length);
        else free(data);
    }
    return 0;
}
