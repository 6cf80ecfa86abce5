/*
 * rfc3339.h: timestamp text <-> microseconds.
 *
 * Bytes floor: no server header, no time zone database, no clock. Times are microseconds since 2000-01-01 00:00 UTC,
 * PostgreSQL's timestamptz.
 */
#ifndef DWH_RFC3339_H
#define DWH_RFC3339_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "buffer.h"

/*
 * Reads the whole text as RFC 3339 date-time with a zone: T, t or a blank between date and time; Z, z or an offset to
 * +-15:59; second 60 is the first of the next minute; no 24:00; digits past microseconds are cut off.
 */
extern bool dwh_rfc3339_read(const char *text, size_t length, int64_t *time);

/* Appends the time in UTC: 2025-01-10T12:30:15Z, with six digits of fraction if micros is set. */
extern void dwh_rfc3339_print(int64_t time, bool micros, ByteBuffer *out);

#endif
