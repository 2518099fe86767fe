/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The table of timeouts, and how they are read: see timeout.h. */
#include "shared/timeout.h"

#include "shared/duration.h"
#include "shared/words.h"

#define STATE(name) (1U << FLOW_##name)

/*
 * Seconds by RFC 5382 (established: at least 2 h 4 min, which may be lowered, for short-lived
 * services) and RFC 4787 (UDP: at least 2 min once a stream).
 */
const struct timeout_name timeout_names[TIMEOUT_NAMES] = {
	{"tcp-syn", STATE(SYN_SENT) | STATE(SYN_SENT2) | STATE(SYN_RECV), 60},
	{"tcp-established", STATE(ESTABLISHED), 7440},
	{"tcp-closing", STATE(FIN_WAIT) | STATE(CLOSE_WAIT) | STATE(LAST_ACK) | STATE(TIME_WAIT),
	 120},
	{"tcp-rst", STATE(CLOSE), 10},
	{"udp", STATE(UDP_UNREPLIED), 30},
	{"udp-stream", STATE(UDP_REPLIED), 300},
	{"tcp-syn-sent", STATE(SYN_SENT) | STATE(SYN_SENT2), 0},
	{"tcp-syn-recv", STATE(SYN_RECV), 0},
	{"tcp-fin-wait", STATE(FIN_WAIT), 0},
	{"tcp-close-wait", STATE(CLOSE_WAIT), 0},
	{"tcp-last-ack", STATE(LAST_ACK), 0},
	{"tcp-time-wait", STATE(TIME_WAIT), 0},
};

const struct timeout_name *timeout_find(struct scan *s, const struct scan_word *word)
{
	const char *names[TIMEOUT_NAMES], *closest;
	char hint[SCAN_HINT_MAX];

	for (size_t i = 0; i < TIMEOUT_NAMES; i++) {
		names[i] = timeout_names[i].name;
		if (scan_word_is(word, names[i]))
			return &timeout_names[i];
	}
	closest = words_closest(word->start, word->length, names, TIMEOUT_NAMES);
	if (closest)
		scan_hint(hint, "did you mean \"%s\"?", closest);
	else
		scan_hint(hint, "write tcp-syn, tcp-established, tcp-closing, tcp-rst, udp or "
				"udp-stream");
	scan_error(s, word, hint, "unknown timeout \"%.*s\"", SCAN_SHOW(word));
	return NULL;
}

bool timeout_read_seconds(struct scan *s, const struct scan_word *word, uint32_t *ret)
{
	static const char hint[] = "write whole seconds from 1s to 30d: 30s, 5m, 2h4m";
	char text[DURATION_STRLEN];
	uint64_t ms;

	if (word->length == 0) {
		scan_error(s, word, hint, "the duration is missing");
		return false;
	}
	if (!scan_word_copy(word, text, sizeof(text)) || duration_parse(text, &ms) < 0) {
		scan_error(s, word, hint, "\"%.*s\" is no duration", SCAN_SHOW(word));
		return false;
	}
	if (ms == 0 || ms % 1000 != 0 || ms / 1000 > TIMEOUT_MOST) {
		scan_error(s, word, hint, "%.*s is out of range", SCAN_SHOW(word));
		return false;
	}
	*ret = (uint32_t)(ms / 1000);
	return true;
}

void timeout_set(const struct timeout_name *name, uint32_t seconds,
		 uint32_t timeouts[static FLOW_STATE_COUNT], uint32_t *singles)
{
	bool single = name->seconds == 0;

	for (unsigned state = 0; state < FLOW_STATE_COUNT; state++)
		if (name->states & 1U << state && (single || !(*singles & 1U << state)))
			timeouts[state] = seconds;
	if (single)
		*singles |= name->states;
}

static unsigned timeout_count(const struct timeout_name *name, const uint32_t timeouts[],
			      uint32_t seconds)
{
	unsigned n = 0;

	for (unsigned state = 0; state < FLOW_STATE_COUNT; state++)
		n += name->states & 1U << state && timeouts[state] == seconds;
	return n;
}

/* What most states of a name have, the first one of equals; 0 when one of them has none. */
static uint32_t timeout_of(const struct timeout_name *name, const uint32_t timeouts[])
{
	unsigned most = 0;
	uint32_t seconds = 0;

	if (timeout_count(name, timeouts, 0) > 0)
		return 0;
	for (unsigned state = 0; state < FLOW_STATE_COUNT; state++) {
		unsigned n = name->states & 1U << state
				     ? timeout_count(name, timeouts, timeouts[state])
				     : 0;

		if (n > most) {
			most = n;
			seconds = timeouts[state];
		}
	}
	return seconds;
}

size_t timeout_list(const uint32_t timeouts[static FLOW_STATE_COUNT],
		    struct timeout_setting ret[static TIMEOUT_NAMES])
{
	uint32_t said[FLOW_STATE_COUNT] = {0}, singles = 0;
	size_t n = 0;

	for (size_t i = 0; i < TIMEOUT_NAMES; i++) {
		const struct timeout_name *name = &timeout_names[i];
		uint32_t seconds = timeout_of(name, timeouts);

		if (!seconds || seconds == timeout_of(name, said))
			continue;
		timeout_set(name, seconds, said, &singles);
		ret[n++] = (struct timeout_setting){name, seconds};
	}
	return n;
}
