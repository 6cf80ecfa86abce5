/*
 * rfc3339.c: timestamp text <-> microseconds since 2000-01-01 UTC.
 *
 * Day numbers by the civil calendar arithmetic of Howard Hinnant, "chrono-Compatible Low-Level Date Algorithms"
 * (days_from_civil, civil_from_days), shifted from 1970 to 2000.
 */
#include "rfc3339.h"

#include <string.h>

#define DAYS_1970_TO_2000 10957
#define MICROS_PER_SECOND INT64_C(1000000)
#define MICROS_PER_DAY (86400 * MICROS_PER_SECOND)

static int64_t
days_from_civil(int year, int month, int day)
{
	int			y = month <= 2 ? year - 1 : year;
	int			era = (y >= 0 ? y : y - 399) / 400;
	int			year_of_era = y - era * 400;
	int			day_of_year = (153 * (month + (month > 2 ? -3 : 9)) + 2) / 5 + day - 1;
	int			day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;

	return (int64_t) era * 146097 + day_of_era - 719468 - DAYS_1970_TO_2000;
}

static void
civil_from_days(int64_t days, int *year, int *month, int *day)
{
	int64_t		z = days + 719468 + DAYS_1970_TO_2000;
	int64_t		era = (z >= 0 ? z : z - 146096) / 146097;
	int			day_of_era = (int) (z - era * 146097);
	int			year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36524 - day_of_era / 146096) / 365;
	int			day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
	int			shifted = (5 * day_of_year + 2) / 153;

	*day = day_of_year - (153 * shifted + 2) / 5 + 1;
	*month = shifted < 10 ? shifted + 3 : shifted - 9;
	*year = (int) (year_of_era + era * 400) + (*month <= 2);
}

static int
days_in_month(int year, int month)
{
	static const int days[] = {31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31};
	bool		leap = (year % 4 == 0 && year % 100 != 0) || year % 400 == 0;

	return month == 2 && leap ? 29 : days[month - 1];
}

/* Reads exactly count digits at *text, which moves past them. */
static bool
read_digits(const char **text, const char *end, int count, int *value)
{
	*value = 0;
	for (int i = 0; i < count; i++, (*text)++)
	{
		if (*text == end || **text < '0' || **text > '9')
			return false;
		*value = *value * 10 + (**text - '0');
	}
	return true;
}

static bool
read_char(const char **text, const char *end, const char *allowed)
{
	if (*text == end || **text == '\0' || strchr(allowed, **text) == NULL)
		return false;
	(*text)++;
	return true;
}

static bool
read_date(const char **text, const char *end, int64_t *days)
{
	int			year,
				month,
				day;

	if (!read_digits(text, end, 4, &year) || !read_char(text, end, "-") ||
		!read_digits(text, end, 2, &month) || !read_char(text, end, "-") ||
		!read_digits(text, end, 2, &day))
		return false;
	if (month < 1 || month > 12 || day < 1 || day > days_in_month(year, month))
		return false;
	*days = days_from_civil(year, month, day);
	return true;
}

/* Reads ".123456789" if it stands there; digits past microseconds are read and cut off. */
static bool
read_fraction(const char **text, const char *end, int64_t *micros)
{
	int64_t		unit = MICROS_PER_SECOND;
	const char *start;

	*micros = 0;
	if (!read_char(text, end, "."))
		return true;
	for (start = *text; *text < end && **text >= '0' && **text <= '9'; (*text)++)
	{
		unit /= 10;
		*micros += unit * (**text - '0');
	}
	return *text > start;
}

static bool
read_clock(const char **text, const char *end, int64_t *micros)
{
	int			hour,
				minute,
				second;

	if (!read_digits(text, end, 2, &hour) || !read_char(text, end, ":") ||
		!read_digits(text, end, 2, &minute) || !read_char(text, end, ":") ||
		!read_digits(text, end, 2, &second) || !read_fraction(text, end, micros))
		return false;
	if (hour > 23 || minute > 59 || second > 60)
		return false;
	*micros += ((hour * 60 + minute) * 60 + second) * MICROS_PER_SECOND;
	return true;
}

static bool
read_zone(const char **text, const char *end, int64_t *offset)
{
	int			hour,
				minute;
	bool		negative;

	*offset = 0;
	if (read_char(text, end, "Zz"))
		return true;
	if (!read_char(text, end, "+-"))
		return false;
	negative = (*text)[-1] == '-';
	if (!read_digits(text, end, 2, &hour) || !read_char(text, end, ":") || !read_digits(text, end, 2, &minute))
		return false;
	if (hour > 15 || minute > 59)
		return false;
	*offset = (hour * 60 + minute) * 60 * MICROS_PER_SECOND;
	if (negative)
		*offset = -*offset;
	return true;
}

bool
dwh_rfc3339_read(const char *text, size_t length, int64_t *time)
{
	const char *end = text + length;
	int64_t		days,
				micros,
				offset;

	if (!read_date(&text, end, &days) || !read_char(&text, end, "Tt ") ||
		!read_clock(&text, end, &micros) || !read_zone(&text, end, &offset) || text != end)
		return false;
	*time = days * MICROS_PER_DAY + micros - offset;
	return true;
}

void
dwh_rfc3339_print(int64_t time, bool micros, ByteBuffer *out)
{
	int64_t		days = time / MICROS_PER_DAY;
	int64_t		rest = time % MICROS_PER_DAY;
	int			year,
				month,
				day;

	if (rest < 0)
	{
		rest += MICROS_PER_DAY;
		days--;
	}
	civil_from_days(days, &year, &month, &day);
	dwh_buffer_add_integer(out, year, 4);
	dwh_buffer_add_char(out, '-');
	dwh_buffer_add_integer(out, month, 2);
	dwh_buffer_add_char(out, '-');
	dwh_buffer_add_integer(out, day, 2);
	dwh_buffer_add_char(out, 'T');
	dwh_buffer_add_integer(out, rest / (3600 * MICROS_PER_SECOND), 2);
	dwh_buffer_add_char(out, ':');
	dwh_buffer_add_integer(out, rest / (60 * MICROS_PER_SECOND) % 60, 2);
	dwh_buffer_add_char(out, ':');
	dwh_buffer_add_integer(out, rest / MICROS_PER_SECOND % 60, 2);
	if (micros)
	{
		dwh_buffer_add_char(out, '.');
		dwh_buffer_add_integer(out, rest % MICROS_PER_SECOND, 6);
	}
	dwh_buffer_add_char(out, 'Z');
}
