/*
 * reject.c: names of reject classes, and the one way to fill a verdict.
 */
#include "reject.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

static const char *const class_names[] = {
	[REJECT_NONE] = NULL,
	[REJECT_TOO_LONG] = "too_long",
	[REJECT_TOO_DEEP] = "too_deep",
	[REJECT_INVALID_UTF8] = "invalid_utf8",
	[REJECT_NUL_ESCAPE] = "nul_escape",
	[REJECT_LONE_SURROGATE] = "lone_surrogate",
	[REJECT_INVALID_JSON] = "invalid_json",
	[REJECT_NOT_OBJECT] = "not_object",
	[REJECT_DUPLICATE_KEY] = "duplicate_key",
	[REJECT_MISSING_FIELD] = "missing_field",
	[REJECT_WRONG_TYPE] = "wrong_type",
	[REJECT_INVALID_TIME] = "invalid_time",
	[REJECT_FUTURE_EVENT] = "future_event",
	[REJECT_OUT_OF_RANGE] = "out_of_range",
};

const char *
dwh_reject_class_name(RejectClass class)
{
	return class_names[class];
}

int
dwh_reject(Verdict *verdict, RejectClass class, const char *format,...)
{
	va_list		arguments;
	size_t		length;

	verdict->class = class;
	va_start(arguments, format);
	vsnprintf(verdict->message, sizeof(verdict->message), format, arguments);
	va_end(arguments);

	/* vsnprintf may have cut inside a character: drop trailing continuation bytes and their lead byte */
	length = strlen(verdict->message);
	if (length == sizeof(verdict->message) - 1)
	{
		while (length > 0 && ((unsigned char) verdict->message[length - 1] & 0xC0) == 0x80)
			length--;
		if (length > 0 && (unsigned char) verdict->message[length - 1] >= 0xC0)
			length--;
		verdict->message[length] = '\0';
	}
	return 0;
}
