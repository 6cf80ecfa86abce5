/*
 * stream.c: a realistic stream of events as JSON lines.
 *
 *     options --[stream.c]--> lines --generate_events.c--> file --source.c--> ...
 *
 * Sessions begin at a pace that follows the hour of the day; each goes page_view ... add_to_cart -> purchase. Events of
 * overlapping sessions are merged hour by hour, so memory holds the events of about one hour. A user's device and
 * country and a product's price are functions of seed, key and time: mostly fixed, sometimes changed once.
 *
 * Invariant: clean lines do not depend on faults (those draw from a generator of their own), and there are exactly
 * options.events of them.
 */
#include "stream.h"

#include <stdlib.h>
#include <string.h>

#include "rfc3339.h"

#define SECOND INT64_C(1000000)
#define HOUR (3600 * SECOND)
#define DAY (24 * HOUR)

/* Sessions by hour of the day (UTC), in parts of HOUR_WEIGHT_SUM: quiet at night, a peak in the evening. */
static const int hour_weights[24] = {3, 2, 1, 1, 1, 2, 4, 6, 8, 9, 9, 9, 10, 9, 9, 9, 9, 10, 12, 14, 15, 13, 9, 6};
#define HOUR_WEIGHT_SUM 180

/* Percentages of the generator's behaviour. */
#define ANONYMOUS_PERCENT 2		/* events without event_id, as in the seed's sample */
#define NO_PRODUCT_PERCENT 10	/* page views of no product */
#define CART_PERCENT 14			/* sessions that fill a cart ... */
#define BUY_PERCENT 25			/* ... and of those, that buy: 3.5 % of all sessions convert */
#define DEVICE_CHANGE_PERCENT 10	/* users who change their device once */
#define COUNTRY_CHANGE_PERCENT 3
#define PRICE_CHANGE_PERCENT 5

static const char *const devices[] = {"mobile", "desktop", "tablet"};
static const int device_weights[] = {58, 34, 8};
static const char *const countries[] = {"KR", "US", "JP", "DE", "GB", "BR"};
static const int country_weights[] = {45, 20, 15, 8, 7, 5};
static const char *const categories[] = {
	"electronics", "fashion", "beauty", "home", "sports", "toys", "books", "food", "garden", "pets"
};
static const char *const brands[] = {
	"Acme", "Borealis", "Cobalt", "Dahlia", "Ember", "Fjord", "Granit", "Halo", "Indigo", "Juniper", "Kestrel", "Lumen"
};

typedef enum EventType
{
	PAGE_VIEW,
	ADD_TO_CART,
	PURCHASE
} EventType;

#define BYTE_ORDER_MARK_TEXT "\xEF\xBB\xBF"
#define BYTE_ORDER_MARK_LENGTH 3

static const char *const type_names[] = {"page_view", "add_to_cart", "purchase"};

/* SplitMix64 (Steele, Lea, Flood: Fast Splittable Pseudorandom Number Generators, 2014). */
typedef struct Random
{
	uint64_t	state;
} Random;

static uint64_t
mix(uint64_t z)
{
	z = (z ^ (z >> 30)) * UINT64_C(0xBF58476D1CE4E5B9);
	z = (z ^ (z >> 27)) * UINT64_C(0x94D049BB133111EB);
	return z ^ (z >> 31);
}

static uint64_t
next_random(Random *random)
{
	return mix(random->state += UINT64_C(0x9E3779B97F4A7C15));
}

/* A number below the bound (Lemire's multiplication; its bias is far below what a log shows). */
static int64_t
random_below(Random *random, int64_t bound)
{
	return (int64_t) (((unsigned __int128) next_random(random) * (uint64_t) bound) >> 64);
}

static bool
random_percent(Random *random, int percent)
{
	return random_below(random, 100) < percent;
}

typedef struct Uuid
{
	uint64_t	high,
				low;
} Uuid;

typedef struct StreamEvent
{
	int64_t		time;
	int64_t		order;			/* breaks ties of time */
	int64_t		user;
	int64_t		product;		/* 0 = none */
	Uuid		session;
	Uuid		id;
	EventType	type;
	int			quantity;
	bool		anonymous;		/* no event_id is written */
} StreamEvent;

