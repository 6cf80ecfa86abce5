/*
 * reject.h: why a line or an event cannot become a fact.
 *
 * Words floor: the classes of DESIGN "Lines" and their names, used by every floor above. A reject is data, never an
 * error: the bytes floor returns a Verdict and the row floor keeps it in ops.rejects.
 */
#ifndef DWH_REJECT_H
#define DWH_REJECT_H

typedef enum RejectClass
{
	REJECT_NONE = 0,
	/* when loading: the line is not what ::jsonb accepts, or not an object, or beyond a limit */
	REJECT_TOO_LONG,
	REJECT_TOO_DEEP,
	REJECT_INVALID_UTF8,
	REJECT_NUL_ESCAPE,
	REJECT_LONE_SURROGATE,
	REJECT_INVALID_JSON,
	REJECT_NOT_OBJECT,
	REJECT_DUPLICATE_KEY,		/* only where the setting refuses it */
	/* when staging: the object is not an event of the model */
	REJECT_MISSING_FIELD,
	REJECT_WRONG_TYPE,
	REJECT_INVALID_TIME,
	REJECT_FUTURE_EVENT,
	REJECT_OUT_OF_RANGE
} RejectClass;

/* The verdict on one line or event. message: a sentence in UTF-8, NUL-terminated, empty when the class is REJECT_NONE. */
typedef struct Verdict
{
	RejectClass class;
	char		message[160];
} Verdict;

/* The name of a class as it stands in ops.rejects.class; NULL for REJECT_NONE. Static memory. */
extern const char *dwh_reject_class_name(RejectClass class);

/* Fills a verdict, printf-like; the message is cut at a character boundary. Returns false, so callers can return it. */
extern int	dwh_reject(Verdict *verdict, RejectClass class, const char *format,...)
			__attribute__((format(printf, 3, 4)));

#endif
