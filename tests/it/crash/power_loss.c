/*
 * Preloaded into a server, it notes in $POWER_LOSS_JOURNAL, in order, what the server does to files under
 * $POWER_LOSS_DATA: writes with their bytes, lengths, names, and syncs. `disk.rs` reads it and says what of it a disk
 * would still have after a loss of power.
 *
 * A change is made and noted in one turn, so a sync covers exactly the changes that were noted before it. A sync is only
 * noted: what the disk of this machine keeps plays no part. sync_file_range makes nothing durable and is not noted.
 * What could change a file unnoticed aborts the server.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

static pthread_mutex_t turn = PTHREAD_MUTEX_INITIALIZER;
static int journal = -1;
static char data[PATH_MAX];

/* 25 bytes, little-endian, then the two texts. */
struct __attribute__((packed)) record {
  char what;
  uint64_t inode, at;
  uint32_t first, second;
};

__attribute__((constructor)) static void start(void) {
  const char *where = getenv("POWER_LOSS_JOURNAL"), *of = getenv("POWER_LOSS_DATA");
  if (!where || !of || !realpath(of, data)) abort();
  journal = syscall(SYS_openat, AT_FDCWD, where, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
  if (journal < 0) abort();
}

static void note(char what, uint64_t inode, uint64_t at, const void *first, size_t a, const void *second, size_t b) {
  struct record head = {what, inode, at, a, b};
  struct iovec parts[] = {{&head, sizeof head}, {(void *)first, a}, {(void *)second, b}};
  if (syscall(SYS_writev, journal, parts, 3) != (long)(sizeof head + a + b)) abort();
}

static void note_path(char what, uint64_t inode, const char *path) {
  note(what, inode, 0, path, strlen(path), "", 0);
}

static int is_data(const char *path) {
  size_t length = strlen(data);
  return journal >= 0 && !strncmp(path, data, length) && (path[length] == '/' || !path[length]);
}

/* Whether the file is ours; says which and where. */
static int is_ours(int fd, struct stat *file, char *path) {
  char link[64];
  if (fstat(fd, file) || !(S_ISREG(file->st_mode) || S_ISDIR(file->st_mode))) return 0;
  snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
  ssize_t length = readlink(link, path, PATH_MAX - 1);
  if (length < 0) return 0;
  path[length] = 0;
  return is_data(path);
}

#define NEXT(name) ((typeof(&name))dlsym(RTLD_NEXT, #name))
#define IN_TURN(result, call, noted)                                                                                   \
  do {                                                                                                                 \
    pthread_mutex_lock(&turn);                                                                                         \
    (result) = (call);                                                                                                 \
    int error = errno;                                                                                                 \
    if ((result) >= 0) { noted; }                                                                                      \
    pthread_mutex_unlock(&turn);                                                                                       \
    errno = error;                                                                                                     \
  } while (0)

static int opened(typeof(&open) really, const char *path, int flags, mode_t mode) {
  int changes = is_data(path) && (flags & (O_CREAT | O_TRUNC));
  if (!changes) return really(path, flags, mode);
  struct stat file;
  int fd, is_new;
  IN_TURN(fd, (is_new = access(path, F_OK), really(path, flags, mode)), {
    if (fstat(fd, &file)) abort();
    if (is_new) note_path('C', file.st_ino, path);
    else if (flags & O_TRUNC) note('L', file.st_ino, 0, "", 0, "", 0);
  });
  return fd;
}

#define MODE(flags)                                                                                                    \
  mode_t mode = 0;                                                                                                     \
  if ((flags) & O_CREAT) {                                                                                             \
    va_list rest;                                                                                                      \
    va_start(rest, flags);                                                                                             \
    mode = va_arg(rest, mode_t);                                                                                       \
    va_end(rest);                                                                                                      \
  }

int open(const char *path, int flags, ...) {
  MODE(flags)
  return opened(NEXT(open), path, flags, mode);
}

int open64(const char *path, int flags, ...) {
  MODE(flags)
  return opened(NEXT(open64), path, flags, mode);
}

ssize_t write(int fd, const void *bytes, size_t count) {
  struct stat file;
  char path[PATH_MAX];
  if (!is_ours(fd, &file, path)) return NEXT(write)(fd, bytes, count);
  ssize_t done;
  IN_TURN(done, NEXT(write)(fd, bytes, count),
          note('W', file.st_ino, lseek(fd, 0, SEEK_CUR) - done, bytes, done, "", 0));
  return done;
}

ssize_t pwrite64(int fd, const void *bytes, size_t count, off64_t at) {
  struct stat file;
  char path[PATH_MAX];
  if (!is_ours(fd, &file, path)) return NEXT(pwrite64)(fd, bytes, count, at);
  ssize_t done;
  IN_TURN(done, NEXT(pwrite64)(fd, bytes, count, at), note('W', file.st_ino, at, bytes, done, "", 0));
  return done;
}

ssize_t pwrite(int fd, const void *bytes, size_t count, off_t at) { return pwrite64(fd, bytes, count, at); }

/* As many of the parts as are asked for may be written: the first is. */
ssize_t writev(int fd, const struct iovec *parts, int count) {
  struct stat file;
  char path[PATH_MAX];
  if (count < 1 || !is_ours(fd, &file, path)) return NEXT(writev)(fd, parts, count);
  return write(fd, parts->iov_base, parts->iov_len);
}

int ftruncate64(int fd, off64_t length) {
  struct stat file;
  char path[PATH_MAX];
  if (!is_ours(fd, &file, path)) return NEXT(ftruncate64)(fd, length);
  int done;
  IN_TURN(done, NEXT(ftruncate64)(fd, length), note('L', file.st_ino, length, "", 0, "", 0));
  return done;
}

int ftruncate(int fd, off_t length) { return ftruncate64(fd, length); }

int fsync(int fd) {
  struct stat file;
  char path[PATH_MAX];
  if (!is_ours(fd, &file, path)) return NEXT(fsync)(fd);
  int done;
  if (S_ISDIR(file.st_mode)) IN_TURN(done, 0, note_path('D', 0, path));
  else IN_TURN(done, 0, note('S', file.st_ino, 0, "", 0, "", 0));
  return done;
}

int fdatasync(int fd) { return fsync(fd); }

int rename(const char *from, const char *to) {
  if (!is_data(from) && !is_data(to)) return NEXT(rename)(from, to);
  int done;
  IN_TURN(done, NEXT(rename)(from, to), note('R', 0, 0, from, strlen(from), to, strlen(to)));
  return done;
}

int unlink(const char *path) {
  if (!is_data(path)) return NEXT(unlink)(path);
  int done;
  IN_TURN(done, NEXT(unlink)(path), note_path('U', 0, path));
  return done;
}

int rmdir(const char *path) {
  if (!is_data(path)) return NEXT(rmdir)(path);
  int done;
  IN_TURN(done, NEXT(rmdir)(path), note_path('U', 0, path));
  return done;
}

int unlinkat(int directory, const char *name, int flags) {
  struct stat file;
  char path[2 * PATH_MAX];
  if (directory == AT_FDCWD) snprintf(path, sizeof path, "%s", name);
  else if (is_ours(directory, &file, path)) snprintf(path + strlen(path), PATH_MAX, "/%s", name);
  else return NEXT(unlinkat)(directory, name, flags);
  if (!is_data(path)) return NEXT(unlinkat)(directory, name, flags);
  int done;
  IN_TURN(done, NEXT(unlinkat)(directory, name, flags), note_path('U', 0, path));
  return done;
}

int mkdir(const char *path, mode_t mode) {
  if (!is_data(path)) return NEXT(mkdir)(path, mode);
  int done;
  IN_TURN(done, NEXT(mkdir)(path, mode), note_path('M', 0, path));
  return done;
}

static void refuse(const char *call) {
  fprintf(stderr, "The test of power losses does not know what %s does to the data directory.\n", call);
  abort();
}

static void refuse_on(const char *call, int fd) {
  struct stat file;
  char path[PATH_MAX];
  if (is_ours(fd, &file, path)) refuse(call);
}

void *mmap64(void *at, size_t length, int may, int flags, int fd, off64_t from) {
  if (fd >= 0 && (may & PROT_WRITE) && (flags & MAP_SHARED)) refuse_on("mmap", fd);
  return (void *)syscall(SYS_mmap, at, length, may, flags, fd, from);
}

void *mmap(void *at, size_t length, int may, int flags, int fd, off_t from) {
  return mmap64(at, length, may, flags, fd, from);
}

ssize_t copy_file_range(int in, off64_t *from, int out, off64_t *to, size_t length, unsigned flags) {
  refuse_on("copy_file_range", out);
  return NEXT(copy_file_range)(in, from, out, to, length, flags);
}

int linkat(int from_in, const char *from, int to_in, const char *to, int flags) {
  if (!is_data(to)) return NEXT(linkat)(from_in, from, to_in, to, flags);
  if (!is_data(from)) refuse("linkat");
  int done;
  IN_TURN(done, NEXT(linkat)(from_in, from, to_in, to, flags), note('K', 0, 0, from, strlen(from), to, strlen(to)));
  return done;
}

int link(const char *from, const char *to) { return linkat(AT_FDCWD, from, AT_FDCWD, to, 0); }
