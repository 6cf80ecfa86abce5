/*
 * decimal.c: JSON number text -> exact decimal, without computing anything.
 *
 * A number is digits and an exponent; every digit has a weight (10^weight). All answers are read off the weights, so
 * 1e131071 costs nothing until it is printed, and nothing here can round.
 */
#include "decimal.h"

#include <string.h>

/* numeric: at most this many digits after the point (NUMERIC_DSCALE_MAX) ... */
#define MAX_SCALE 16383
/* ... and the first digit at most here: weight 32767 in base 10000 (int16) */
#define MAX_FIRST (32767 * 4 + 3)
/* numeric input refuses exponents from here on, whatever the digits (INT_MAX / 2) */
#define MAX_EXPONENT (INT32_MAX / 2)

static size_t
count_digits(const char *text, size_t length)
{
	size_t		n = 0;

	while (n < length && text[n] >= '0' && text[n] <= '9')
		n++;
	return n;
}

/* Reads "e+12" at text; false if it is not an exponent that spans all of it. Huge ones saturate. */
static bool
read_exponent(const char *text, size_t length, int64_t *exponent)
{
	bool		negative = false;
	size_t		at = 1;

	if (at < length && (text[at] == '+' || text[at] == '-'))
		negative = text[at++] == '-';
	if (at == length || count_digits(text + at, length - at) != length - at)
		return false;
	*exponent = 0;
	for (; at < length; at++)
		if (*exponent <= MAX_EXPONENT)
			*exponent = *exponent * 10 + (text[at] - '0');
	if (negative)
		*exponent = -*exponent;
	return true;
}

/* The digit at a weight, '0' outside of what was written. */
static char
digit_at(const Decimal *decimal, int64_t weight)
{
	int64_t		index = (int64_t) decimal->whole_digits - 1 + decimal->exponent - weight;

	if (index < 0 || index >= (int64_t) (decimal->whole_digits + decimal->fraction_digits))
		return '0';
	return decimal->digits[index < (int64_t) decimal->whole_digits ? index : index + 1];
}

/* Finds the weights of the first and last digits that are not zero. */
static void
find_significant(Decimal *decimal)
{
	int64_t		highest = (int64_t) decimal->whole_digits - 1 + decimal->exponent;
	int64_t		lowest = decimal->exponent - (int64_t) decimal->fraction_digits;

	decimal->first = highest;
	decimal->last = lowest;
	while (decimal->first >= lowest && digit_at(decimal, decimal->first) == '0')
		decimal->first--;
	decimal->zero = decimal->first < lowest;
	if (decimal->zero)
	{
		decimal->first = decimal->last = 0;
		decimal->negative = false;
		return;
	}
	while (digit_at(decimal, decimal->last) == '0')
		decimal->last++;
}

DecimalStatus
dwh_decimal_read(const char *text, size_t length, Decimal *decimal)
{
	size_t		at = 0;

	memset(decimal, 0, sizeof(*decimal));
	if (length > 0 && text[0] == '-')
	{
		decimal->negative = true;
		at++;
	}
	decimal->digits = text + at;
	decimal->whole_digits = count_digits(text + at, length - at);
	if (decimal->whole_digits == 0 || (decimal->whole_digits > 1 && text[at] == '0'))
		return DECIMAL_NOT_A_NUMBER;
	at += decimal->whole_digits;
	if (at < length && text[at] == '.')
	{
		decimal->fraction_digits = count_digits(text + at + 1, length - at - 1);
		if (decimal->fraction_digits == 0)
			return DECIMAL_NOT_A_NUMBER;
		at += 1 + decimal->fraction_digits;
	}
	if (at < length && ((text[at] != 'e' && text[at] != 'E') ||
						!read_exponent(text + at, length - at, &decimal->exponent)))
		return DECIMAL_NOT_A_NUMBER;

	if (decimal->exponent >= MAX_EXPONENT || decimal->exponent <= -MAX_EXPONENT)
		return DECIMAL_OVERFLOW;
	find_significant(decimal);
	decimal->scale = (int64_t) decimal->fraction_digits - decimal->exponent;
	if (decimal->scale < 0)
		decimal->scale = 0;
	if (decimal->scale > MAX_SCALE || decimal->first > MAX_FIRST)
		return DECIMAL_OVERFLOW;
	return DECIMAL_OK;
}

void
dwh_decimal_print(const Decimal *decimal, bool trimmed, ByteBuffer *out)
{
	int64_t		from = decimal->first > 0 ? decimal->first : 0;
	int64_t		to = -decimal->scale;
	char	   *target;

	if (trimmed)
		to = decimal->last < 0 ? decimal->last : 0;
	target = dwh_buffer_reserve(out, (size_t) (from - to) + 3);
	if (decimal->negative)
		*target++ = '-';
	for (int64_t weight = from; weight >= to; weight--)
	{
		if (weight == -1)
			*target++ = '.';
		*target++ = digit_at(decimal, weight);
	}
	out->length = target - out->data;
}

bool
dwh_decimal_integer(const Decimal *decimal, int max_digits, int64_t *value)
{
	if (decimal->last < 0 || decimal->first >= max_digits)
		return false;
	*value = 0;
	for (int64_t weight = decimal->first; weight >= 0; weight--)
		*value = *value * 10 + (digit_at(decimal, weight) - '0');
	if (decimal->negative)
		*value = -*value;
	return true;
}