typedef struct Stream
{
	const StreamOptions *options;
	EmitLine	emit;
	void	   *sink;
	StreamTotals *totals;
	Random		random;
	Random		fault_random;
	int64_t		made;			/* events of all sessions so far */
	StreamEvent *pending;		/* made, not yet emitted */
	int64_t		pending_count;
	int64_t		pending_capacity;
	const yyjson_alc *alc;
	ByteBuffer		line;
	int64_t		faults_due;		/* by now, by the number of events emitted */
	int64_t		faults_done;
	int			turn;			/* kind of the next fault */
	bool		any_in_turn;	/* a chosen kind that is not once */
	bool		marks_order;	/* the next line, the first one, begins with a BOM */
} Stream;

/* A fixed random number of a thing: the same for every event that mentions it. */
static uint64_t
trait(const Stream *stream, char kind, int64_t key)
{
	return mix(mix(stream->options->seed + (uint64_t) kind * UINT64_C(0x9E3779B97F4A7C15)) + (uint64_t) key);
}

static int
weighted(const int *weights, int count, int percent)
{
	int			i = 0;

	while (i < count - 1 && percent >= weights[i])
		percent -= weights[i++];
	return i;
}

/* True if the thing has changed by that time: percent of all things do, once, at a moment of their own. */
static bool
has_changed(const Stream *stream, char kind, int64_t key, int percent, int64_t time)
{
	uint64_t	number = trait(stream, kind, key);
	int64_t		hours = stream->options->days * 24;

	return (int64_t) (number % 100) < percent &&
		time >= stream->options->start_at + (int64_t) ((number >> 32) % (uint64_t) hours) * HOUR;
}

static const char *
device_of(const Stream *stream, int64_t user, int64_t time)
{
	int			device = weighted(device_weights, 3, (int) (trait(stream, 'd', user) % 100));

	return devices[(device + has_changed(stream, 'D', user, DEVICE_CHANGE_PERCENT, time)) % 3];
}

static const char *
country_of(const Stream *stream, int64_t user, int64_t time)
{
	int			country = weighted(country_weights, 6, (int) (trait(stream, 'c', user) % 100));

	return countries[(country + has_changed(stream, 'C', user, COUNTRY_CHANGE_PERCENT, time)) % 6];
}

static int64_t
price_of(const Stream *stream, int64_t product, int64_t time)
{
	int64_t		price = 1000 + (int64_t) (trait(stream, 'p', product) % 1490) * 100;

	return has_changed(stream, 'P', product, PRICE_CHANGE_PERCENT, time) ? price + price / 1000 * 100 : price;
}

static Uuid
random_uuid(Random *random)
{
	Uuid		uuid = {next_random(random), next_random(random)};

	uuid.high = (uuid.high & ~UINT64_C(0xF000)) | UINT64_C(0x4000);	/* version 4 */
	uuid.low = (uuid.low & (UINT64_MAX >> 2)) | UINT64_C(1) << 63;	/* variant of RFC 9562 */
	return uuid;
}

static void
add_hex(ByteBuffer *line, uint64_t value, int from_bit, int digits)
{
	for (int i = 0; i < digits; i++)
		dwh_buffer_add_char(line, "0123456789abcdef"[(value >> (from_bit - 4 * (i + 1))) & 15]);
}

static void
add_uuid(ByteBuffer *line, Uuid uuid)
{
	add_hex(line, uuid.high, 64, 8);
	dwh_buffer_add_char(line, '-');
	add_hex(line, uuid.high, 32, 4);
	dwh_buffer_add_char(line, '-');
	add_hex(line, uuid.high, 16, 4);
	dwh_buffer_add_char(line, '-');
	add_hex(line, uuid.low, 64, 4);
	dwh_buffer_add_char(line, '-');
	add_hex(line, uuid.low, 48, 12);
}

static const Disguise no_disguise;

