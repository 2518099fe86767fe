/* SPDX-License-Identifier: GPL-2.0-or-later */
/* `top`: samples, keys, and which table is on the screen. */
#include <curses.h>
#include <errno.h>
#include <inttypes.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <time.h>
#include <unistd.h>

#include "ctl/options.h"
#include "ctl/output-text.h"
#include "ctl/top-data.h"
#include "ctl/top-screen.h"
#include "ctl/top-table.h"
#include "ctl/verbs.h"

#define INTERVAL_LEAST 0.1
#define INTERVAL_MOST  3600.0
#define KEY_ESCAPE     27
#define KEY_CONTROL_U  21
#define TREND_WIDTH    10
#define ARRAY_SIZE(a)  (sizeof(a) / sizeof((a)[0]))

enum mode { MODE_TABLE, MODE_FILTER, MODE_HELP };
enum view { VIEW_RULES, VIEW_FLOWS };

struct top {
	const char *socket;
	struct top_data data;
	struct top_table tables[2]; /* by enum view */
	enum view view;
	enum mode mode;
	int64_t rule; /* whose flows are shown; 0: every one's */
	int64_t interval_ms;
	bool paused, over;
};

/* ---- cells ---- */

#define RULE(row) ((const struct top_rule *)(row))
#define FLOW(row) ((const struct top_flow *)(row))

static void print_rate(double rate, char cell[TOP_CELL_MAX])
{
	if (rate > 0)
		top_format_rate(rate, cell, TOP_CELL_MAX);
	else
		strcpy(cell, "-");
}

static void print_byte_rate(double rate, char cell[TOP_CELL_MAX])
{
	char bytes[TEXT_BYTES_LEN];

	if (rate > 0)
		snprintf(cell, TOP_CELL_MAX, "%s", text_format_bytes((uint64_t)rate, bytes));
	else
		strcpy(cell, "-");
}

static void print_bytes(uint64_t value, char cell[TOP_CELL_MAX])
{
	char bytes[TEXT_BYTES_LEN];

	snprintf(cell, TOP_CELL_MAX, "%s", text_format_bytes(value, bytes));
}

static void print_text(const char *text, char cell[TOP_CELL_MAX])
{
	snprintf(cell, TOP_CELL_MAX, "%s", text);
}

static void rule_id(const void *row, char cell[TOP_CELL_MAX])
{
	snprintf(cell, TOP_CELL_MAX, "%" PRId64, RULE(row)->id);
}

static double rule_id_value(const void *row)
{
	return -(double)RULE(row)->id; /* the first one first */
}

static void rule_name(const void *row, char cell[TOP_CELL_MAX])
{
	print_text(*RULE(row)->name ? RULE(row)->name : "-", cell);
}

static void rule_text(const void *row, char cell[TOP_CELL_MAX])
{
	print_text(RULE(row)->text, cell);
}

static void rule_active(const void *row, char cell[TOP_CELL_MAX])
{
	snprintf(cell, TOP_CELL_MAX, "%" PRIu64, RULE(row)->active);
}

static double rule_active_value(const void *row)
{
	return (double)RULE(row)->active;
}

static void rule_new(const void *row, char cell[TOP_CELL_MAX])
{
	print_rate(RULE(row)->counts.flow_rate, cell);
}

static double rule_new_value(const void *row)
{
	return RULE(row)->counts.flow_rate;
}

static void rule_refused(const void *row, char cell[TOP_CELL_MAX])
{
	print_rate(RULE(row)->refused_rate, cell);
}

static double rule_refused_value(const void *row)
{
	return RULE(row)->refused_rate;
}

static void rule_packets(const void *row, char cell[TOP_CELL_MAX])
{
	print_rate(RULE(row)->counts.packet_rate, cell);
}

static double rule_packets_value(const void *row)
{
	return RULE(row)->counts.packet_rate;
}

static void rule_bytes(const void *row, char cell[TOP_CELL_MAX])
{
	print_byte_rate(RULE(row)->counts.byte_rate, cell);
}

static double rule_bytes_value(const void *row)
{
	return RULE(row)->counts.byte_rate;
}

