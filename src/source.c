/*
 * source.c: file -> bytes.
 *
 *     file --[source.c]--> bytes --lines.c--> line --json.c--> object --event.c--> event
 *
 * Two layers: where stored bytes come from (a descriptor or a large object), and what decodes them (nothing, zlib or
 * libzstd, chosen by the first bytes, never by the name). The name of the file is looked up once; everything after that
 * works on the descriptor.
 */
#include "postgres.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zlib.h>
#include <zstd.h>
#include <zstd_errors.h>

#include "catalog/pg_largeobject.h"
#include "libpq/be-fsstubs.h"
#include "libpq/libpq-fs.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/memutils.h"

#include "errcodes.h"
#include "guc.h"
#include "source.h"

/* Stored bytes read at once. */
#define INPUT_BYTES (128 * 1024)

/* Largest zstd window that is decoded, as a power of two: 64 MB, within the promise on private memory. */
#define ZSTD_WINDOW_LOG 26

/* Decompressed bytes from which dwh.max_archive_ratio counts: less is no burden, whatever it was packed into. */
#define RATIO_COUNTS_FROM (INT64CONST(64) * 1024 * 1024)

typedef enum Encoding
{
	ENCODING_UNKNOWN,			/* no byte seen yet */
	ENCODING_PLAIN,
	ENCODING_GZIP,
	ENCODING_ZSTD
} Encoding;

struct Source
{
	char	   *name;
	PermittedPath path;
	int			fd;				/* -1 for a large object */
	int			lo_fd;			/* -1 for a file */
	FileStat	stat;
	int64		stored_size;	/* when opened */
	int64		stored_left;	/* bytes up to that size */

	char	   *input;			/* INPUT_BYTES; [input_next, input_end) wait for the decoder */
	size_t		input_next;
	size_t		input_end;

	Encoding	encoding;
	z_stream	gzip;
	gz_header	gzip_header;	/* of the member at hand */
	bool		gzip_ready;
	ZSTD_DCtx  *zstd;
	bool		at_boundary;	/* between members (gzip) or frames (zstd) */
	bool		any_whole;		/* one of them was whole */
	bool		truncated;
	int64		decoded;		/* bytes of all of them so far */

	MemoryContextCallback release;
};

static void
release_source(void *argument)
{
	Source	   *source = argument;

	if (source->fd >= 0)
		close(source->fd);
	if (source->gzip_ready)
		inflateEnd(&source->gzip);
	ZSTD_freeDCtx(source->zstd);
	source->fd = -1;
	source->gzip_ready = false;
	source->zstd = NULL;
}

static Source *
new_source(char *name)
{
	Source	   *source = palloc0(sizeof(Source));

	source->name = name;
	source->fd = source->lo_fd = -1;
	source->input = palloc(INPUT_BYTES);
	source->at_boundary = true;
	source->release.func = release_source;
	source->release.arg = source;
	MemoryContextRegisterResetCallback(CurrentMemoryContext, &source->release);
	return source;
}

static void
fill_stat(const struct stat *from, FileStat *to)
{
	to->device = (int64) from->st_dev;
	to->inode = (int64) from->st_ino;
	to->size = (int64) from->st_size;
	to->mtime = (int64) from->st_mtim.tv_sec * INT64CONST(1000000000) + from->st_mtim.tv_nsec;
	to->ctime = (int64) from->st_ctim.tv_sec * INT64CONST(1000000000) + from->st_ctim.tv_nsec;
}

bool
dwh_file_stat(const PermittedPath *path, FileStat *status)
{
	struct stat now;

	if ((path->root == NULL ? stat(path->path, &now) : lstat(path->path, &now)) < 0 || !S_ISREG(now.st_mode))
		return false;
	fill_stat(&now, status);
	return true;
}

