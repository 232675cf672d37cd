/* Makes calls of the C library that change files below some folders fail, or records them.
 *
 * Preloaded into every process of a run (LD_PRELOAD), it sees what Python and all libraries do.
 * FAULTS is "STATE KINDS AT ERROR MODE LOG ROOT[:ROOT...]": see faults.py, which writes it.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

enum { OPEN, WRITE, SYNC, RENAME, MKDIR, UNLINK, TRUNCATE, RMDIR, CREATE, LINK };
static const char *NAMES[] = {"open", "write", "sync", "rename", "mkdir", "unlink", "truncate", "rmdir", "create", "link"};

struct state {
    _Atomic uint64_t count, hits;
    char first[1024];
    pthread_mutex_t lock;
};

static struct state *state;
static unsigned kinds;
static uint64_t at;
static int error_number, lasting, brief, killing, log_fd = -1, root_count;
static char roots[8][PATH_MAX];

#define REAL(type, name, ...) \
    static type (*real)(__VA_ARGS__); \
    if (!real) *(void **)&real = dlsym(RTLD_NEXT, name)

__attribute__((constructor)) static void begin(void)
{
    const char *given = getenv("FAULTS");
    char file[PATH_MAX], mode[16], log[PATH_MAX], all[PATH_MAX];
    if (!given) return;
    if (sscanf(given, "%4095s %u %lu %d %15s %4095s %4095s", file, &kinds, &at, &error_number, mode, log, all) != 7)
        abort();
    lasting = strchr(mode, 'l') != NULL;
    brief = strchr(mode, 's') != NULL;
    killing = mode[0] == 'k' ? mode[1] : 0;
    for (char *rest = all, *root; (root = strsep(&rest, ":")) && root_count < 8;)
        strcpy(roots[root_count++], root);
    int fd = syscall(SYS_openat, AT_FDCWD, file, O_RDWR | O_CLOEXEC, 0);
    if (fd < 0) abort();
    state = mmap(NULL, sizeof *state, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    syscall(SYS_close, fd);
    if (state == MAP_FAILED) abort();
    if (strcmp(log, "-")) {
        int low = syscall(SYS_openat, AT_FDCWD, log, O_WRONLY | O_APPEND | O_CLOEXEC, 0);
        log_fd = fcntl(low, F_DUPFD_CLOEXEC, 200);
        syscall(SYS_close, low);
        if (log_fd < 0) abort();
    }
}

/* Called once, in a process of its own, before the run: the lock is shared and survives a kill. */
void faults_prepare(struct state *fresh)
{
    pthread_mutexattr_t facts;
    memset(fresh, 0, sizeof *fresh);
    pthread_mutexattr_init(&facts);
    pthread_mutexattr_setpshared(&facts, PTHREAD_PROCESS_SHARED);
    pthread_mutexattr_setrobust(&facts, PTHREAD_MUTEX_ROBUST);
    pthread_mutex_init(&fresh->lock, &facts);
}
size_t faults_size(void) { return sizeof(struct state); }

static int below(const char *path)
{
    for (int i = 0; i < root_count; i++) {
        size_t length = strlen(roots[i]);
        if (!strncmp(path, roots[i], length) && (path[length] == '/' || !path[length])) return 1;
    }
    return 0;
}

static int of_fd(int fd, char *out)
{
    char link[64];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = syscall(SYS_readlinkat, AT_FDCWD, link, out, PATH_MAX - 1);
    if (length <= 0) return 0;
    out[length] = 0;
    return below(out);
}

/* The real path of a name whose last part need not exist. */
static int of_path(int dir, const char *path, char *out)
{
    char whole[2 * PATH_MAX], folder[2 * PATH_MAX], found[PATH_MAX];
    int saved = errno;
    if (path[0] == '/') snprintf(whole, sizeof whole, "%s", path);
    else if (dir == AT_FDCWD) {
        if (!getcwd(found, sizeof found)) return 0;
        snprintf(whole, sizeof whole, "%s/%s", found, path);
    } else {
        of_fd(dir, found);
        snprintf(whole, sizeof whole, "%s/%s", found, path);
    }
    strcpy(folder, whole);
    char *slash = strrchr(folder, '/');
    *slash = 0;
    int ok = realpath(folder[0] ? folder : "/", found) != NULL;
    errno = saved;
    if (!ok) return 0;
    snprintf(out, PATH_MAX, "%s%s", strcmp(found, "/") ? found : "", whole + (slash - folder));
    return below(out);
}