static void rule_trend(const void *row, char cell[TOP_CELL_MAX])
{
	top_format_trend(&RULE(row)->trend, TREND_WIDTH, cell, TOP_CELL_MAX);
}

static void rule_total(const void *row, char cell[TOP_CELL_MAX])
{
	print_bytes(RULE(row)->counts.bytes, cell);
}

static double rule_total_value(const void *row)
{
	return (double)RULE(row)->counts.bytes;
}

static bool rule_is_off(const void *row)
{
	return !RULE(row)->enabled;
}

static void flow_protocol(const void *row, char cell[TOP_CELL_MAX])
{
	print_text(FLOW(row)->protocol, cell);
}

static void flow_state(const void *row, char cell[TOP_CELL_MAX])
{
	print_text(FLOW(row)->state, cell);
}

static void flow_client(const void *row, char cell[TOP_CELL_MAX])
{
	print_text(FLOW(row)->client, cell);
}

static void flow_listen(const void *row, char cell[TOP_CELL_MAX])
{
	print_text(FLOW(row)->listen, cell);
}

static void flow_target(const void *row, char cell[TOP_CELL_MAX])
{
	print_text(FLOW(row)->target, cell);
}

static void flow_rule(const void *row, char cell[TOP_CELL_MAX])
{
	snprintf(cell, TOP_CELL_MAX, "%" PRId64, FLOW(row)->rule);
}

static double flow_rule_value(const void *row)
{
	return -(double)FLOW(row)->rule;
}

static void flow_packets(const void *row, char cell[TOP_CELL_MAX])
{
	print_rate(FLOW(row)->counts.packet_rate, cell);
}

static double flow_packets_value(const void *row)
{
	return FLOW(row)->counts.packet_rate;
}

static void flow_bytes(const void *row, char cell[TOP_CELL_MAX])
{
	print_byte_rate(FLOW(row)->counts.byte_rate, cell);
}

static double flow_bytes_value(const void *row)
{
	return FLOW(row)->counts.byte_rate;
}

static void flow_total(const void *row, char cell[TOP_CELL_MAX])
{
	print_bytes(FLOW(row)->counts.bytes, cell);
}

static double flow_total_value(const void *row)
{
	return (double)FLOW(row)->counts.bytes;
}

static const struct top_column rule_columns[] = {
	{"ID", 5, true, 1, rule_id, rule_id_value},
	{"NAME", 12, false, 4, rule_name, NULL},
	{"RULE", 0, false, 0, rule_text, NULL},
	{"ACTIVE", 8, true, 3, rule_active, rule_active_value},
	{"NEW/S", 7, true, 5, rule_new, rule_new_value},
	{"REFUSED/S", 9, true, 9, rule_refused, rule_refused_value},
	{"PKTS/S", 7, true, 6, rule_packets, rule_packets_value},
	{"BYTES/S", 9, true, 2, rule_bytes, rule_bytes_value},
	{"TREND", TREND_WIDTH, false, 7, rule_trend, rule_bytes_value},
	{"BYTES", 9, true, 8, rule_total, rule_total_value},
};

static const struct top_column flow_columns[] = {
	{"PROTO", 6, false, 4, flow_protocol, NULL},
	{"STATE", 12, false, 3, flow_state, NULL},
	{"CLIENT", 0, false, 0, flow_client, NULL},
	{"TO", 21, false, 1, flow_listen, NULL},
	{"TARGET", 21, false, 5, flow_target, NULL},
	{"RULE", 6, true, 6, flow_rule, flow_rule_value},
	{"PKTS/S", 7, true, 7, flow_packets, flow_packets_value},
	{"BYTES/S", 9, true, 2, flow_bytes, flow_bytes_value},
	{"BYTES", 9, true, 8, flow_total, flow_total_value},
};

static const size_t rule_order = 7, flow_order = 7; /* bytes a second */

/* ---- samples ---- */

