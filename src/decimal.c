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
int64_t		dwh_decimal_max_exponent = INT32_MAX / 2;

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
		if (*exponent <= dwh_decimal_max_exponent)
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

	if (decimal->exponent > dwh_decimal_max_exponent || decimal->exponent < -dwh_decimal_max_exponent)
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

/* numeric.c: header of the short form, and what fits into it */
#define SHORT_FORM 0x8000
#define SHORT_NEGATIVE 0x2000
#define SHORT_SCALE_SHIFT 7
#define SHORT_SCALE_MAX 63
#define SHORT_WEIGHT_MIN (-64)
#define SHORT_WEIGHT_MAX 63
#define SHORT_WEIGHT_MASK 0x7F
#define BASE_DIGITS 4			/* decimal digits of one digit in base 10000 */

/* Writes header and digits, both of two bytes each in the machine's order. */
static size_t
pack(bool negative, int64_t scale, int64_t weight, const int16_t *digits, size_t count, char *target)
{
	uint16_t	header = (uint16_t) (SHORT_FORM | (negative ? SHORT_NEGATIVE : 0) | scale << SHORT_SCALE_SHIFT |
									 (weight & SHORT_WEIGHT_MASK));

	memcpy(target, &header, sizeof(header));
	memcpy(target + sizeof(header), digits, count * sizeof(int16_t));
	return sizeof(header) + count * sizeof(int16_t);
}

/* The weight in base 10000 of the digit that holds a decimal digit. */
static int64_t
base_weight(int64_t weight)
{
	return weight >= 0 ? weight / BASE_DIGITS : -((BASE_DIGITS - 1 - weight) / BASE_DIGITS);
}

static size_t
pack_decimal(const Decimal *decimal, char *target)
{
	static const int16_t powers[BASE_DIGITS] = {1, 10, 100, 1000};
	int16_t		digits[DECIMAL_PACKED_DIGITS] = {0};
	int64_t		highest = base_weight(decimal->first);
	int64_t		count = highest - base_weight(decimal->last) + 1;

	if (decimal->scale > SHORT_SCALE_MAX || highest < SHORT_WEIGHT_MIN || highest > SHORT_WEIGHT_MAX ||
		count > DECIMAL_PACKED_DIGITS)
		return 0;
	if (decimal->zero)
		return pack(false, decimal->scale, 0, digits, 0, target);
	for (int64_t weight = decimal->first; weight >= decimal->last; weight--)
	{
		int64_t		base = base_weight(weight);

		digits[highest - base] += (int16_t) ((digit_at(decimal, weight) - '0') * powers[weight - base * BASE_DIGITS]);
	}
	return pack(decimal->negative, decimal->scale, highest, digits, (size_t) count, target);
}

/* Integers up to so many digits are packed without a Decimal: four base-10000 digits. */
#define PLAIN_DIGITS 16

/* The magnitude of a plain integer; false where the text is none. */
static bool
read_plain_integer(const char *text, size_t length, bool *negative, int64_t *value)
{
	size_t		at = length > 0 && text[0] == '-';

	*negative = at == 1;
	*value = 0;
	if (at == length || length - at > PLAIN_DIGITS || (text[at] == '0' && length - at > 1))
		return false;
	for (; at < length; at++)
	{
		if (text[at] < '0' || text[at] > '9')
			return false;
		*value = *value * 10 + (text[at] - '0');
	}
	return true;
}

static size_t
pack_plain_integer(int64_t value, bool negative, char *target)
{
	int16_t		reversed[PLAIN_DIGITS / BASE_DIGITS] = {0};
	int16_t		digits[PLAIN_DIGITS / BASE_DIGITS];
	int			count = 0;
	int			zeros = 0;

	if (value == 0)
		return pack(false, 0, 0, digits, 0, target);
	for (; value > 0; value /= 10000)
		reversed[count++] = (int16_t) (value % 10000);
	while (reversed[zeros] == 0)
		zeros++;				/* those at the end are not stored */
	for (int i = 0; i < count - zeros; i++)
		digits[i] = reversed[count - 1 - i];
	return pack(negative, 0, count - 1, digits, (size_t) (count - zeros), target);
}

size_t
dwh_decimal_pack(const char *text, size_t length, char *target)
{
	Decimal		decimal;
	bool		negative;
	int64_t		value;

	if (read_plain_integer(text, length, &negative, &value))
		return pack_plain_integer(value, negative, target);
	return dwh_decimal_read(text, length, &decimal) == DECIMAL_OK ? pack_decimal(&decimal, target) : 0;
}