/* Who gets the signal: the whole group, the first process of the run, or the one at work. */
static pid_t victim(void)
{
    return killing == 'g' ? 0 : killing == 'p' ? getsid(0) : getpid();
}

/* Whether a call is to fail now; errno says how. */
static int fails(int kind, const char *path)
{
    if (!state || !(kinds >> kind & 1)) return 0;
    uint64_t number = atomic_fetch_add(&state->count, 1) + 1;
    if (!at || number < at || (number > at && !lasting)) return 0;
    if (atomic_fetch_add(&state->hits, 1) == 0)
        snprintf(state->first, sizeof state->first, "%s %s", NAMES[kind], path);
    if (killing) {
        kill(victim(), error_number);
        return 0;
    }
    errno = error_number;
    return 1;
}

static void lock(void)
{
    if (log_fd >= 0 && pthread_mutex_lock(&state->lock) == EOWNERDEAD)
        pthread_mutex_consistent(&state->lock);
}
static void unlock(void) { if (log_fd >= 0) pthread_mutex_unlock(&state->lock); }

struct head { uint32_t kind, first, second; uint32_t flags; uint64_t ino, dev, offset, size; };

static void note(int kind, uint64_t ino, uint64_t dev, uint32_t flags, uint64_t offset, const char *path,
                 const char *other, const void *data, uint64_t size)
{
    if (log_fd < 0) return;
    int saved = errno;
    struct head head = {kind, path ? strlen(path) : 0, other ? strlen(other) : 0, flags, ino, dev, offset, size};
    struct iovec pieces[] = {{&head, sizeof head}, {(void *)path, head.first}, {(void *)other, head.second},
                             {(void *)data, data ? size : 0}};
    syscall(SYS_writev, log_fd, pieces, 4);
    errno = saved;
}
static void note_fd(int kind, int fd, uint32_t flags, uint64_t offset, const char *path, const void *data, uint64_t size)
{
    struct stat facts;
    /* A file without a name is gone after a power cut, whatever was written to it. */
    if (log_fd < 0 || fstat(fd, &facts) || !facts.st_nlink) return;
    note(kind, facts.st_ino, facts.st_dev, flags | (S_ISDIR(facts.st_mode) ? 1u << 31 : 0), offset, path, NULL, data, size);
}

static int opened(int dir, const char *path, int flags, mode_t mode)
{
    char real_path[PATH_MAX];
    int writes = (flags & O_ACCMODE) != O_RDONLY || flags & (O_CREAT | O_TRUNC);
    if (!state || !writes || (flags & O_TMPFILE) == O_TMPFILE || !of_path(dir, path, real_path))
        return syscall(SYS_openat, dir, path, flags, mode);
    if (fails(OPEN, real_path)) return -1;
    lock();
    int is_new = syscall(SYS_faccessat, dir, path, F_OK) != 0;
    int fd = syscall(SYS_openat, dir, path, flags, mode);
    if (fd >= 0 && (is_new || flags & O_TRUNC)) note_fd(is_new ? CREATE : TRUNCATE, fd, 0, 0, real_path, NULL, 0);
    unlock();
    return fd;
}
#define OPENS(flags) \
    mode_t mode = 0; \
    if ((flags) & (O_CREAT | __O_TMPFILE)) { va_list rest; va_start(rest, flags); mode = va_arg(rest, int); va_end(rest); }
