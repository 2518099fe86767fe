/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Formats in which a redirection is a word: docker's published ports, as typed
 * (`[ADDRESS:]PORT:PORT[/PROTO]`) and as `docker ps` prints them (`ADDRESS:PORT->PORT/PROTO`), and
 * what `firewall-cmd --list-forward-ports` prints (`port=N:proto=P:toport=N:toaddr=A`).
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "ctl/import.h"

/* Blanks, commas between the ports of a container, quotes and dashes of YAML lists. */
#define SEPARATORS " \t\r,\"'"

typedef void (*read_word_fn)(struct import *i, const struct import_place *p, char *word);

static int read_words(struct import *i, char *text, const char *separators, read_word_fn read)
{
	struct import_place place = {0};
	char *line, *word;

	while ((line = strsep(&text, "\n"))) {
		_cleanup_(freep) char *copy = strdup(line);

		if (!copy)
			abort();
		place.line++;
		place.text = copy;
		while ((word = strsep(&line, separators)))
			if (*word == '#')
				break;
			else if (*word)
				read(i, &place, word);
	}
	return 0;
}

static int read_protocol(const char *name, unsigned *ret)
{
	if (strcmp(name, "tcp") == 0)
		*ret = RULE_TCP;
	else if (strcmp(name, "udp") == 0)
		*ret = RULE_UDP;
	else
		return -EINVAL;
	return 0;
}

/* ---- docker ---- */

/* Cuts off the last part behind `:`, or the whole. A bracket protects what is in it. */
static char *cut_last(char *text)
{
	char *colon = strrchr(text, ':'), *bracket = strrchr(text, ']');

	if (!colon || (bracket && colon < bracket))
		return text;
	*colon = '\0';
	return colon + 1;
}

/* `0.0.0.0` and `::` are every address. */
static int read_listen(struct import_redirect *r, const char *address)
{
	if (!*address || strcmp(address, "0.0.0.0") == 0 || strcmp(address, "::") == 0 ||
	    strcmp(address, "[::]") == 0)
		return 0;
	return import_add_prefix(&r->listen, address);
}

/* `-p8080:80` and `--publish=8080:80` begin with an option. */
static char *skip_option(char *word)
{
	static const char *const options[] = {"--publish=", "-p"};

	for (size_t n = 0; n < sizeof(options) / sizeof(options[0]); n++)
		if (strncmp(word, options[n], strlen(options[n])) == 0)
			return word + strlen(options[n]);
	return word;
}

/* Other words of a command line or of a table are no ports, and nothing is said about them. */
static bool is_port_word(const char *word)
{
	return (strchr("0123456789[:", *word) && (strchr(word, ':') || strstr(word, "->"))) ||
	       word[strspn(word, "0123456789")] == '\0';
}

static void take_docker(struct import *i, const struct import_place *p, const char *address,
			const char *outside, const char *inside, const char *protocol)
{
	struct import_redirect r = {.protocols = RULE_TCP};
	struct port_range ports;

	if (protocol && read_protocol(protocol, &r.protocols) < 0)
		import_skip(i, p, "the protocol \"%s\" is neither tcp nor udp", protocol);
	else if (import_read_ports(inside, '-', &r.target_ports) < 0 ||
		 import_read_ports(outside, '-', &ports) < 0)
		import_skip(i, p, "\"%s\" or \"%s\" is not a port or a range", outside, inside);
	else if (read_listen(&r, address) < 0)
		import_skip(i, p, "\"%s\" is not an address", address);
	else {
		import_add_ports(&r, &ports);
		if (import_take(i, p, &r))
			import_note_once(
				i, IMPORT_ONCE_CONTAINER, p,
				"the container's address is not known here: write it in front of "
				"the port behind `to`, unless the service listens on this host");
	}
}

