/*
 * parser.c: the thread that parses ahead.
 *
 *     backend: source.c --bytes--> [thread: digest.c, lines.c, batch.c] --parsed lines--> backend: line_sink.c, writer.c
 *
 * Two blocks of bytes and two batches go round; each belongs to one side at a time, and one mutex guards whose turn it is.
 * While the backend writes one batch, the thread fills the other.
 *
 * Invariants:
 *  (1) Blocks and batches are handed over in the order of the content.
 *  (2) After a batch with a long line nothing is parsed until it is given back: one such text is in memory at a time.
 *  (3) The thread never waits for anything but the backend, and while it waits it can be told to stop.
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "parser.h"

#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define BLOCK_BYTES (256 * 1024)
#define SLOTS 2

struct Parser
{
	pthread_t	thread;
	pthread_mutex_t mutex;
	pthread_cond_t to_thread;
	pthread_cond_t to_backend;

	/* guarded by the mutex */
	uint64_t	fed;			/* blocks that the backend has filled */
	uint64_t	eaten;			/* blocks that the thread is done with */
	uint64_t	parsed;			/* batches that the thread has filled */
	uint64_t	taken;			/* batches that the backend has begun to use */
	uint64_t	returned;		/* batches that the backend is done with */
	bool		at_end;			/* the last block was fed */
	bool		stopping;
	ParserNews	outcome;		/* PARSER_NO_NEWS while it runs */

	/* the thread's */
	jmp_buf		leave;
	RunningDigest *digest;
	uint64_t	offset;
	size_t		max_line_bytes;
	LineReader	reader;
	size_t		block_used;		/* of the block being eaten */
	yyjson_alc	alc;
	FlatShapes	shapes;

	/* whose turn it is */
	size_t		block_length[SLOTS];
	char		blocks[SLOTS][BLOCK_BYTES];
	LineBatch	batches[SLOTS];
};

/* ---- the thread's side ---- */

static void
leave(Parser *parser, ParserNews outcome)
{
	pthread_mutex_lock(&parser->mutex);
	parser->outcome = outcome;
	pthread_mutex_unlock(&parser->mutex);
	longjmp(parser->leave, 1);
}

static void *
thread_malloc(void *parser, size_t size)
{
	void	   *result = malloc(size);

	if (result == NULL)
		leave(parser, PARSER_OUT_OF_MEMORY);
	return result;
}

static void *
thread_realloc(void *parser, void *pointer, size_t old_size, size_t size)
{
	void	   *result = realloc(pointer, size);

	if (result == NULL)
		leave(parser, PARSER_OUT_OF_MEMORY);
	return result;
}

static void
thread_free(void *parser, void *pointer)
{
	free(pointer);
}

/* The ReadBytes callback of the thread's reader: waits for the backend's next block. */
static size_t
read_block(void *argument, char *target, size_t size)
{
	Parser	   *parser = argument;
	bool		stopping;
	size_t		left;
	int			slot;

	pthread_mutex_lock(&parser->mutex);
	while (parser->eaten == parser->fed && !parser->at_end && !parser->stopping)
		pthread_cond_wait(&parser->to_thread, &parser->mutex);
	stopping = parser->stopping;
	slot = (int) (parser->eaten % SLOTS);
	left = parser->eaten == parser->fed ? 0 : parser->block_length[slot] - parser->block_used;
	pthread_mutex_unlock(&parser->mutex);
	if (stopping)
		longjmp(parser->leave, 1);
	if (size > left)
		size = left;
	memcpy(target, parser->blocks[slot] + parser->block_used, size);
	if (!dwh_digest_add(parser->digest, target, size))
		leave(parser, PARSER_DIGEST_FAILED);
	parser->block_used += size;
	if (size > 0 && size == left)
	{
		pthread_mutex_lock(&parser->mutex);
		parser->eaten++;
		parser->block_used = 0;
		pthread_cond_signal(&parser->to_backend);
		pthread_mutex_unlock(&parser->mutex);
	}
	return size;
}

/* Waits for a batch to fill; false when told to stop. alone: the last one must have been given back. */
static bool
wait_for_batch(Parser *parser, bool alone)
{
	uint64_t	allowed = alone ? 0 : SLOTS - 1;
	bool		stopping;

	pthread_mutex_lock(&parser->mutex);
	while (parser->parsed - parser->returned > allowed && !parser->stopping)
		pthread_cond_wait(&parser->to_thread, &parser->mutex);
	stopping = parser->stopping;
	pthread_mutex_unlock(&parser->mutex);
	return !stopping;
}

static void
hand_over(Parser *parser)
{
	pthread_mutex_lock(&parser->mutex);
	parser->parsed++;
	pthread_cond_signal(&parser->to_backend);
	pthread_mutex_unlock(&parser->mutex);
}