Source *
dwh_source_open_file(const PermittedPath *path)
{
	Source	   *source = new_source(pstrdup(path->path));
	struct stat now;

	source->path = *path;
	/* O_NONBLOCK: opening a FIFO must not wait for a writer */
	source->fd = dwh_open_permitted(path, O_RDONLY | O_NONBLOCK, 0);
	if (source->fd < 0 || fstat(source->fd, &now) < 0)
		ereport(ERROR,
				(dwh_errcode_for_path(),
				 errmsg("could not open file \"%s\" for reading: %m", path->path),
				 errdetail("The path is read on the server, by the operating system user that runs it."),
				 errhint("Check the path; for a file of the client use \\lo_import and load_jsonl(large_object => ...).")));
	if (!S_ISREG(now.st_mode))
		ereport(ERROR,
				(errcode(ERRCODE_WRONG_OBJECT_TYPE),
				 errmsg("\"%s\" is not a regular file", path->path),
				 errdetail("Directories, FIFOs, sockets and devices are not read as logs."),
				 errhint("Give the path of a file, of a directory that holds .jsonl files, or a pattern.")));
	fill_stat(&now, &source->stat);
	source->stored_size = source->stored_left = source->stat.size;
	return source;
}

static int64
seek_large_object(const Source *source, int64 offset, int whence)
{
	return DatumGetInt64(DirectFunctionCall3(be_lo_lseek64, Int32GetDatum(source->lo_fd), Int64GetDatum(offset),
											 Int32GetDatum(whence)));
}

Source *
dwh_source_open_large_object(Oid large_object)
{
	Source	   *source = new_source(psprintf("large_object:%u", large_object));

	if (!LargeObjectExists(large_object))
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("large object %u does not exist", large_object),
				 errdetail("It is the OID that \\lo_import printed."),
				 errhint("In psql: \\lo_import log.jsonl, then SELECT * FROM dwh.load_jsonl(large_object => :LASTOID).")));
	source->lo_fd = DatumGetInt32(DirectFunctionCall2(be_lo_open, ObjectIdGetDatum(large_object), Int32GetDatum(INV_READ)));
	source->stored_size = source->stored_left = seek_large_object(source, 0, SEEK_END);
	seek_large_object(source, 0, SEEK_SET);
	return source;
}

/* Up to size stored bytes, undecoded; 0 at the end. */
static size_t
read_stored(Source *source, char *target, size_t size)
{
	ssize_t		got;

	CHECK_FOR_INTERRUPTS();
	size = (size_t) Min((int64) size, source->stored_left);
	if (source->lo_fd >= 0)
	{
		got = lo_read(source->lo_fd, target, (int) Min(size, INPUT_BYTES));
		source->stored_left -= got;
		return got;
	}
	if (size == 0)
		return 0;
	do
		got = read(source->fd, target, size);
	while (got < 0 && errno == EINTR);
	if (got < 0)
		ereport(ERROR,
				(dwh_errcode_for_path(),
				 errmsg("could not read file \"%s\": %m", source->name),
				 errdetail("%lld of its %lld bytes were left.", (long long) source->stored_left,
						   (long long) source->stored_size),
				 errhint("Nothing of the file was loaded; load it again.")));
	source->stored_left -= got;
	return got;
}

/* Makes sure that the decoder has input; false at the end. */
static bool
fill_input(Source *source)
{
	if (source->input_next == source->input_end)
	{
		source->input_next = 0;
		source->input_end = read_stored(source, source->input, INPUT_BYTES);
	}
	return source->input_next < source->input_end;
}