int open(const char *path, int flags, ...) { OPENS(flags) return opened(AT_FDCWD, path, flags, mode); }
int open64(const char *path, int flags, ...) { OPENS(flags) return opened(AT_FDCWD, path, flags | O_LARGEFILE, mode); }
int openat(int dir, const char *path, int flags, ...) { OPENS(flags) return opened(dir, path, flags, mode); }
int openat64(int dir, const char *path, int flags, ...) { OPENS(flags) return opened(dir, path, flags | O_LARGEFILE, mode); }
int creat(const char *path, mode_t mode) { return opened(AT_FDCWD, path, O_CREAT | O_WRONLY | O_TRUNC, mode); }
int creat64(const char *path, mode_t mode) { return creat(path, mode); }

static uint64_t position(int fd)
{
    struct stat facts;
    if (fcntl(fd, F_GETFL) & O_APPEND && !fstat(fd, &facts)) return facts.st_size;
    return lseek(fd, 0, SEEK_CUR);
}
/* 1 where the call is to fail; a short one only has less to write. */
static int write_fails(const char *path, size_t *size)
{
    if (!fails(WRITE, path)) return 0;
    if (!brief) return 1;
    if (*size > 1) *size /= 2;
    return 0;
}
ssize_t write(int fd, const void *data, size_t size)
{
    char path[PATH_MAX];
    if (!state || fd < 3 || fd == log_fd || !of_fd(fd, path)) return syscall(SYS_write, fd, data, size);
    if (write_fails(path, &size)) return -1;
    lock();
    uint64_t offset = position(fd);
    ssize_t done = syscall(SYS_write, fd, data, size);
    if (done > 0) note_fd(WRITE, fd, 0, offset, path, data, done);
    unlock();
    return done;
}
ssize_t pwrite64(int fd, const void *data, size_t size, off64_t offset)
{
    char path[PATH_MAX];
    if (!state || !of_fd(fd, path)) return syscall(SYS_pwrite64, fd, data, size, offset);
    if (write_fails(path, &size)) return -1;
    lock();
    ssize_t done = syscall(SYS_pwrite64, fd, data, size, offset);
    if (done > 0) note_fd(WRITE, fd, 0, offset, path, data, done);
    unlock();
    return done;
}
ssize_t pwrite(int fd, const void *data, size_t size, off_t offset) { return pwrite64(fd, data, size, offset); }
ssize_t writev(int fd, const struct iovec *pieces, int count)
{
    char path[PATH_MAX];
    if (state && of_fd(fd, path)) {
        for (int i = 0; i < count; i++)
            if (pieces[i].iov_len) return write(fd, pieces[i].iov_base, pieces[i].iov_len);
        return 0;
    }
    return syscall(SYS_writev, fd, pieces, count);
}
ssize_t sendfile64(int out, int in, off64_t *offset, size_t size)
{
    char path[PATH_MAX];
    if (!state || !of_fd(out, path)) return syscall(SYS_sendfile, out, in, offset, size);
    if (write_fails(path, &size)) return -1;
    lock();
    uint64_t from = offset ? (uint64_t)*offset : position(in), to = position(out);
    ssize_t done = syscall(SYS_sendfile, out, in, offset, size);
    if (done > 0 && log_fd >= 0) {
        char *copy = malloc(done);
        if (syscall(SYS_pread64, in, copy, done, from) != done) abort();
        note_fd(WRITE, out, 0, to, path, copy, done);
        free(copy);
    }
    unlock();
    return done;
}
ssize_t sendfile(int out, int in, off_t *offset, size_t size) { return sendfile64(out, in, offset, size); }
/* Callers fall back to plain writes. */
ssize_t copy_file_range(int in, off64_t *from, int out, off64_t *to, size_t size, unsigned flags)
{
    char path[PATH_MAX];
    if (!state || !of_fd(out, path)) return syscall(SYS_copy_file_range, in, from, out, to, size, flags);
    errno = EXDEV;
    return -1;
}

static int synced(int fd, long number)
{
    char path[PATH_MAX];
    if (!state || !of_fd(fd, path)) return syscall(number, fd);
    if (fails(SYNC, path)) return -1;
    lock();
    int done = syscall(number, fd);
    if (!done) note_fd(SYNC, fd, 0, 0, path, NULL, 0);
    unlock();
    return done;
}
int fsync(int fd) { return synced(fd, SYS_fsync); }
int fdatasync(int fd) { return synced(fd, SYS_fdatasync); }

