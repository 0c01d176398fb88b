/* What a process is told by its system, changed from outside: a disk that is full, that fails to sync, or whose writes are
 * written down so that a loss of power can be played back; and a clock that jumps. Loaded by LD_PRELOAD into the same server;
 * the product knows nothing of it. `shim.py` builds it, sets the signs and reads the log.
 *
 * SHIM_FOLDER  only files below it are touched
 * SHIM_SIGNS   a folder: `full` (no space), `eio` (its text: a part of the paths whose sync fails), `clock` (8 bytes: seconds), `life`
 *              (8 bytes: how many bytes may yet be written before the process is killed in the middle of a write; below 0: any number)
 * SHIM_LOG     a file that takes every change of files below SHIM_FOLDER, in order
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#define REAL(name) ((__typeof__(&name))real(#name))

static void *real(const char *name) { return dlsym(RTLD_NEXT, name); }

static const char *folder, *signs;
static size_t folder_size;
static int log_fd = -1;
static volatile int64_t *clock_s, *life_bytes;

static int64_t *shared(const char *name) {
    char path[PATH_MAX];
    if (!signs) return NULL;
    snprintf(path, sizeof path, "%s/%s", signs, name);
    int fd = REAL(open64)(path, O_RDWR | O_CLOEXEC);
    if (fd < 0) return NULL;
    void *at = mmap(NULL, sizeof(int64_t), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    close(fd);
    return at == MAP_FAILED ? NULL : at;
}

__attribute__((constructor)) static void begin(void) {
    folder = getenv("SHIM_FOLDER");
    folder_size = folder ? strlen(folder) : 0;
    signs = getenv("SHIM_SIGNS");
    const char *log = getenv("SHIM_LOG");
    if (log) log_fd = REAL(open64)(log, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    clock_s = shared("clock");
    life_bytes = shared("life");
}

static int is_inside(const char *path) {
    return folder && strncmp(path, folder, folder_size) == 0 && (path[folder_size] == '/' || !path[folder_size]);
}

/* The absolute path of `path`, or of `fd`; whether it is ours. */
static int find(int at, const char *path, char *found) {
    char link[64];
    if (!folder) return 0;
    if (path && path[0] == '/') {
        snprintf(found, PATH_MAX, "%s", path);
        return is_inside(found);
    }
    if (at == AT_FDCWD) {
        if (!getcwd(found, PATH_MAX)) return 0;
    } else {
        snprintf(link, sizeof link, "/proc/self/fd/%d", at);
        ssize_t size = readlink(link, found, PATH_MAX - 1);
        if (size < 0) return 0;
        found[size] = 0;
    }
    if (path) {
        size_t size = strlen(found);
        snprintf(found + size, PATH_MAX - size, "/%s", path);
    }
    return is_inside(found);
}

static int has_sign(const char *name, const char *path) {
    char sign[PATH_MAX], text[256];
    if (!signs) return 0;
    snprintf(sign, sizeof sign, "%s/%s", signs, name);
    int fd = REAL(open64)(sign, O_RDONLY | O_CLOEXEC);
    if (fd < 0) return 0;
    ssize_t size = REAL(read)(fd, text, sizeof text - 1);
    close(fd);
    text[size > 0 ? size : 0] = 0;
    return strstr(path, text) != NULL;
}

struct entry {
    char kind;
    char pad[3];
    uint32_t first, second, data;
    uint64_t inode, offset;
};

static void tell(char kind, uint64_t inode, uint64_t offset, const char *first, const char *second, const void *data, size_t size) {
    if (log_fd < 0) return;
    int before = errno;
    struct entry entry = {kind, {0}, first ? strlen(first) : 0, second ? strlen(second) : 0, size, inode, offset};
    struct iovec parts[4] = {{&entry, sizeof entry}, {(void *)first, entry.first}, {(void *)second, entry.second}, {(void *)data, size}};
    if (REAL(writev)(log_fd, parts, 4) < 0) abort();
    errno = before;
}

static uint64_t inode_of(int fd) {
    struct stat status;
    return fstat(fd, &status) ? 0 : status.st_ino;
}

static int opened(int at, const char *path, int flags, mode_t mode) {
    char found[PATH_MAX];
    int ours = find(at, path, found);
    int is_new = ours && (flags & O_CREAT) && access(found, F_OK) != 0;
    if (is_new && has_sign("full", found)) {
        errno = ENOSPC;
        return -1;
    }
    int fd = REAL(openat64)(at, path, flags, mode);
    if (fd >= 0 && is_new) tell('c', inode_of(fd), 0, found, NULL, NULL, 0);
    if (fd >= 0 && ours && !is_new && (flags & O_TRUNC)) tell('t', inode_of(fd), 0, found, NULL, NULL, 0);
    return fd;
}

#define MODE(flags) \
    mode_t mode = 0; \
    if ((flags) & (O_CREAT | O_TMPFILE)) { \
        va_list rest; \
        va_start(rest, flags); \
        mode = va_arg(rest, int); \
        va_end(rest); \
    }

int open(const char *path, int flags, ...) { MODE(flags) return opened(AT_FDCWD, path, flags, mode); }
int open64(const char *path, int flags, ...) { MODE(flags) return opened(AT_FDCWD, path, flags, mode); }
int openat(int at, const char *path, int flags, ...) { MODE(flags) return opened(at, path, flags, mode); }
int openat64(int at, const char *path, int flags, ...) { MODE(flags) return opened(at, path, flags, mode); }