/* What the first bytes say; a zstd archive may begin with a frame to be skipped (RFC 8878, 3.1.2; pzstd does). */
static Encoding
encoding_of(const unsigned char *input, size_t length)
{
	static const unsigned char gzip_magic[] = {0x1F, 0x8B};
	static const unsigned char zstd_magic[] = {0x28, 0xB5, 0x2F, 0xFD};
	static const unsigned char skippable_magic[] = {0x2A, 0x4D, 0x18};	/* after any of 0x50 to 0x5F */

	if (length >= 2 && memcmp(input, gzip_magic, 2) == 0)
		return ENCODING_GZIP;
	if (length >= 4 && memcmp(input, zstd_magic, 4) == 0)
		return ENCODING_ZSTD;
	if (length >= 4 && input[0] >> 4 == 5 && memcmp(input + 1, skippable_magic, 3) == 0)
		return ENCODING_ZSTD;
	return ENCODING_PLAIN;
}

static void
out_of_decoder_memory(const Source *source)
{
	ereport(ERROR,
			(errcode(ERRCODE_OUT_OF_MEMORY),
			 errmsg("out of memory"),
			 errdetail("There is none for a decoder of \"%s\".", source->name),
			 errhint("Free memory on the server and load the file again.")));
}

/* Has zlib say when the header of the next member is over. */
static void
expect_member(Source *source)
{
	memset(&source->gzip_header, 0, sizeof(source->gzip_header));
	inflateGetHeader(&source->gzip, &source->gzip_header);
}

static void
start_decoder(Source *source)
{
	source->encoding = encoding_of((const unsigned char *) source->input, source->input_end);
	if (source->encoding == ENCODING_GZIP)
	{
		/* 15 = largest window, + 16 = gzip header and trailer only (zlib.h, inflateInit2) */
		source->gzip_ready = inflateInit2(&source->gzip, 15 + 16) == Z_OK;
		if (!source->gzip_ready)
			out_of_decoder_memory(source);
		expect_member(source);
	}
	else if (source->encoding == ENCODING_ZSTD)
	{
		source->zstd = ZSTD_createDCtx();
		if (source->zstd == NULL)
			out_of_decoder_memory(source);
		ZSTD_DCtx_setParameter(source->zstd, ZSTD_d_windowLogMax, ZSTD_WINDOW_LOG);
	}
}

static void
corrupted(const Source *source, const char *library, const char *reason)
{
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_BINARY_REPRESENTATION),
			 errmsg("compressed file \"%s\" is damaged", source->name),
			 errdetail("%s says: %s.", library, reason),
			 errhint("Nothing of the file was loaded. Fetch it again from where it came from.")));
}

static void
window_too_large(const Source *source)
{
	ereport(ERROR,
			(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
			 errmsg("compressed file \"%s\" needs too much memory", source->name),
			 errdetail("Its zstd window is larger than %d MB.", 1 << (ZSTD_WINDOW_LOG - 20)),
			 errhint("Nothing of the file was loaded. Compress it again without --ultra and with --long=%d at most.",
					 ZSTD_WINDOW_LOG)));
}

/*
 * One step of zlib; bytes written to target. A member may be followed by another; where what follows does not begin as
 * one, the content has ended.
 */
static size_t
step_gzip(Source *source, char *target, size_t size)
{
	z_stream   *gzip = &source->gzip;
	size_t		waiting = source->input_end - source->input_next;
	int			result;

	source->at_boundary = false;
	gzip->next_in = (Bytef *) source->input + source->input_next;
	gzip->avail_in = (uInt) waiting;
	gzip->next_out = (Bytef *) target;
	gzip->avail_out = (uInt) size;
	result = inflate(gzip, Z_NO_FLUSH);
	source->input_next += waiting - gzip->avail_in;
	if (result == Z_STREAM_END)
	{
		inflateReset(gzip);
		expect_member(source);
		source->at_boundary = source->any_whole = true;
	}
	else if (result == Z_DATA_ERROR && source->any_whole && source->gzip_header.done != 1)
		source->truncated = true;
	else if (result == Z_MEM_ERROR)
		out_of_decoder_memory(source);
	else if (result != Z_OK && result != Z_BUF_ERROR)
		corrupted(source, "zlib", gzip->msg ? gzip->msg : zError(result));
	return size - gzip->avail_out;
}

