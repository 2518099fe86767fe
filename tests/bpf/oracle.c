/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The oracle: tells packets apart, and hands them to those who know about them. */
#include "tests/bpf/oracle.h"

#include <stdlib.h>

#include "tests/bpf/oracle-parts.h"

void oracle_init(struct oracle *o, struct oracle_rule *rules, size_t n_rules)
{
	*o = (struct oracle){.rules = rules, .n_rules = n_rules};
}

void oracle_clear(struct oracle *o)
{
	free(o->flows);
	free(o->fragments);
	*o = (struct oracle){.flows = NULL};
}

/* What is counted for packets that are left alone for what they are. */
static const uint32_t reasons[] = {
	[ORACLE_NOT_IP] = ORACLE_REASON(REASON_NOT_IP),
	[ORACLE_NOT_TCP_UDP] = ORACLE_REASON(REASON_NOT_TCP_UDP),
	[ORACLE_TRUNCATED] = ORACLE_REASON(REASON_TRUNCATED),
	[ORACLE_MALFORMED] = ORACLE_REASON(REASON_MALFORMED),
	[ORACLE_TOO_DEEP] = ORACLE_REASON(REASON_EXTENSIONS),
};

void oracle_judge(struct oracle *o, const struct oracle_input *input, uint8_t *data, size_t length,
		  struct oracle_answer *ret)
{
	struct oracle_packet p;

	*ret = (struct oracle_answer){.verdict = ORACLE_PASS, .length = length};
	if (!input->ethernet)
		oracle_parse_typed(data, length, input->type, &p);
	else
		oracle_parse(data, length, true, &p);
	switch (p.class) {
	case ORACLE_TRANSLATABLE:
		oracle_judge_packet(o, input, data, &p, ret);
		if (ret->reasons) /* ports so far behind need not be seen */
			ret->reasons |= p.also & ORACLE_REASON(REASON_EXTENSIONS);
		break;
	case ORACLE_LATER_FRAGMENT:
		oracle_judge_later(o, input, data, &p, ret);
		break;
	case ORACLE_NOT_TCP_UDP:
		ret->reasons = reasons[p.class];
		oracle_judge_error(o, input, data, &p, ret);
		break;
	case ORACLE_TRUNCATED:
		/* what is left of a fragment header may be enough to take it for a later one */
		if (o->holding && p.also & ORACLE_REASON(REASON_FRAGMENT)) {
			ret->verdict = ORACLE_EITHER;
			p.also |= ORACLE_REASON(REASON_HELD);
		}
		ret->reasons = reasons[p.class] | p.also;
		break;
	case ORACLE_NOT_IP:
	case ORACLE_MALFORMED:
	case ORACLE_TOO_DEEP:
		ret->reasons = reasons[p.class] | p.also;
		break;
	}
	if (p.first)
		oracle_note_first(o, input, data, &p, ret);
}

bool oracle_pass(struct oracle *o, enum oracle_hook hook, bool ethernet, uint8_t *data,
		 size_t length)
{
	struct oracle_input input = {
		.hook = hook,
		.ethernet = ethernet,
		.type = length && data[0] >> 4 == 6 ? 0x86dd : 0x0800,
		.interface = 1,
	};
	struct oracle_answer answer;

	oracle_judge(o, &input, data, length, &answer);
	return answer.translated;
}