static void *
run(void *argument)
{
	Parser	   *parser = argument;

	if (setjmp(parser->leave) == 0)
	{
		bool		alone = false;

		dwh_lines_init(&parser->reader, read_block, parser, parser->offset, parser->max_line_bytes, &parser->alc);
		while (wait_for_batch(parser, alone))
		{
			LineBatch  *batch = &parser->batches[parser->parsed % SLOTS];

			if (!dwh_batch_fill(batch, &parser->reader))
				leave(parser, PARSER_DONE);
			alone = dwh_batch_is_long(batch);
			hand_over(parser);
		}
	}
	pthread_mutex_lock(&parser->mutex);
	pthread_cond_signal(&parser->to_backend);
	pthread_mutex_unlock(&parser->mutex);
	return NULL;
}

/* ---- the backend's side ---- */

/* Starts the thread with all signals blocked. */
static bool
start_thread(Parser *parser)
{
	sigset_t	all,
				before;
	int			result;

	sigfillset(&all);
	if (pthread_sigmask(SIG_SETMASK, &all, &before) != 0)
		return false;
	result = pthread_create(&parser->thread, NULL, run, parser);
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	return result == 0;
}

static void
init_conditions(Parser *parser)
{
	pthread_condattr_t monotonic;

	pthread_condattr_init(&monotonic);
	pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
	pthread_mutex_init(&parser->mutex, NULL);
	pthread_cond_init(&parser->to_thread, NULL);
	pthread_cond_init(&parser->to_backend, &monotonic);
	pthread_condattr_destroy(&monotonic);
}

static void
destroy(Parser *parser)
{
	pthread_cond_destroy(&parser->to_backend);
	pthread_cond_destroy(&parser->to_thread);
	pthread_mutex_destroy(&parser->mutex);
	free(parser);
}

Parser *
dwh_parser_start(RunningDigest *digest, uint64_t offset, size_t max_line_bytes, LineRules rules)
{
	Parser	   *parser = calloc(1, sizeof(Parser));

	if (parser == NULL)
		return NULL;
	parser->outcome = PARSER_NO_NEWS;
	parser->digest = digest;
	parser->alc = (yyjson_alc) {thread_malloc, thread_realloc, thread_free, parser};
	parser->offset = offset;
	parser->max_line_bytes = max_line_bytes;
	for (int i = 0; i < SLOTS; i++)
		dwh_batch_init(&parser->batches[i], rules, &parser->shapes, &parser->alc);
	init_conditions(parser);
	if (start_thread(parser))
		return parser;
	destroy(parser);
	return NULL;
}

/* What there is to do; called with the mutex held. */
static ParserNews
news(const Parser *parser)
{
	if (parser->parsed > parser->taken)
		return PARSER_HAS_BATCH;
	if (parser->outcome != PARSER_NO_NEWS)
		return parser->outcome;
	if (parser->fed - parser->eaten < SLOTS && !parser->at_end)
		return PARSER_WANTS_BYTES;
	return PARSER_NO_NEWS;
}

/* Gives the batch in use back: the thread may be waiting for it. Called with the mutex held. */
static void
return_batch(Parser *parser)
{
	parser->returned = parser->taken;
	pthread_cond_signal(&parser->to_thread);
}

ParserNews
dwh_parser_wait(Parser *parser, int milliseconds)
{
	struct timespec until;
	ParserNews	result;

	clock_gettime(CLOCK_MONOTONIC, &until);
	until.tv_sec += milliseconds / 1000;
	until.tv_nsec += milliseconds % 1000 * 1000000L;
	if (until.tv_nsec >= 1000000000L)
	{
		until.tv_sec++;
		until.tv_nsec -= 1000000000L;
	}
	pthread_mutex_lock(&parser->mutex);
	return_batch(parser);
	while ((result = news(parser)) == PARSER_NO_NEWS &&
		   pthread_cond_timedwait(&parser->to_backend, &parser->mutex, &until) == 0)
		;
	pthread_mutex_unlock(&parser->mutex);
	return result;
}

char *
dwh_parser_room(Parser *parser, size_t *size)
{
	*size = BLOCK_BYTES;
	return parser->blocks[parser->fed % SLOTS];
}

void
dwh_parser_feed(Parser *parser, size_t length)
{
	pthread_mutex_lock(&parser->mutex);
	if (length == 0)
		parser->at_end = true;
	else
		parser->block_length[parser->fed++ % SLOTS] = length;
	pthread_cond_signal(&parser->to_thread);
	pthread_mutex_unlock(&parser->mutex);
}

LineBatch *
dwh_parser_batch(Parser *parser)
{
	LineBatch  *batch;

	pthread_mutex_lock(&parser->mutex);
	batch = &parser->batches[parser->taken++ % SLOTS];
	pthread_mutex_unlock(&parser->mutex);
	return batch;
}

void
dwh_parser_free(Parser *parser)
{
	pthread_mutex_lock(&parser->mutex);
	parser->stopping = true;
	pthread_cond_signal(&parser->to_thread);
	pthread_mutex_unlock(&parser->mutex);
	pthread_join(parser->thread, NULL);
	for (int i = 0; i < SLOTS; i++)
		dwh_batch_release(&parser->batches[i]);
	free(parser->reader.buffer.data);
	destroy(parser);
}
