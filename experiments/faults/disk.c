// What a failing disk does, on demand: an LD_PRELOAD library that counts a process's calls below one folder, and lets the n-th of a kind
// fail, be cut short, or be the one before which the process is killed; or that logs what changes names and what was synced.
// Built and driven by shim.py. Calls that the C library makes inside itself (fread, fwrite, fclose) are not seen.
#define _GNU_SOURCE
#include <dirent.h>
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
#include <sys/mman.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

// CHANGE counts every call that changes what is on the disk: between two of them a killed process leaves the same disk.
enum { OPEN, READ, WRITE, FSYNC, RENAME, MKDIR, UNLINK, TRUNCATE, CLOSE, STAT, LIST, LINK, MMAP, CONNECT, CHANGE, CALLS };
enum { ONCE, FROM_THEN_ON, SHORT, KILL };
enum { PASSES, FAILS, CUT };

static char prefix[PATH_MAX], where[PATH_MAX + 64], snapshots[PATH_MAX];
static int armed_call = -1, armed_error, armed_mode, log_fd = -1;
static long armed_nth;
static atomic_long counts[CALLS], fired, sequence;
static pid_t owner;
static __thread int inside;
static const char *const NAMES[CALLS] = {"open", "read", "write", "fsync", "rename", "mkdir", "unlink", "truncate",
                                         "close", "stat", "list", "link", "mmap", "connect", "change"};

