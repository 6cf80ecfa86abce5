/*
 * disk_full.c: a disk that is full after so many bytes, for a server that this library is preloaded into (LD_PRELOAD).
 *
 * Files may grow until their growth reaches a limit; then what would make one grow fails with ENOSPC, while bytes inside a
 * file can be rewritten, as on a real disk. The file that $DISK_FULL names holds three 64-bit integers in the machine's
 * order: bytes grown so far, which the test reads; the limit, which it sets; and which files count: 0 all on that file's
 * device, 1 the WAL alone, 2 all but the WAL.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

static struct Disk
{
	_Atomic int64_t grown;
	_Atomic int64_t limit;
	_Atomic int64_t part;
}		   *disk;				/* shared by all processes; NULL = no limit */
static dev_t device;

__attribute__((constructor)) static void
attach(void)
{
	const char *path = getenv("DISK_FULL");
	int			fd = path != NULL ? open(path, O_RDWR) : -1;
	struct stat status;
	void	   *map;

	if (fd < 0 || fstat(fd, &status) < 0)
		return;
	device = status.st_dev;
	map = mmap(NULL, sizeof(struct Disk), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (map != MAP_FAILED)
		disk = map;
	close(fd);
}

static int
is_wal(int fd)
{
	char		link[32];
	char		path[4096] = "";

	snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
	return readlink(link, path, sizeof(path) - 1) > 0 && strstr(path, "/pg_wal/") != NULL;
}

/* May the file reach to end? Standard streams may always grow: the log tells what happened. */
static int
admit(int fd, int64_t end)
{
	struct stat status;
	int64_t		more;

	if (disk == NULL || fd <= STDERR_FILENO || fstat(fd, &status) < 0 || !S_ISREG(status.st_mode) || status.st_dev != device)
		return 1;
	more = end - status.st_size;
	if (more <= 0 || (disk->part != 0 && is_wal(fd) != (disk->part == 1)))
		return 1;
	if (atomic_fetch_add(&disk->grown, more) + more <= disk->limit)
		return 1;
	atomic_fetch_sub(&disk->grown, more);
	errno = ENOSPC;
	return 0;
}

static int64_t
length_of(const struct iovec *parts, int count)
{
	int64_t		length = 0;

	while (count-- > 0)
		length += parts[count].iov_len;
	return length;
}

static int64_t
position_of(int fd)
{
	struct stat status;

	if ((fcntl(fd, F_GETFL) & O_APPEND) != 0 && fstat(fd, &status) == 0)
		return status.st_size;
	return lseek(fd, 0, SEEK_CUR);
}

/* Defines a function of the C library over again: refused if the file may not reach to end, else passed on. */
#define GUARDED(type, name, parameters, arguments, end, refused) \
	type name parameters \
	{ \
		static type (*next) parameters; \
		if (next == NULL) \
			next = (type (*) parameters) dlsym(RTLD_NEXT, #name); \
		return admit(fd, end) ? next arguments : (refused); \
	}

GUARDED(ssize_t, write, (int fd, const void *data, size_t size), (fd, data, size), position_of(fd) + (int64_t) size, -1)
GUARDED(ssize_t, pwrite, (int fd, const void *data, size_t size, off_t at), (fd, data, size, at), at + (int64_t) size, -1)
GUARDED(ssize_t, pwrite64, (int fd, const void *data, size_t size, off64_t at), (fd, data, size, at), at + (int64_t) size, -1)
GUARDED(ssize_t, pwritev, (int fd, const struct iovec *parts, int count, off_t at), (fd, parts, count, at),
		at + length_of(parts, count), -1)
GUARDED(ssize_t, pwritev64, (int fd, const struct iovec *parts, int count, off64_t at), (fd, parts, count, at),
		at + length_of(parts, count), -1)
GUARDED(int, posix_fallocate, (int fd, off_t at, off_t size), (fd, at, size), at + size, ENOSPC)
GUARDED(int, posix_fallocate64, (int fd, off64_t at, off64_t size), (fd, at, size), at + size, ENOSPC)
