/* Kills a process at one of its writes under a folder, or has the disk full from there on.
 *
 *     cc -shared -fPIC -O2 -o faults.so tests/faults.c -ldl
 *     FAULTS_UNDER=/path/to/checkpoints FAULTS_AT=17 FAULTS_MODE=kill LD_PRELOAD=./faults.so python ...
 *
 * What changes files counts, in all threads together: write, pwrite, writev, open with O_CREAT, mkdir, rename, unlink, rmdir,
 * fsync. FAULTS_MODE is 'kill' (SIGKILL before the call, or in the middle of a write) or 'full' (ENOSPC for this call and all
 * later ones that need space). The variables may be set while the process runs; faults_calls() counts. (strace injects
 * faults as well, but counts each thread by itself.)
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

static atomic_long calls;

static int is_under(const char *path) {
  const char *folder = getenv("FAULTS_UNDER");
  return folder && path && !strncmp(path, folder, strlen(folder));
}

static int fd_is_under(int fd) {
  char link[64], path[PATH_MAX];
  if (!getenv("FAULTS_UNDER")) return 0;
  snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
  ssize_t length = readlink(link, path, sizeof path - 1);
  if (length < 0) return 0;
  path[length] = 0;
  return is_under(path);
}

static int at_is_under(int folder, const char *path) {
  return folder == AT_FDCWD || path[0] == '/' ? is_under(path) : fd_is_under(folder);
}

/* 0: go on; 1: this call is to die in; 2: there is no space. */
static int fault(int needs_space) {
  const char *mode = getenv("FAULTS_MODE"), *at = getenv("FAULTS_AT");
  long call = atomic_fetch_add(&calls, 1) + 1;
  if (!mode || !at) return 0;
  if (!strcmp(mode, "kill") && call == atol(at)) return 1;
  return !strcmp(mode, "full") && needs_space && call >= atol(at) ? 2 : 0;
}

static void die(void) {
  kill(getpid(), SIGKILL);
  for (;;) pause();
}

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))
#define GUARD(under, needs_space, give)      \
  if (under) {                               \
    int what = fault(needs_space);           \
    if (what == 1) die();                    \
    if (what == 2) { errno = ENOSPC; return give; } \
  }

ssize_t write(int fd, const void *data, size_t size) {
  if (fd_is_under(fd)) {
    int what = fault(1);
    if (what == 1) { REAL(write)(fd, data, size / 2); die(); }
    if (what == 2) { errno = ENOSPC; return -1; }
  }
  return REAL(write)(fd, data, size);
}

ssize_t pwrite64(int fd, const void *data, size_t size, off64_t at) {
  if (fd_is_under(fd)) {
    int what = fault(1);
    if (what == 1) { REAL(pwrite64)(fd, data, size / 2, at); die(); }
    if (what == 2) { errno = ENOSPC; return -1; }
  }
  return REAL(pwrite64)(fd, data, size, at);
}

ssize_t writev(int fd, const struct iovec *parts, int count) {
  if (fd_is_under(fd)) {
    int what = fault(1);
    if (what == 1) { REAL(writev)(fd, parts, count / 2); die(); }
    if (what == 2) { errno = ENOSPC; return -1; }
  }
  return REAL(writev)(fd, parts, count);
}

#define OPENAT(name)                                        \
  int name(int folder, const char *path, int flags, ...) {  \
    va_list more;                                           \
    va_start(more, flags);                                  \
    mode_t mode = va_arg(more, int);                        \
    va_end(more);                                           \
    GUARD((flags & O_CREAT) && at_is_under(folder, path), 1, -1) \
    return REAL(name)(folder, path, flags, mode);           \
  }
OPENAT(openat)
OPENAT(openat64)

#define OPEN(name)                                \
  int name(const char *path, int flags, ...) {    \
    va_list more;                                 \
    va_start(more, flags);                        \
    mode_t mode = va_arg(more, int);              \
    va_end(more);                                 \
    GUARD((flags & O_CREAT) && is_under(path), 1, -1) \
    return REAL(name)(path, flags, mode);         \
  }
OPEN(open)
OPEN(open64)

int mkdir(const char *path, mode_t mode) {
  GUARD(is_under(path), 1, -1)
  return REAL(mkdir)(path, mode);
}

int mkdirat(int folder, const char *path, mode_t mode) {
  GUARD(at_is_under(folder, path), 1, -1)
  return REAL(mkdirat)(folder, path, mode);
}

int rename(const char *from, const char *to) {
  GUARD(is_under(from), 0, -1)
  return REAL(rename)(from, to);
}

int renameat(int from_folder, const char *from, int to_folder, const char *to) {
  GUARD(at_is_under(from_folder, from), 0, -1)
  return REAL(renameat)(from_folder, from, to_folder, to);
}

int unlink(const char *path) {
  GUARD(is_under(path), 0, -1)
  return REAL(unlink)(path);
}

int unlinkat(int folder, const char *path, int flags) {
  GUARD(at_is_under(folder, path), 0, -1)
  return REAL(unlinkat)(folder, path, flags);
}

int rmdir(const char *path) {
  GUARD(is_under(path), 0, -1)
  return REAL(rmdir)(path);
}

int fsync(int fd) {
  GUARD(fd_is_under(fd), 0, -1)
  return REAL(fsync)(fd);
}

/* How many calls there have been. */
long faults_calls(void) { return atomic_load(&calls); }
