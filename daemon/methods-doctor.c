/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Doctor: what the daemon finds, as JSON. */
#include <errno.h>

#include "daemon/manager.h"
#include "daemon/methods-common.h"
#include "daemon/methods-handlers.h"
#include "shared/findings.h"
#include "shared/varlink-findings.h"

int methods_doctor(struct call *call, json_t *parameters, void *userdata)
{
	_cleanup_(findings_clear) struct findings findings = {0};
	int r;

	if (!methods_read_parameters(call, parameters, NULL, NULL, &r))
		return r;
	manager_doctor(userdata, &findings);
	if (findings.incomplete)
		return -ENOMEM;
	return call_reply(call, json_pack("{s:i, s:o}", "schema", METHODS_SCHEMA, "findings",
					  varlink_findings_pack(&findings)));
}