/* What an error of libzstd means; comes back where the content has ended. */
static void
judge_zstd_error(Source *source, size_t result)
{
	switch (ZSTD_getErrorCode(result))
	{
		case ZSTD_error_prefix_unknown:
			if (!source->any_whole)
				break;
			source->truncated = true;
			return;
		case ZSTD_error_frameParameter_windowTooLarge:
			window_too_large(source);
			break;
		case ZSTD_error_memory_allocation:
			out_of_decoder_memory(source);
			break;
		default:
			break;
	}
	corrupted(source, "libzstd", ZSTD_getErrorName(result));
}

/* One step of libzstd, likewise. */
static size_t
step_zstd(Source *source, char *target, size_t size)
{
	ZSTD_inBuffer in = {source->input, source->input_end, source->input_next};
	ZSTD_outBuffer out = {target, size, 0};
	size_t		result = ZSTD_decompressStream(source->zstd, &out, &in);

	if (ZSTD_isError(result))
	{
		judge_zstd_error(source, result);
		return 0;
	}
	source->input_next = in.pos;
	source->at_boundary = result == 0;
	source->any_whole |= result == 0;
	return out.pos;
}

/* Up to size decompressed bytes; 0 at the end. */
static size_t
read_archive(Source *source, char *target, size_t size)
{
	size_t		(*step) (Source *, char *, size_t) = source->encoding == ENCODING_GZIP ? step_gzip : step_zstd;
	size_t		got = 0;

	while (got == 0 && !source->truncated)
	{
		bool		more = fill_input(source);

		/* without input the decoder may still hold output that the last target had no room for */
		if (more || !source->at_boundary)
			got = step(source, target, size);
		if (!more)
		{
			source->truncated |= got == 0 && !source->at_boundary;
			break;
		}
	}
	return got;
}

static void
archive_too_large(const Source *source, const char *setting, const char *allowed)
{
	ereport(ERROR,
			(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
			 errmsg("compressed file \"%s\" holds more than allowed", source->name),
			 errdetail("Its %lld bytes hold at least %lld; %s allows %s.", (long long) source->stored_size,
					   (long long) source->decoded, setting, allowed),
			 errhint("Nothing of the file was loaded. If it is what it should be, raise %s, or set it to 0 for no limit.",
					 setting)));
}

/* Counts what an archive gave, and ends with 54000 where that is more than the settings allow of all its members. */
static void
check_archive(Source *source, size_t got)
{
	int64		size_limit = (int64) dwh_max_archive_size * 1024 * 1024;

	source->decoded += got;
	if (size_limit > 0 && source->decoded > size_limit)
		archive_too_large(source, "dwh.max_archive_size", psprintf("%d MB", dwh_max_archive_size));
	/* a division, so that nothing overflows: decoded > ratio * stored_size */
	if (dwh_max_archive_ratio > 0 && source->decoded > RATIO_COUNTS_FROM &&
		(source->decoded - 1) / dwh_max_archive_ratio >= source->stored_size)
		archive_too_large(source, "dwh.max_archive_ratio", psprintf("%d times as many", dwh_max_archive_ratio));
}

size_t
dwh_source_read(void *argument, char *target, size_t size)
{
	Source	   *source = argument;
	size_t		got;

	CHECK_FOR_INTERRUPTS();
	if (source->encoding == ENCODING_UNKNOWN && fill_input(source))
		start_decoder(source);
	if (source->encoding == ENCODING_GZIP || source->encoding == ENCODING_ZSTD)
	{
		got = read_archive(source, target, size);
		check_archive(source, got);
		return got;
	}
	got = Min(size, source->input_end - source->input_next);
	if (got == 0)
		return read_stored(source, target, size);
	memcpy(target, source->input + source->input_next, got);
	source->input_next += got;
	return got;
}