void disk_arm(const char *folder, int call, long nth, int error, int mode) {
  snprintf(prefix, sizeof prefix, "%s", folder);
  memset(counts, 0, sizeof counts);
  armed_call = call;
  armed_nth = nth;
  armed_error = error;
  armed_mode = mode;
  fired = 0;
  where[0] = 0;
  owner = getpid();
}
void disk_log(const char *file, const char *folder) {
  log_fd = syscall(SYS_openat, AT_FDCWD, file, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
  snprintf(snapshots, sizeof snapshots, "%s", folder);
}
long disk_count(int call) { return counts[call]; }
long disk_fired(void) { return fired; }
const char *disk_where(void) { return where; }

// DISK_FAULT="FOLDER|call|n|errno|mode" arms a process that is started with this library: to try one point by hand.
__attribute__((constructor)) static void begin(void) {
  const char *given = getenv("DISK_FAULT");
  if (!given) return;
  char folder[PATH_MAX], call[16];
  long nth;
  int error, mode;
  if (sscanf(given, "%4095[^|]|%15[^|]|%ld|%d|%d", folder, call, &nth, &error, &mode) != 5) return;
  for (int number = 0; number < CALLS; number++)
    if (!strcmp(call, NAMES[number])) disk_arm(folder, number, nth, error, mode);
}

// DISK_REPORT=FILE: when the process ends, how many of its calls there were of each kind.
__attribute__((destructor)) static void end(void) {
  const char *file = getenv("DISK_REPORT");
  if (!file || owner != getpid()) return;
  int fd = syscall(SYS_openat, AT_FDCWD, file, O_WRONLY | O_CREAT | O_TRUNC, 0600);
  for (int number = 0; fd >= 0 && number < CALLS; number++) {
    char line[64];
    int length = snprintf(line, sizeof line, "%s %ld\n", NAMES[number], (long)counts[number]);
    syscall(SYS_write, fd, line, length);
  }
}

static int watching(void) { return prefix[0] && !inside && owner == getpid(); }

static void name_of(int fd, char *out) {
  char link[64];
  snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
  ssize_t length = syscall(SYS_readlinkat, AT_FDCWD, link, out, PATH_MAX - 1);
  out[length > 0 ? length : 0] = 0;
}
static void name_at(int folder, const char *path, char *out) {
  char base[PATH_MAX] = "";
  if (path && path[0] == '/') {
    snprintf(out, PATH_MAX, "%s", path);
    return;
  }
  if (folder == AT_FDCWD) syscall(SYS_getcwd, base, sizeof base);
  else name_of(folder, base);
  if (snprintf(out, PATH_MAX, "%s/%s", base, path ? path : "") >= PATH_MAX) out[0] = 0;
}
static int below(const char *path) { return !strncmp(path, prefix, strlen(prefix)); }

static int is_armed(int call, long count) {
  return call == armed_call && (count == armed_nth || (armed_mode == FROM_THEN_ON && count > armed_nth));
}
// Count a call; kill the process where it is the one, or say how the call is to go.
static int fate(int call, const char *path, int changes) {
  if (call != CONNECT && !below(path)) return PASSES;
  long count = ++counts[call], change = changes ? ++counts[CHANGE] : 0;
  if (!is_armed(call, count) && !(changes && is_armed(CHANGE, change))) return PASSES;
  if (!fired++) snprintf(where, sizeof where, "%s %ld %s", NAMES[call], count, path);
  if (armed_mode == KILL) kill(getpid(), SIGKILL);
  errno = armed_error;
  return armed_mode == SHORT ? CUT : FAILS;
}

static unsigned long inode_of(int fd) {
  struct stat about;
  return syscall(SYS_fstat, fd, &about) ? 0 : about.st_ino;
}
static long logged(const char *what, unsigned long inode, const char *path, const char *other) {
  if (log_fd < 0 || !watching() || !below(other ? other : path)) return 0;
  char line[2 * PATH_MAX + 64];
  long number = ++sequence;
  int length = snprintf(line, sizeof line, "%ld\t%s\t%lu\t%s\t%s\n", number, what, inode, path, other ? other : "");
  syscall(SYS_write, log_fd, line, length);
  return number;
}
static void keep_bytes(int fd, long number) {
  char from[64], to[PATH_MAX + 32], buffer[65536];
  snprintf(from, sizeof from, "/proc/self/fd/%d", fd);
  snprintf(to, sizeof to, "%s/%ld", snapshots, number);
  int in = syscall(SYS_openat, AT_FDCWD, from, O_RDONLY), out = syscall(SYS_openat, AT_FDCWD, to, O_WRONLY | O_CREAT | O_TRUNC, 0600);
  for (ssize_t length; in >= 0 && out >= 0 && (length = syscall(SYS_read, in, buffer, sizeof buffer)) > 0;) syscall(SYS_write, out, buffer, length);
  if (in >= 0) syscall(SYS_close, in);
  if (out >= 0) syscall(SYS_close, out);
}
static void synced(int fd) {
  struct stat about;
  char path[PATH_MAX];
  if (log_fd < 0 || !watching() || syscall(SYS_fstat, fd, &about)) return;
  name_of(fd, path);
  long number = logged(S_ISDIR(about.st_mode) ? "sync-folder" : "sync-file", about.st_ino, path, NULL);
  if (number && S_ISREG(about.st_mode)) keep_bytes(fd, number);
}
static void synced_all(void) {
  long number = logged("sync-all", 0, prefix, NULL);
  char command[3 * PATH_MAX];
  if (!number) return;
  snprintf(command, sizeof command, "cp -r '%s' '%s/%ld'", prefix, snapshots, number);
  inside = 1;
  if (system(command)) abort();
  inside = 0;
}

#define REAL(name) \
  static __typeof__(&name) real; \
  if (!real) real = (__typeof__(&name))dlsym(RTLD_NEXT, #name)
#define ASK_AT(call, folder, path, changes, failed) \
  char p[PATH_MAX] = ""; \
  if (watching()) { \
    name_at(folder, path, p); \
    if (fate(call, p, changes)) return failed; \
  }
#define ASK_FD(call, fd, changes, failed) \
  if (watching()) { \
    char p[PATH_MAX]; \
    name_of(fd, p); \
    if (fate(call, p, changes)) return failed; \
  }

#define ALTERS(flags) (((flags) & (O_CREAT | O_TRUNC)) != 0)
#define OPENS(name, folder, params, ...) \
  int name params { \
    REAL(name); \
    mode_t mode = 0; \
    if (flags & (O_CREAT | O_TMPFILE)) { \
      va_list rest; \
      va_start(rest, flags); \
      mode = va_arg(rest, int); \
      va_end(rest); \
    } \
    ASK_AT(OPEN, folder, path, ALTERS(flags), -1) \
    int fd = real(__VA_ARGS__); \
    if (fd >= 0 && p[0] && ALTERS(flags)) logged(flags & O_TRUNC ? "empty" : "make", inode_of(fd), p, NULL); \
    return fd; \
  }
OPENS(open, AT_FDCWD, (const char *path, int flags, ...), path, flags, mode)
OPENS(open64, AT_FDCWD, (const char *path, int flags, ...), path, flags, mode)
OPENS(openat, folder, (int folder, const char *path, int flags, ...), folder, path, flags, mode)
OPENS(openat64, folder, (int folder, const char *path, int flags, ...), folder, path, flags, mode)
int __open_2(const char *path, int flags) { return open(path, flags); }
int __open64_2(const char *path, int flags) { return open64(path, flags); }
#define FOPENS(name) \
  FILE *name(const char *path, const char *mode) { \
    REAL(name); \
    ASK_AT(OPEN, AT_FDCWD, path, mode[0] != 'r', NULL) \
    FILE *file = real(path, mode); \
    if (file && p[0] && mode[0] != 'r') logged(mode[0] == 'w' ? "empty" : "make", inode_of(fileno(file)), p, NULL); \
    return file; \
  }
FOPENS(fopen)
FOPENS(fopen64)

#define READS(name, params, ...) \
  ssize_t name params { \
    REAL(name); \
    ASK_FD(READ, fd, 0, -1) \
    return real(__VA_ARGS__); \
  }
READS(read, (int fd, void *b, size_t n), fd, b, n)
READS(pread, (int fd, void *b, size_t n, off_t at), fd, b, n, at)
READS(pread64, (int fd, void *b, size_t n, off64_t at), fd, b, n, at)
READS(readv, (int fd, const struct iovec *v, int n), fd, v, n)
ssize_t __read_chk(int fd, void *b, size_t n, size_t most) { (void)most; return read(fd, b, n); }
ssize_t __pread64_chk(int fd, void *b, size_t n, off64_t at, size_t most) { (void)most; return pread64(fd, b, n, at); }
// A write that is cut short does half of what was asked for.
#define WRITES(name, params, half, ...) \
  ssize_t name params { \
    REAL(name); \
    if (watching()) { \
      char p[PATH_MAX]; \
      name_of(fd, p); \
      int how = fate(WRITE, p, 1); \
      if (how == FAILS) return -1; \
      if (how == CUT && n > 1) half; \
    } \
    return real(__VA_ARGS__); \
  }
WRITES(write, (int fd, const void *b, size_t n), n /= 2, fd, b, n)
WRITES(pwrite, (int fd, const void *b, size_t n, off_t at), n /= 2, fd, b, n, at)
WRITES(pwrite64, (int fd, const void *b, size_t n, off64_t at), n /= 2, fd, b, n, at)
WRITES(writev, (int fd, const struct iovec *v, int n), n /= 2, fd, v, n)
WRITES(sendfile, (int fd, int in, off_t *at, size_t n), n /= 2, fd, in, at, n)
WRITES(sendfile64, (int fd, int in, off64_t *at, size_t n), n /= 2, fd, in, at, n)
WRITES(copy_file_range, (int in, off64_t *i, int fd, off64_t *o, size_t n, unsigned f), n /= 2, in, i, fd, o, n, f)

#define SYNCS(name) \
  int name(int fd) { \
    REAL(name); \
    ASK_FD(FSYNC, fd, 0, -1) \
    int done = real(fd); \
    if (!done) synced(fd); \
    return done; \
  }
SYNCS(fsync)
SYNCS(fdatasync)
void sync(void) {
  REAL(sync);
  real();
  synced_all();
}
int syncfs(int fd) {
  REAL(syncfs);
  ASK_FD(FSYNC, fd, 0, -1)
  int done = real(fd);
  if (!done) synced_all();
  return done;
}
int msync(void *a, size_t n, int flags) {
  REAL(msync);
  if (watching() && fate(FSYNC, prefix, 0)) return -1;
  return real(a, n, flags);
}

// Calls with one name, and with two.
#define NAMED(name, call, word, params, folder, path, ...) \
  int name params { \
    REAL(name); \
    ASK_AT(call, folder, path, 1, -1) \
    int done = real(__VA_ARGS__); \
    if (!done && p[0]) logged(word, 0, p, NULL); \
    return done; \
  }
NAMED(mkdir, MKDIR, "make-folder", (const char *a, mode_t m), AT_FDCWD, a, a, m)
NAMED(mkdirat, MKDIR, "make-folder", (int d, const char *a, mode_t m), d, a, d, a, m)
NAMED(unlink, UNLINK, "remove", (const char *a), AT_FDCWD, a, a)
NAMED(unlinkat, UNLINK, "remove", (int d, const char *a, int f), d, a, d, a, f)
NAMED(rmdir, UNLINK, "remove", (const char *a), AT_FDCWD, a, a)
NAMED(truncate, TRUNCATE, "cut", (const char *a, off_t n), AT_FDCWD, a, a, n)
NAMED(truncate64, TRUNCATE, "cut", (const char *a, off64_t n), AT_FDCWD, a, a, n)
#define TWO_NAMES(name, call, word, params, from, a, to, b, ...) \
  int name params { \
    REAL(name); \
    char old[PATH_MAX] = ""; \
    if (watching()) name_at(from, a, old); \
    ASK_AT(call, to, b, 1, -1) \
    int done = real(__VA_ARGS__); \
    if (!done && p[0]) logged(word, 0, old, p); \
    return done; \
  }
TWO_NAMES(rename, RENAME, "rename", (const char *a, const char *b), AT_FDCWD, a, AT_FDCWD, b, a, b)
TWO_NAMES(renameat, RENAME, "rename", (int d, const char *a, int e, const char *b), d, a, e, b, d, a, e, b)
TWO_NAMES(renameat2, RENAME, "rename", (int d, const char *a, int e, const char *b, unsigned f), d, a, e, b, d, a, e, b, f)
TWO_NAMES(link, LINK, "link", (const char *a, const char *b), AT_FDCWD, a, AT_FDCWD, b, a, b)
TWO_NAMES(linkat, LINK, "link", (int d, const char *a, int e, const char *b, int f), d, a, e, b, d, a, e, b, f)

#define SIZES(name, params, ...) \
  int name params { \
    REAL(name); \
    ASK_FD(TRUNCATE, fd, 1, -1) \
    return real(__VA_ARGS__); \
  }
SIZES(ftruncate, (int fd, off_t n), fd, n)
SIZES(ftruncate64, (int fd, off64_t n), fd, n)
SIZES(fallocate, (int fd, int m, off_t a, off_t n), fd, m, a, n)
SIZES(fallocate64, (int fd, int m, off64_t a, off64_t n), fd, m, a, n)
int posix_fallocate(int fd, off_t a, off_t n) {  // the one that returns its error
  REAL(posix_fallocate);
  ASK_FD(TRUNCATE, fd, 1, armed_error)
  return real(fd, a, n);
}
int posix_fallocate64(int fd, off64_t a, off64_t n) {
  REAL(posix_fallocate64);
  ASK_FD(TRUNCATE, fd, 1, armed_error)
  return real(fd, a, n);
}
int close(int fd) {
  REAL(close);
  char p[PATH_MAX];
  int failed = 0, flags = watching() ? fcntl(fd, F_GETFL) : -1;
  if (flags >= 0 && (flags & O_ACCMODE) != O_RDONLY) {  // no file system fails to close what was only read
    name_of(fd, p);
    failed = fate(CLOSE, p, 0);
  }
  int error = errno, done = real(fd);  // Linux closes it all the same
  if (!failed) return done;
  errno = error;
  return -1;
}

#define LOOKS(name, params, folder, path, ...) \
  int name params { \
    REAL(name); \
    ASK_AT(STAT, folder, path, 0, -1) \
    return real(__VA_ARGS__); \
  }
LOOKS(stat, (const char *a, struct stat *s), AT_FDCWD, a, a, s)
LOOKS(stat64, (const char *a, struct stat64 *s), AT_FDCWD, a, a, s)
LOOKS(lstat, (const char *a, struct stat *s), AT_FDCWD, a, a, s)
LOOKS(lstat64, (const char *a, struct stat64 *s), AT_FDCWD, a, a, s)
LOOKS(fstatat, (int d, const char *a, struct stat *s, int f), d, a, d, a, s, f)
LOOKS(fstatat64, (int d, const char *a, struct stat64 *s, int f), d, a, d, a, s, f)
LOOKS(statx, (int d, const char *a, int f, unsigned m, struct statx *s), d, a, d, a, f, m, s)
LOOKS(access, (const char *a, int m), AT_FDCWD, a, a, m)
DIR *opendir(const char *a) {
  REAL(opendir);
  ASK_AT(LIST, AT_FDCWD, a, 0, NULL)
  return real(a);
}
struct dirent *readdir(DIR *d) {
  REAL(readdir);
  ASK_FD(LIST, dirfd(d), 0, NULL)
  return real(d);
}
struct dirent64 *readdir64(DIR *d) {
  REAL(readdir64);
  ASK_FD(LIST, dirfd(d), 0, NULL)
  return real(d);
}
#define MAPS(name, offset) \
  void *name(void *a, size_t n, int protection, int flags, int fd, offset at) { \
    REAL(name); \
    if (fd >= 0) ASK_FD(MMAP, fd, 0, MAP_FAILED) \
    return real(a, n, protection, flags, fd, at); \
  }
MAPS(mmap, off_t)
MAPS(mmap64, off64_t)
int connect(int fd, const struct sockaddr *address, socklen_t length) {
  REAL(connect);
  if (watching() && (address->sa_family == AF_INET || address->sa_family == AF_INET6) && fate(CONNECT, "network", 0)) return -1;
  return real(fd, address, length);
}
