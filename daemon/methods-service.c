/* SPDX-License-Identifier: GPL-2.0-or-later */
/* org.varlink.service: what `varlinkctl info` and `varlinkctl introspect` ask. */
#include "daemon/methods-service.h"

#include <errno.h>
#include <string.h>

#include "daemon/methods-common.h"
#include "daemon/methods-handlers.h"

int methods_get_info(struct call *call, json_t *parameters, void *userdata)
{
	json_t *names;
	int r;

	if (!methods_read_parameters(call, parameters, NULL, NULL, &r))
		return r;
	names = json_array();
	for (const struct methods_interface *i = methods_interfaces; i->name; i++)
		if (json_array_append_new(names, json_string(i->name)) < 0) {
			json_decref(names);
			return -ENOMEM;
		}
	/* There is no home page to name; the member must be there. */
	return call_reply(call, json_pack("{s:s, s:s, s:s, s:s, s:o}", "vendor", "redirectd",
					  "product", "redirectd", "version", REDIRECTD_VERSION,
					  "url", "", "interfaces", names));
}

struct description_parameters {
	const char *interface;
};

static const struct parameter description_parameters[] = {
	{"interface", PARAMETER_STRING, true, offsetof(struct description_parameters, interface)},
	{NULL, PARAMETER_STRING, false, 0},
};

int methods_get_interface_description(struct call *call, json_t *parameters, void *userdata)
{
	struct description_parameters p;
	int r;

	if (!methods_read_parameters(call, parameters, description_parameters, &p, &r))
		return r;
	for (const struct methods_interface *i = methods_interfaces; i->name; i++)
		if (strcmp(i->name, p.interface) == 0)
			return call_reply(call, json_pack("{s:s}", "description", i->description));
	return call_error(call, "org.varlink.service.InterfaceNotFound",
			  json_pack("{s:s}", "interface", p.interface));
}