static void read_docker_word(struct import *i, const struct import_place *p, char *word)
{
	char *slash, *arrow, *inside, *outside;

	word = skip_option(word);
	slash = strchr(word, '/');
	if (slash)
		*slash = '\0';
	if (!*word || !is_port_word(word))
		return;
	arrow = strstr(word, "->");
	if (arrow)
		*arrow = '\0';
	inside = arrow ? arrow + 2 : cut_last(word);
	if (inside == word) {
		/* Other numbers of a line are no ports. */
		if (slash || strlen(word) == strlen(p->text))
			import_note(i, p, "port %s has no fixed port outside of its container",
				    word);
		return;
	}
	outside = cut_last(word);
	take_docker(i, p, outside == word ? "" : word, outside, inside, slash ? slash + 1 : NULL);
}

int import_read_docker(struct import *i, char *text)
{
	return read_words(i, text, SEPARATORS, read_docker_word);
}

/* Is some word like 8080:80 or 8080->80? */
bool import_looks_like_docker(const char *text)
{
	size_t length;

	for (; *text; text += length) {
		const char *p;

		text += strspn(text, SEPARATORS "\n");
		length = strcspn(text, SEPARATORS "\n");
		for (p = text + 1; p < text + length; p++)
			if (p[-1] >= '0' && p[-1] <= '9' &&
			    ((p[0] == ':' && p[1] >= '0' && p[1] <= '9') ||
			     strncmp(p, "->", 2) == 0) &&
			    strspn(text, "0123456789abcdef.:[]->/tcpudsc") >= length)
				return true;
	}
	return false;
}

/* ---- firewall-cmd ---- */

/* The value of `key=`, up to the next key; NULL: not there. Cuts the text. */
static char *cut_key(char *word, const char *key)
{
	static const char *const next[] = {":port=", ":proto=", ":toport=", ":toaddr="};
	size_t length = strlen(key);
	char *at = word, *end;

	while ((at = strstr(at, key)) && at != word && at[-1] != ':' && at[-1] != '\0')
		at += length;
	if (!at)
		return NULL;
	at += length;
	for (size_t n = 0; n < sizeof(next) / sizeof(next[0]); n++)
		if ((end = strstr(at, next[n])))
			*end = '\0';
	return at;
}

static char *value_of(const char *word, const char *key, char **ret_copy)
{
	*ret_copy = strdup(word);
	if (!*ret_copy)
		abort();
	return cut_key(*ret_copy, key);
}

static void read_firewall_cmd_word(struct import *i, const struct import_place *p, char *word)
{
	_cleanup_(freep) char *c1 = NULL, *c2 = NULL, *c3 = NULL, *c4 = NULL;
	char *port = value_of(word, "port=", &c1), *protocol = value_of(word, "proto=", &c2);
	char *to_port = value_of(word, "toport=", &c3), *to = value_of(word, "toaddr=", &c4);

	import_take_forward_port(i, p, &(const struct import_redirect){0}, port, protocol, to_port,
				 to);
}

int import_read_firewall_cmd(struct import *i, char *text)
{
	return read_words(i, text, " \t\r", read_firewall_cmd_word);
}

bool import_looks_like_firewall_cmd(const char *text)
{
	const char *port = strstr(text, "port=");

	return port && strstr(port, ":proto=");
}

void import_take_forward_port(struct import *i, const struct import_place *p,
			      const struct import_redirect *zone, const char *port,
			      const char *protocol, const char *to_port, const char *to)
{
	struct import_redirect r = *zone;
	struct port_range ports;

	if (!port || import_read_ports(port, '-', &ports) < 0)
		import_skip(i, p, "\"%s\" is not a port or a range", port ? port : "");
	else if (!protocol || read_protocol(protocol, &r.protocols) < 0)
		import_skip(i, p, "the protocol \"%s\" is neither tcp nor udp",
			    protocol ? protocol : "");
	else if (to_port && *to_port && import_read_ports(to_port, '-', &r.target_ports) < 0)
		import_skip(i, p, "\"%s\" is not a port or a range", to_port);
	else if (to && *to && ip_prefix_parse(to, &r.target) < 0)
		import_skip(i, p, "\"%s\" is not an address", to);
	else {
		import_add_ports(&r, &ports);
		import_take(i, p, &r);
	}
}