/* Separator, key and colon; the value follows. */
static void
begin_member(ByteBuffer *line, const char *key)
{
	if (line->data[line->length - 1] != '{')
		dwh_buffer_add_text(line, ", ");
	dwh_buffer_add_char(line, '"');
	dwh_buffer_add_text(line, key);
	dwh_buffer_add_text(line, "\": ");
}

/* A member whose value is JSON text; none where that is empty. */
static void
add_member(ByteBuffer *line, const char *key, const char *json)
{
	if (json[0] == '\0')
		return;
	begin_member(line, key);
	dwh_buffer_add_text(line, json);
}

static void
add_text_member(ByteBuffer *line, const char *key, const char *text)
{
	begin_member(line, key);
	dwh_buffer_add_char(line, '"');
	dwh_buffer_add_text(line, text);
	dwh_buffer_add_char(line, '"');
}

/* "u000123": the key of a user or product. */
static void
add_key_member(ByteBuffer *line, const char *key, char prefix, int64_t number, int width)
{
	begin_member(line, key);
	dwh_buffer_add_char(line, '"');
	dwh_buffer_add_char(line, prefix);
	dwh_buffer_add_integer(line, number, width);
	dwh_buffer_add_char(line, '"');
}

static void
add_uuid_member(ByteBuffer *line, const char *key, Uuid uuid)
{
	begin_member(line, key);
	dwh_buffer_add_char(line, '"');
	add_uuid(line, uuid);
	dwh_buffer_add_char(line, '"');
}

static void
add_number_member(ByteBuffer *line, const char *key, int64_t number)
{
	begin_member(line, key);
	dwh_buffer_add_integer(line, number, 1);
}

static void
add_time_member(ByteBuffer *line, const char *key, int64_t time)
{
	begin_member(line, key);
	dwh_buffer_add_char(line, '"');
	dwh_rfc3339_print(time, false, line);
	dwh_buffer_add_char(line, '"');
}

static void
add_identity(ByteBuffer *line, const StreamEvent *event, const Disguise *disguise)
{
	if (!event->anonymous)
		add_uuid_member(line, "event_id", event->id);
	if (disguise->time != NULL)
		add_member(line, "event_time", disguise->time);
	else
		add_time_member(line, "event_time", event->time);
}

static void
add_purchase(const Stream *stream, ByteBuffer *line, const StreamEvent *event, const Disguise *disguise)
{
	int64_t		price = price_of(stream, event->product, event->time);

	if (disguise->price != NULL)
		add_member(line, "price", disguise->price);
	else
		add_number_member(line, "price", price);
	if (disguise->quantity != NULL)
		add_member(line, "quantity", disguise->quantity);
	else
		add_number_member(line, "quantity", event->quantity);
	if (disguise->revenue != NULL)
		add_member(line, "revenue", disguise->revenue);
	else
		add_number_member(line, "revenue", price * event->quantity);
}

static void
add_product_page(const Stream *stream, ByteBuffer *line, const StreamEvent *event)
{
	add_text_member(line, "category", categories[trait(stream, 'k', event->product) % 10]);
	add_text_member(line, "brand", brands[trait(stream, 'b', event->product) % 12]);
	add_number_member(line, "price", price_of(stream, event->product, event->time));
}

static void
add_body(const Stream *stream, ByteBuffer *line, const StreamEvent *event, const Disguise *disguise)
{
	if (disguise->type != NULL)
		add_member(line, "event_type", disguise->type);
	else
		add_text_member(line, "event_type", type_names[event->type]);
	if (disguise->user != NULL)
		add_member(line, "user_id", disguise->user);
	else
		add_key_member(line, "user_id", 'u', event->user, 6);
	add_uuid_member(line, "session_id", event->session);
	if (event->product != 0)
		add_key_member(line, "product_id", 'p', event->product, 4);
	if (disguise->device != NULL)
		add_member(line, "device", disguise->device);
	else
		add_text_member(line, "device", device_of(stream, event->user, event->time));
	add_text_member(line, "country", country_of(stream, event->user, event->time));
	if (event->type == PURCHASE)
		add_purchase(stream, line, event, disguise);
	else if (event->product != 0)
		add_product_page(stream, line, event);
}

