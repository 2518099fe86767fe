/* SPDX-License-Identifier: GPL-2.0-or-later */
/* `check`: a configuration file through the module that the daemon reads it with. */
#include <inttypes.h>
#include <string.h>

#include "ctl/options.h"
#include "ctl/output-json.h"
#include "ctl/verbs.h"
#include "shared/config.h"

static void print_good(const struct options *o, const char *path, const struct config *c)
{
	json_t *document;

	if (options_has(o, OPTION_JSON)) {
		document = json_pack("{s:i,s:s?,s:I}", "schema", 1, "file", path, "rules",
				     (json_int_t)c->n_rules);
		if (document)
			output_json(document, stdout);
		json_decref(document);
	} else if (!options_has(o, OPTION_QUIET)) {
		printf("%zu %s, no errors\n", c->n_rules, c->n_rules == 1 ? "rule" : "rules");
	}
}

enum exit_code verb_check(const struct options *o, struct failure *f)
{
	_cleanup_(config_freep) struct config *c = NULL;
	const char *path = o->operands[0];
	int r;

	if (strcmp(path, "-") == 0)
		path = "/dev/stdin";
	r = config_new(&c);
	if (r == 0)
		r = config_read_file(c, path, &f->diag);
	if (f->diag.n_items > 0)
		return failure_from_diag(f);
	if (r < 0)
		return failure_set(f, CTL_FAILED, "cannot read %s: %s", path, strerror(-r));
	print_good(o, path, c);
	return CTL_DONE;
}