static int64_t now_ms(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

static struct top_table *table_of(struct top *t)
{
	return &t->tables[t->view];
}

static void fill(struct top *t)
{
	if (t->view == VIEW_RULES)
		top_table_fill(table_of(t), t->data.rules, t->data.n_rules, sizeof(*t->data.rules));
	else
		top_table_fill(table_of(t), t->data.flows, t->data.n_flows, sizeof(*t->data.flows));
}

static void sample(struct top *t)
{
	/* What the tables point at goes with the old sample. */
	top_table_clear(&t->tables[VIEW_RULES]);
	top_table_clear(&t->tables[VIEW_FLOWS]);
	top_data_sample(&t->data, t->socket, t->view == VIEW_FLOWS, t->rule);
	fill(t);
}

/* ---- keys ---- */

static void key_quit(struct top *t)
{
	t->over = true;
}

static void key_help(struct top *t)
{
	t->mode = MODE_HELP;
}

static void show_flows(struct top *t, int64_t rule)
{
	t->view = VIEW_FLOWS;
	t->rule = rule;
	t->tables[VIEW_FLOWS].chosen = 0;
	sample(t);
}

static void key_view(struct top *t)
{
	if (t->view == VIEW_RULES) {
		show_flows(t, 0);
		return;
	}
	t->view = VIEW_RULES;
	fill(t);
}

static void key_enter(struct top *t)
{
	const void *row = top_table_chosen(table_of(t));

	if (t->view == VIEW_RULES && row)
		show_flows(t, RULE(row)->id);
}

static void key_up(struct top *t)
{
	top_table_move(table_of(t), -1);
}

static void key_down(struct top *t)
{
	top_table_move(table_of(t), 1);
}

static void key_page_up(struct top *t)
{
	top_table_move(table_of(t), -(long)LINES / 2 - 1);
}

static void key_page_down(struct top *t)
{
	top_table_move(table_of(t), (long)LINES / 2 + 1);
}

static void key_home(struct top *t)
{
	top_table_move(table_of(t), -(long)table_of(t)->n_rows);
}

static void key_end(struct top *t)
{
	top_table_move(table_of(t), (long)table_of(t)->n_rows);
}

static void key_order_left(struct top *t)
{
	top_table_reorder(table_of(t), -1);
	fill(t);
}

static void key_order_right(struct top *t)
{
	top_table_reorder(table_of(t), 1);
	fill(t);
}

static void key_reverse(struct top *t)
{
	table_of(t)->reversed = !table_of(t)->reversed;
	fill(t);
}

static void key_filter(struct top *t)
{
	t->mode = MODE_FILTER;
}

static void key_escape(struct top *t)
{
	if (table_of(t)->filter[0])
		table_of(t)->filter[0] = '\0';
	else
		t->view = VIEW_RULES;
	fill(t);
}

static void key_pause(struct top *t)
{
	t->paused = !t->paused;
}

static void key_faster(struct top *t)
{
	if (t->interval_ms / 2 >= (int64_t)(INTERVAL_LEAST * 1000))
		t->interval_ms /= 2;
}

static void key_slower(struct top *t)
{
	if (t->interval_ms * 2 <= (int64_t)(INTERVAL_MOST * 1000))
		t->interval_ms *= 2;
}

/* Up to three keys that do the same. */
static const struct key {
	int codes[3];
	void (*handler)(struct top *t);
	const char *keys, *help; /* NULL: no line of its own in the help */
} keys[] = {
	{{'q', 'Q', KEY_F(10)}, key_quit, "q", "quit"},
	{{'?', 'h', KEY_F(1)}, key_help, "?", "this help; any key leaves it"},
	{{'\t', 0, 0}, key_view, "Tab", "rules, or flows"},
	{{'\n', '\r', KEY_ENTER}, key_enter, "Enter", "flows of the chosen rule"},
	{{KEY_UP, 'k', 0}, key_up, "Up Down", "choose a row; PageUp PageDown Home End"},
	{{KEY_DOWN, 'j', 0}, key_down, NULL, NULL},
	{{KEY_PPAGE, 0, 0}, key_page_up, NULL, NULL},
	{{KEY_NPAGE, 0, 0}, key_page_down, NULL, NULL},
	{{KEY_HOME, 'g', 0}, key_home, NULL, NULL},
	{{KEY_END, 'G', 0}, key_end, NULL, NULL},
	{{'<', KEY_LEFT, 0},
	 key_order_left,
	 "< >",
	 "order by the column to the left, to the right"},
	{{'>', KEY_RIGHT, 0}, key_order_right, NULL, NULL},
	{{'r', 'R', 0}, key_reverse, "r", "the other way round"},
	{{'/', 'f', 0}, key_filter, "/", "show only rows with a text in them; Enter ends it"},
	{{KEY_ESCAPE, 0, 0}, key_escape, "Esc", "without filter; back to the rules"},
	{{' ', 'p', 0}, key_pause, "Space", "pause, go on"},
	{{'+', '=', 0}, key_faster, "+ -", "sample more often, less often"},
	{{'-', 0, 0}, key_slower, NULL, NULL},
};

static void press(struct top *t, int code)
{
	for (size_t i = 0; i < ARRAY_SIZE(keys); i++)
		for (size_t n = 0; n < ARRAY_SIZE(keys[i].codes) && keys[i].codes[n]; n++)
			if (keys[i].codes[n] == code) {
				keys[i].handler(t);
				return;
			}
}

/* The filter works while it is typed. */
static void type_filter(struct top *t, int code)
{
	char *filter = table_of(t)->filter;
	size_t length = strlen(filter);

	if (code == '\n' || code == '\r' || code == KEY_ENTER || code == KEY_ESCAPE)
		t->mode = MODE_TABLE;
	if (code == KEY_ESCAPE || code == KEY_CONTROL_U)
		filter[0] = '\0';
	else if ((code == KEY_BACKSPACE || code == 127 || code == '\b') && length > 0)
		filter[length - 1] = '\0';
	else if (code >= ' ' && code < 127 && length + 1 < TOP_FILTER_MAX) {
		filter[length] = (char)code;
		filter[length + 1] = '\0';
	}
	fill(t);
}

static void read_key(struct top *t, int code)
{
	if (code == KEY_RESIZE)
		return; /* curses knows the new size already: drawing is all there is to do */
	if (t->mode == MODE_FILTER)
		type_filter(t, code);
	else if (t->mode == MODE_HELP)
		t->mode = MODE_TABLE;
	else
		press(t, code);
}

/* ---- the screen ---- */

static void draw_help(int height, int width)
{
	struct top_key_help help[ARRAY_SIZE(keys) + 1];
	size_t n = 0;

	for (size_t i = 0; i < ARRAY_SIZE(keys); i++)
		if (keys[i].help)
			help[n++] = (struct top_key_help){keys[i].keys, keys[i].help};
	help[n] = (struct top_key_help){NULL, NULL};
	top_screen_draw_help(help, height, width);
}

static void draw_foot(struct top *t, int y, int width)
{
	const struct top_table *table = table_of(t);
	char text[256];

	if (t->mode == MODE_FILTER)
		snprintf(text, sizeof(text), "filter: %s_", table->filter);
	else if (table->filter[0])
		snprintf(text, sizeof(text), "filter \"%s\": %zu rows; Esc ends it", table->filter,
			 table->n_rows);
	else if (t->view == VIEW_FLOWS && t->data.flows_cut)
		snprintf(text, sizeof(text),
			 "the first %d flows only: choose a rule; ? help, q quit", TOP_FLOWS_MOST);
	else
		snprintf(text, sizeof(text), "? help  Tab %s  < > r order  / filter  q quit",
			 t->view == VIEW_RULES ? "flows" : "rules");
	top_screen_draw_foot(text, y, width);
}

static void draw_table(struct top *t, int height, int width)
{
	/* A small screen keeps two lines of the table, then the head. */
	int head = height >= TOP_HEAD_LINES + 4 ? TOP_HEAD_LINES
		   : height > 4			? 2
		   : height > 2			? 1
						: 0;
	int foot = height > 3 ? 1 : 0;
	char view[64] = "rules";

	if (t->view == VIEW_FLOWS && t->rule)
		snprintf(view, sizeof(view), "flows of rule %" PRId64, t->rule);
	else if (t->view == VIEW_FLOWS)
		strcpy(view, "flows");
	top_screen_draw_head(&t->data, view, t->paused, head, width);
	top_table_draw(table_of(t), head, height - head - foot, width);
	if (foot)
		draw_foot(t, height - 1, width);
}

/* A change of size while curses was starting has told nobody. */
static void follow_size(void)
{
	struct winsize size;

	if (ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_row && size.ws_col &&
	    is_term_resized(size.ws_row, size.ws_col))
		resizeterm(size.ws_row, size.ws_col);
}

static void draw(struct top *t)
{
	int height, width;

	follow_size();
	getmaxyx(stdscr, height, width);
	erase();
	if (t->mode == MODE_HELP)
		draw_help(height, width);
	else
		draw_table(t, height, width);
	refresh();
}

/* ---- the loop ---- */

static volatile sig_atomic_t interrupted;

static void on_signal(int signal_number)
{
	interrupted = 1;
}

static void run(struct top *t)
{
	int64_t next = 0, now;
	int code;

	while (!t->over && !interrupted) {
		now = now_ms();
		if (now >= next) {
			if (!t->paused)
				sample(t);
			next = now + t->interval_ms;
		}
		draw(t);
		timeout((int)(next > now_ms() ? next - now_ms() : 0));
		code = getch();
		if (code != ERR)
			read_key(t, code);
	}
}

static enum exit_code read_interval(const struct options *o, int64_t *ret, struct failure *f)
{
	const char *text = o->values[OPTION_INTERVAL];
	double seconds = 1;
	char *end;

	if (text) {
		errno = 0;
		seconds = strtod(text, &end);
		if (errno || end == text || *end ||
		    !(seconds >= INTERVAL_LEAST && seconds <= INTERVAL_MOST))
			return failure_set(f, CTL_USAGE,
					   "--interval %s: not from %.1f to %.0f seconds", text,
					   INTERVAL_LEAST, INTERVAL_MOST);
	}
	*ret = (int64_t)(seconds * 1000);
	return CTL_DONE;
}

static enum exit_code start_screen(SCREEN **ret, struct failure *f)
{
	if (!isatty(STDOUT_FILENO) || !isatty(STDIN_FILENO)) {
		failure_set(f, CTL_USAGE, "top needs a terminal");
		failure_hint(f,
			     "`redirectctl list`, `stats` and `monitor` print what can be piped");
		return CTL_USAGE;
	}
	*ret = newterm(NULL, stdout, stdin);
	if (!*ret)
		return failure_set(f, CTL_FAILED, "this terminal (TERM=%s) is not known here",
				   getenv("TERM") ? getenv("TERM") : "");
	top_screen_start(text_wants_colour(stdout));
	cbreak();
	noecho();
	nonl();
	curs_set(0);
	set_escdelay(50); /* milliseconds: a lone Esc is a key */
	keypad(stdscr, TRUE);
	signal(SIGINT, on_signal);
	signal(SIGTERM, on_signal);
	return CTL_DONE;
}

enum exit_code verb_top(const struct options *o, struct failure *f)
{
	struct top t = {
		.socket = options_socket(o),
		.tables = {{.columns = rule_columns,
			    .n_columns = ARRAY_SIZE(rule_columns),
			    .order = rule_order,
			    .is_dim = rule_is_off},
			   {.columns = flow_columns,
			    .n_columns = ARRAY_SIZE(flow_columns),
			    .order = flow_order}},
	};
	enum exit_code code = read_interval(o, &t.interval_ms, f);
	SCREEN *screen;

	if (code == CTL_DONE && options_has(o, OPTION_JSON))
		code = failure_set(f, CTL_USAGE,
				   "top has no -j: `redirectctl -j list` is for programs");
	if (code == CTL_DONE)
		code = start_screen(&screen, f);
	if (code != CTL_DONE)
		return code;
	run(&t);
	endwin();
	delscreen(screen);
	top_table_clear(&t.tables[VIEW_RULES]);
	top_table_clear(&t.tables[VIEW_FLOWS]);
	top_data_clear(&t.data);
	return CTL_DONE;
}