/* Writes the event's object into stream->line, without a terminator. */
static void
write_event(Stream *stream, const StreamEvent *event, const Disguise *disguise)
{
	ByteBuffer	   *line = &stream->line;

	line->length = 0;
	dwh_buffer_add_char(line, '{');
	if (!disguise->reordered)
		add_identity(line, event, disguise);
	add_body(stream, line, event, disguise);
	if (disguise->reordered)
		add_identity(line, event, disguise);
	if (disguise->extra != NULL)
		dwh_buffer_add_text(line, disguise->extra);
	dwh_buffer_add_char(line, '}');
}

static void
emit_line(Stream *stream, const char *terminator)
{
	ByteBuffer *line = &stream->line;

	if (stream->marks_order)
	{
		dwh_buffer_reserve(line, BYTE_ORDER_MARK_LENGTH);
		memmove(line->data + BYTE_ORDER_MARK_LENGTH, line->data, line->length);
		memcpy(line->data, BYTE_ORDER_MARK_TEXT, BYTE_ORDER_MARK_LENGTH);
		line->length += BYTE_ORDER_MARK_LENGTH;
		stream->marks_order = false;
		stream->totals->faults[BYTE_ORDER_MARK]++;
	}
	dwh_buffer_add_text(&stream->line, terminator);
	stream->emit(stream->sink, stream->line.data, stream->line.length);
}

/* ---- faults ---- */

/* Bytes of the line of kind too_long: one more than the default of dwh.max_line_bytes. */
#define TOO_LONG_BYTES (16 * 1024 * 1024 + 1)
#define TOO_DEEP_LEVELS 1001

/* True if the fault needs the event_id that was just written. */
static bool
needs_event_id(int kind)
{
	return kind == CONFLICT || kind == CONFLICT_MOVED;
}

/* A new event like the base one, with an id of its own. */
static StreamEvent
fresh_event(Stream *stream, const StreamEvent *base)
{
	StreamEvent event = *base;

	event.id = random_uuid(&stream->fault_random);
	event.anonymous = false;
	return event;
}

/* The same as a purchase of a product. */
static StreamEvent
fresh_purchase(Stream *stream, const StreamEvent *base)
{
	StreamEvent event = fresh_event(stream, base);

	event.type = PURCHASE;
	event.quantity = 2;
	if (event.product == 0)
		event.product = 1;
	return event;
}

/* The event that a fault of this kind disguises. */
static StreamEvent
event_of_fault(Stream *stream, int kind, const StreamEvent *base)
{
	StreamEvent event;

	switch (kind)
	{
		case REPLAY:
		case REPLAY_RESPELLED:
		case CONFLICT:
			return *base;
		case CONFLICT_MOVED:
			event = *base;
			event.time -= 40 * DAY;
			return event;
		case LATE_EVENT:
			event = fresh_event(stream, base);
			event.time -= DAY + random_below(&stream->fault_random, 19 * 86400) * SECOND;
			return event;
		case TEXT_PRICE:
		case FRACTIONAL_QUANTITY:
		case NEGATIVE_QUANTITY:
		case REVENUE_MISMATCH:
		case MISSING_REVENUE:
		case NUMBERS_AS_TEXT:
			return fresh_purchase(stream, base);
		default:
			return fresh_event(stream, base);
	}
}

static void
write_deep(ByteBuffer *line)
{
	line->length = 0;
	dwh_buffer_add_text(line, "{\"deep\": ");
	for (int i = 1; i < TOO_DEEP_LEVELS; i++)
		dwh_buffer_add_char(line, '[');
	for (int i = 1; i < TOO_DEEP_LEVELS; i++)
		dwh_buffer_add_char(line, ']');
	dwh_buffer_add_char(line, '}');
}