static int named(int kind, long number, int from_dir, const char *from, int to_dir, const char *to, int flags)
{
    char old[PATH_MAX], new[PATH_MAX];
    if (!state || !of_path(from_dir, from, old) || !of_path(to_dir, to, new))
        return syscall(number, from_dir, from, to_dir, to, flags);
    if (fails(kind, new)) return -1;
    lock();
    int done = syscall(number, from_dir, from, to_dir, to, flags);
    if (!done) note(kind, 0, 0, 0, 0, old, new, NULL, 0);
    unlock();
    return done;
}
int renameat2(int a, const char *from, int b, const char *to, unsigned flags)
{
    return named(RENAME, SYS_renameat2, a, from, b, to, flags);
}
int rename(const char *from, const char *to) { return renameat2(AT_FDCWD, from, AT_FDCWD, to, 0); }
int renameat(int a, const char *from, int b, const char *to) { return renameat2(a, from, b, to, 0); }

int linkat(int a, const char *from, int b, const char *to, int flags)
{
    return named(LINK, SYS_linkat, a, from, b, to, flags);
}
int link(const char *from, const char *to) { return linkat(AT_FDCWD, from, AT_FDCWD, to, 0); }

int mkdirat(int dir, const char *path, mode_t mode)
{
    char real_path[PATH_MAX];
    if (!state || !of_path(dir, path, real_path)) return syscall(SYS_mkdirat, dir, path, mode);
    if (syscall(SYS_faccessat, dir, path, F_OK) == 0) { errno = EEXIST; return -1; }
    if (fails(MKDIR, real_path)) return -1;
    lock();
    int done = syscall(SYS_mkdirat, dir, path, mode);
    if (!done) note(MKDIR, 0, 0, 0, 0, real_path, NULL, NULL, 0);
    unlock();
    return done;
}
int mkdir(const char *path, mode_t mode) { return mkdirat(AT_FDCWD, path, mode); }

int unlinkat(int dir, const char *path, int flags)
{
    char real_path[PATH_MAX];
    if (!state || !of_path(dir, path, real_path)) return syscall(SYS_unlinkat, dir, path, flags);
    if (syscall(SYS_faccessat, dir, path, F_OK) != 0) return syscall(SYS_unlinkat, dir, path, flags);
    if (fails(UNLINK, real_path)) return -1;
    lock();
    int done = syscall(SYS_unlinkat, dir, path, flags);
    if (!done) note(flags & AT_REMOVEDIR ? RMDIR : UNLINK, 0, 0, 0, 0, real_path, NULL, NULL, 0);
    unlock();
    return done;
}
int unlink(const char *path) { return unlinkat(AT_FDCWD, path, 0); }
int rmdir(const char *path) { return unlinkat(AT_FDCWD, path, AT_REMOVEDIR); }

static int cut(int fd, const char *path, off64_t size)
{
    lock();
    int done = syscall(SYS_ftruncate, fd, size);
    if (!done) note_fd(TRUNCATE, fd, 0, size, path, NULL, 0);
    unlock();
    return done;
}
int ftruncate64(int fd, off64_t size)
{
    char path[PATH_MAX];
    if (!state || !of_fd(fd, path)) return syscall(SYS_ftruncate, fd, size);
    return fails(TRUNCATE, path) ? -1 : cut(fd, path, size);
}
int ftruncate(int fd, off_t size) { return ftruncate64(fd, size); }
int truncate64(const char *path, off64_t size)
{
    char real_path[PATH_MAX];
    if (!state || !of_path(AT_FDCWD, path, real_path)) return syscall(SYS_truncate, path, size);
    if (fails(TRUNCATE, real_path)) return -1;
    int fd = syscall(SYS_openat, AT_FDCWD, path, O_WRONLY | O_CLOEXEC, 0);
    if (fd < 0) return -1;
    int done = cut(fd, real_path, size);
    syscall(SYS_close, fd);
    return done;
}
int truncate(const char *path, off_t size) { return truncate64(path, size); }