/* Whether a write to `fd` must fail; its place is found for the log. */
static int refuses(int fd, char *found, int *ours) {
    *ours = find(fd, NULL, found);
    if (*ours && has_sign("full", found)) {
        errno = ENOSPC;
        return 1;
    }
    return 0;
}

/* How much of a write is done; less than asked for means that the process ends behind it. */
static size_t lives(size_t size) {
    if (!life_bytes || *life_bytes < 0) return size;
    size_t done = (size_t)*life_bytes < size ? (size_t)*life_bytes : size;
    *life_bytes -= done;
    return done;
}

ssize_t write(int fd, const void *data, size_t size) {
    char found[PATH_MAX];
    int ours;
    if (!folder) return REAL(write)(fd, data, size);
    if (refuses(fd, found, &ours)) return -1;
    off64_t at = ours ? lseek64(fd, 0, SEEK_CUR) : 0;
    int appends = ours && (fcntl(fd, F_GETFL) & O_APPEND);
    size_t asked = size;
    if (ours) size = lives(size);
    ssize_t done = REAL(write)(fd, data, size);
    if (size < asked) kill(getpid(), SIGKILL);
    if (ours && done > 0) {
        if (appends) at = lseek64(fd, 0, SEEK_CUR) - done;
        tell('w', inode_of(fd), at, found, NULL, data, done);
    }
    return done;
}

static ssize_t written(int fd, const void *data, size_t size, off64_t at) {
    char found[PATH_MAX];
    int ours;
    if (refuses(fd, found, &ours)) return -1;
    size_t asked = size;
    if (ours) size = lives(size);
    ssize_t done = REAL(pwrite64)(fd, data, size, at);
    if (size < asked) kill(getpid(), SIGKILL);
    if (ours && done > 0) tell('w', inode_of(fd), at, found, NULL, data, done);
    return done;
}

ssize_t pwrite(int fd, const void *data, size_t size, off_t at) { return written(fd, data, size, at); }
ssize_t pwrite64(int fd, const void *data, size_t size, off64_t at) { return written(fd, data, size, at); }

static int cut(int fd, off64_t size) {
    char found[PATH_MAX];
    int ours = find(fd, NULL, found);
    struct stat status;
    if (ours && has_sign("full", found) && fstat(fd, &status) == 0 && size > status.st_size) {
        errno = ENOSPC;
        return -1;
    }
    int done = REAL(ftruncate64)(fd, size);
    if (ours && done == 0) tell('t', inode_of(fd), size, found, NULL, NULL, 0);
    return done;
}

int ftruncate(int fd, off_t size) { return cut(fd, size); }
int ftruncate64(int fd, off64_t size) { return cut(fd, size); }

static int synced(int fd, int (*sync)(int)) {
    char found[PATH_MAX];
    int ours = find(fd, NULL, found);
    if (ours && has_sign("eio", found)) {
        errno = EIO;
        return -1;
    }
    int done = sync(fd);
    if (ours && done == 0) tell('s', inode_of(fd), 0, found, NULL, NULL, 0);
    return done;
}

int fsync(int fd) { return synced(fd, REAL(fsync)); }
int fdatasync(int fd) { return synced(fd, REAL(fdatasync)); }

static int renamed(int from_at, const char *from, int to_at, const char *to) {
    char first[PATH_MAX], second[PATH_MAX];
    int ours = find(to_at, to, second) && find(from_at, from, first);
    int done = REAL(renameat)(from_at, from, to_at, to);
    if (ours && done == 0) tell('r', 0, 0, first, second, NULL, 0);
    return done;
}

int rename(const char *from, const char *to) { return renamed(AT_FDCWD, from, AT_FDCWD, to); }
int renameat(int from_at, const char *from, int to_at, const char *to) { return renamed(from_at, from, to_at, to); }

static int linked(int from_at, const char *from, int to_at, const char *to, int flags) {
    char first[PATH_MAX], second[PATH_MAX];
    int ours = find(to_at, to, second) && find(from_at, from, first);
    int done = REAL(linkat)(from_at, from, to_at, to, flags);
    if (ours && done == 0) tell('l', 0, 0, first, second, NULL, 0);
    return done;
}

int link(const char *from, const char *to) { return linked(AT_FDCWD, from, AT_FDCWD, to, 0); }
int linkat(int from_at, const char *from, int to_at, const char *to, int flags) { return linked(from_at, from, to_at, to, flags); }

static int removed(int at, const char *path, int flags) {
    char found[PATH_MAX];
    int ours = find(at, path, found);
    int done = REAL(unlinkat)(at, path, flags);
    if (ours && done == 0) tell('u', 0, 0, found, NULL, NULL, 0);
    return done;
}

int unlink(const char *path) { return removed(AT_FDCWD, path, 0); }
int unlinkat(int at, const char *path, int flags) { return removed(at, path, flags); }

/* The clock that people read, as far ahead as the sign says; what measures durations is left alone. */
int clock_gettime(clockid_t which, struct timespec *found) {
    static int (*ask)(clockid_t, struct timespec *);
    if (!ask) ask = REAL(clock_gettime);
    int done = ask(which, found);
    if (done == 0 && clock_s && (which == CLOCK_REALTIME || which == CLOCK_REALTIME_COARSE)) found->tv_sec += *clock_s;
    return done;
}

int gettimeofday(struct timeval *found, void *zone) {
    struct timespec now;
    (void)zone;
    if (clock_gettime(CLOCK_REALTIME, &now)) return -1;
    found->tv_sec = now.tv_sec;
    found->tv_usec = now.tv_nsec / 1000;
    return 0;
}

time_t time(time_t *found) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    if (found) *found = now.tv_sec;
    return now.tv_sec;
}