static void
write_long(ByteBuffer *line)
{
	line->length = 0;
	dwh_buffer_add_text(line, "{\"long\": \"");
	memset(dwh_buffer_reserve(line, TOO_LONG_BYTES), 'x', TOO_LONG_BYTES);
	line->length = TOO_LONG_BYTES - 2;
	dwh_buffer_add_text(line, "\"}");
}

static void
emit_fault(Stream *stream, int kind, const StreamEvent *base)
{
	StreamEvent event = event_of_fault(stream, kind, base);
	Disguise	disguise = dwh_fault_disguise(kind);
	ByteBuffer	   *line = &stream->line;

	write_event(stream, &event, &disguise);
	if (kind == TRUNCATED_JSON || kind == HALF_LINE)
		line->length = line->length / 2;
	else if (kind == BLANK_LINE)
		memcpy(line->data, " \t ", line->length = 3);
	else if (kind == TOO_DEEP)
		write_deep(line);
	else if (kind == TOO_LONG)
		write_long(line);
	else if (kind == NOT_OBJECT)
		memcpy(line->data, "[1, 2, 3]", line->length = 9);
	emit_line(stream, kind == CARRIAGE_RETURN ? "\r\n" : kind == HALF_LINE ? "" : "\n");
	stream->totals->faults[kind]++;
}

/* The next chosen kind in turn. */
static void
next_turn(Stream *stream)
{
	do
		stream->turn = (stream->turn + 1) % FAULT_COUNT;
	while (!stream->options->chosen[stream->turn] || dwh_fault_kinds[stream->turn].once);
}

/* Emits the faults that are due after this event. */
static void
emit_due_faults(Stream *stream, const StreamEvent *base)
{
	const StreamOptions *options = stream->options;

	if (!stream->any_in_turn)
		return;
	stream->faults_due = (int64_t) ((unsigned __int128) options->faults * (uint64_t) stream->totals->events /
									(uint64_t) options->events);
	while (stream->faults_done < stream->faults_due)
	{
		if (base->anonymous && needs_event_id(stream->turn))
			return;				/* stays due until an event has an id */
		emit_fault(stream, stream->turn, base);
		stream->faults_done++;
		next_turn(stream);
	}
}

static bool
chosen_once(const Stream *stream, int kind)
{
	return stream->options->faults > 0 && stream->options->chosen[kind];
}

/* ---- sessions ---- */

static void
add_pending(Stream *stream, const StreamEvent *event)
{
	if (stream->pending_count == stream->pending_capacity)
	{
		int64_t		larger = stream->pending_capacity == 0 ? 1024 : stream->pending_capacity * 2;

		stream->pending = stream->pending == NULL
			? stream->alc->malloc(stream->alc->ctx, larger * sizeof(StreamEvent))
			: stream->alc->realloc(stream->alc->ctx, stream->pending, stream->pending_capacity * sizeof(StreamEvent),
								   larger * sizeof(StreamEvent));
		stream->pending_capacity = larger;
	}
	stream->pending[stream->pending_count++] = *event;
}

/* Adds one event of a session, unless all events are made; time moves on to it. */
static bool
add_step(Stream *stream, StreamEvent *event, EventType type)
{
	Random	   *random = &stream->random;

	if (stream->made == stream->options->events)
		return false;
	event->time += (5 + random_below(random, 115)) * SECOND;
	event->type = type;
	event->order = stream->made++;
	event->id = random_uuid(random);
	event->anonymous = random_percent(random, ANONYMOUS_PERCENT);
	add_pending(stream, event);
	return true;
}

/* Users and products are visited unevenly: the lower of two draws. */
static int64_t
popular(Random *random, int64_t count)
{
	int64_t		a = random_below(random, count);
	int64_t		b = random_below(random, count);

	return 1 + (a < b ? a : b);
}

