/* Preloaded into a server by tests: RocksDB's fsyncs and writes fail or wait, on demand.
 *
 * $FAULT_CONTROL names a file with "<fault> <suffix>". While it exists, the fault befalls files in
 * a directory "db" whose names end in the suffix; it is read anew at each call. Faults:
 *
 *   sync-eio    fsync and fdatasync fail with EIO, without writing anything
 *   sync-slow   fsync and fdatasync take 500 ms longer
 *   write-eio   write and pwrite fail with EIO
 *   write-half  write writes half of what it is given, and then fails with ENOSPC
 *
 * $FAULT_SYNCED names a file that gets a line "<size> <path>" for each fsync that succeeded: so
 * many bytes are certainly on the disk (the size is taken before the fsync).
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define REAL(name, ...) \
    static int (*real)(__VA_ARGS__); \
    if (!real) real = (int (*)(__VA_ARGS__))dlsym(RTLD_NEXT, name)

typedef ssize_t (*write_fn)(int, const void *, size_t);
typedef ssize_t (*pwrite_fn)(int, const void *, size_t, off_t);

static int path_of(int fd, char *path, size_t size) {
    char link[64];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, size - 1);
    if (length < 0) return 0;
    path[length] = 0;
    return strstr(path, "/db/") != NULL;
}

/* Whether this fault is on for this file. */
static int befalls(int fd, const char *fault) {
    const char *control = getenv("FAULT_CONTROL");
    char text[64] = "", wanted[32] = "", suffix[32] = "", path[4096];
    if (!control) return 0;
    int in = open(control, O_RDONLY | O_CLOEXEC);
    if (in < 0) return 0;
    ssize_t size = read(in, text, sizeof text - 1);
    close(in);
    if (size <= 0 || sscanf(text, "%31s %31s", wanted, suffix) != 2) return 0;
    if (strcmp(wanted, fault) || !path_of(fd, path, sizeof path)) return 0;
    size_t length = strlen(path), end = strlen(suffix);
    return length >= end && !strcmp(path + length - end, suffix);
}

static void note_synced(int fd, off_t size) {
    const char *list = getenv("FAULT_SYNCED");
    char path[4096], line[4200];
    if (!list || !path_of(fd, path, sizeof path)) return;
    int out = open(list, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    if (out < 0) return;
    int length = snprintf(line, sizeof line, "%lld %s\n", (long long)size, path);
    write_fn real = (write_fn)dlsym(RTLD_NEXT, "write");
    if (real(out, line, length) != length) abort();
    close(out);
}

static int sync_with(int (*real)(int), int fd) {
    struct stat before;
    if (befalls(fd, "sync-eio")) { errno = EIO; return -1; }
    if (befalls(fd, "sync-slow")) usleep(500000);
    fstat(fd, &before);
    int result = real(fd);
    if (result == 0) note_synced(fd, before.st_size);
    return result;
}

int fsync(int fd) { REAL("fsync", int); return sync_with(real, fd); }
int fdatasync(int fd) { REAL("fdatasync", int); return sync_with(real, fd); }

ssize_t write(int fd, const void *data, size_t size) {
    static write_fn real;
    if (!real) real = (write_fn)dlsym(RTLD_NEXT, "write");
    if (fd > 2 && befalls(fd, "write-eio")) { errno = EIO; return -1; }
    if (fd > 2 && befalls(fd, "write-half")) {
        if (size > 20) return real(fd, data, size / 2);
        errno = ENOSPC;
        return -1;
    }
    return real(fd, data, size);
}

ssize_t pwrite64(int fd, const void *data, size_t size, off_t offset) {
    static pwrite_fn real;
    if (!real) real = (pwrite_fn)dlsym(RTLD_NEXT, "pwrite64");
    if (befalls(fd, "write-eio")) { errno = EIO; return -1; }
    return real(fd, data, size, offset);
}

ssize_t pwrite(int fd, const void *data, size_t size, off_t offset) {
    return pwrite64(fd, data, size, offset);
}