/* Moves on in stored bytes, behind what was read; how far it got. */
static int64
seek_stored(Source *source, int64 bytes)
{
	bytes = Min(bytes, source->stored_left);
	if (source->lo_fd >= 0)
		seek_large_object(source, bytes, SEEK_CUR);
	else if (lseek(source->fd, bytes, SEEK_CUR) < 0)
		ereport(ERROR,
				(dwh_errcode_for_path(),
				 errmsg("could not go on in file \"%s\": %m", source->name),
				 errdetail("%lld bytes were to be left out.", (long long) bytes),
				 errhint("Check the file system and try again.")));
	source->stored_left -= bytes;
	return bytes;
}

bool
dwh_source_skip(Source *source, int64 bytes)
{
	char	   *buffer = palloc(BLCKSZ);

	if (source->encoding == ENCODING_UNKNOWN && fill_input(source))
		start_decoder(source);
	if (source->encoding == ENCODING_PLAIN)
	{
		size_t		waiting = (size_t) Min(bytes, (int64) (source->input_end - source->input_next));

		source->input_next += waiting;
		return waiting == bytes || seek_stored(source, bytes - waiting) == (int64) (bytes - waiting);
	}
	while (bytes > 0)
	{
		size_t		got = dwh_source_read(source, buffer, (size_t) Min(bytes, BLCKSZ));

		if (got == 0)
			return false;
		bytes -= got;
	}
	return true;
}

void
dwh_source_rewind(Source *source)
{
	if (source->lo_fd >= 0)
		seek_large_object(source, 0, SEEK_SET);
	else if (lseek(source->fd, 0, SEEK_SET) < 0)
		ereport(ERROR,
				(dwh_errcode_for_path(),
				 errmsg("could not rewind file \"%s\": %m", source->name),
				 errdetail("Its content is read twice where its beginning is known."),
				 errhint("Nothing of the file was loaded; load it again.")));
	source->stored_left = source->stored_size;
	source->input_next = source->input_end = 0;
	if (source->gzip_ready)
	{
		inflateReset(&source->gzip);
		expect_member(source);
	}
	if (source->zstd != NULL)
		ZSTD_DCtx_reset(source->zstd, ZSTD_reset_session_only);
	source->at_boundary = true;
	source->any_whole = source->truncated = false;
	source->decoded = 0;
}

bool
dwh_source_is_truncated(const Source *source)
{
	return source->truncated;
}

const FileStat *
dwh_source_stat(const Source *source)
{
	return source->fd >= 0 ? &source->stat : NULL;
}

int64
dwh_source_stored_size(const Source *source)
{
	return source->stored_size;
}

int64
dwh_source_stored_read(const Source *source)
{
	return source->stored_size - source->stored_left;
}

const char *
dwh_source_name(const Source *source)
{
	return source->name;
}

void
dwh_source_verify(const Source *source)
{
	struct stat now;
	FileStat	held,
				named = {0};

	if (source->fd < 0)
		return;
	if (fstat(source->fd, &now) < 0)
		memset(&now, 0, sizeof(now));
	fill_stat(&now, &held);
	if (dwh_file_stat(&source->path, &named) && named.inode == held.inode && named.device == held.device &&
		(held.size > source->stat.size || (held.size == source->stat.size && held.mtime == source->stat.mtime)))
		return;
	ereport(ERROR,
			(errcode(ERRCODE_DWH_SOURCE_CHANGED),
			 errmsg("file \"%s\" changed while it was read", source->name),
			 errdetail("It had inode %lld and %lld bytes when it was opened; the path now has inode %lld and %lld bytes.",
					   (long long) source->stat.inode, (long long) source->stat.size,
					   (long long) named.inode, (long long) named.size),
			 errhint("Nothing of it was loaded. Load it again once its writer has finished.")));
}

void
dwh_source_close(Source *source)
{
	if (source->lo_fd >= 0)
		DirectFunctionCall1(be_lo_close, Int32GetDatum(source->lo_fd));
	source->lo_fd = -1;
	release_source(source);
}