static void
make_session(Stream *stream, int64_t hour_start)
{
	Random	   *random = &stream->random;
	StreamEvent event = {.time = hour_start + random_below(random, 3600) * SECOND};
	int			views = 1 + (int) random_below(random, 4) + (int) random_below(random, 5);

	event.user = popular(random, stream->options->users);
	event.session = random_uuid(random);
	stream->totals->sessions++;
	for (int i = 0; i < views; i++)
	{
		event.product = random_percent(random, NO_PRODUCT_PERCENT) ? 0 : popular(random, stream->options->products);
		if (!add_step(stream, &event, PAGE_VIEW))
			return;
	}
	if (!random_percent(random, CART_PERCENT))
		return;
	if (event.product == 0)
		event.product = popular(random, stream->options->products);
	if (!add_step(stream, &event, ADD_TO_CART) || !random_percent(random, BUY_PERCENT))
		return;
	event.quantity = 1 + (int) random_below(random, 3);
	if (add_step(stream, &event, PURCHASE))
		stream->totals->purchases++;
}

static int
compare_events(const void *a, const void *b)
{
	const StreamEvent *left = a;
	const StreamEvent *right = b;

	if (left->time != right->time)
		return left->time < right->time ? -1 : 1;
	return left->order < right->order ? -1 : left->order > right->order;
}

/* Emits the pending events before that time, in order; the others stay. */
static void
emit_before(Stream *stream, int64_t time)
{
	int64_t		emitted = 0;

	if (stream->pending_count == 0)
		return;
	qsort(stream->pending, stream->pending_count, sizeof(StreamEvent), compare_events);
	for (; emitted < stream->pending_count && stream->pending[emitted].time < time; emitted++)
	{
		StreamEvent *event = &stream->pending[emitted];

		write_event(stream, event, &no_disguise);
		emit_line(stream, "\n");
		stream->totals->events++;
		emit_due_faults(stream, event);
	}
	stream->pending_count -= emitted;
	memmove(stream->pending, stream->pending + emitted, stream->pending_count * sizeof(StreamEvent));
}

static void
init_stream(Stream *stream)
{
	const StreamOptions *options = stream->options;
	const int64_t parts[] = {options->events, options->users, options->products, options->days, options->start_at};

	dwh_buffer_init(&stream->line, stream->alc);
	/* all options, so that two different logs never share an event_id; the traits of users and products go by the seed */
	stream->random.state = mix(stream->options->seed);
	for (int i = 0; i < 5; i++)
		stream->random.state = mix(stream->random.state ^ (uint64_t) parts[i]);
	stream->fault_random.state = mix(stream->options->seed ^ UINT64_C(0xFA017));
	for (int i = 0; i < FAULT_COUNT; i++)
		if (stream->options->chosen[i] && !dwh_fault_kinds[i].once)
			stream->any_in_turn = true;
	stream->turn = FAULT_COUNT - 1;
	if (stream->any_in_turn)
		next_turn(stream);
}

void
dwh_stream_run(const StreamOptions *options, EmitLine emit, void *sink, const yyjson_alc *alc, StreamTotals *totals)
{
	Stream		stream = {.options = options,.emit = emit,.sink = sink,.totals = totals,.alc = alc};
	StreamEvent last = {.time = options->start_at,.user = 1};
	int64_t		weight = 0;
	int64_t		hours = options->days * 24;

	memset(totals, 0, sizeof(*totals));
	init_stream(&stream);
	stream.marks_order = chosen_once(&stream, BYTE_ORDER_MARK);
	for (int64_t hour = 0; hour < hours; hour++)
	{
		int64_t		hour_start = options->start_at + hour * HOUR;
		int			hour_of_day = (int) (((hour_start % DAY) + DAY) % DAY / HOUR);
		int64_t		target;

		weight += hour_weights[hour_of_day];
		target = (int64_t) ((unsigned __int128) options->events * (uint64_t) weight /
							(uint64_t) (options->days * HOUR_WEIGHT_SUM));
		if (hour == hours - 1)
			target = options->events;
		while (stream.made < target)
			make_session(&stream, hour_start);
		emit_before(&stream, hour_start + HOUR);
	}
	emit_before(&stream, INT64_MAX);
	if (chosen_once(&stream, TOO_LONG))
		emit_fault(&stream, TOO_LONG, &last);
	if (chosen_once(&stream, HALF_LINE))
		emit_fault(&stream, HALF_LINE, &last);
}
