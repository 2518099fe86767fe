/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * `completion`: what a shell needs to complete our command lines. The scripts know no verbs: at
 * each tab they ask `completion words`, so that they fit whatever version they meet.
 */
#include <string.h>

#include "ctl/complete.h"
#include "ctl/options.h"
#include "ctl/verbs.h"

static const char bash_script[] =
	"# bash completion for redirectctl: made by `redirectctl completion bash`\n"
	"_redirectctl() {\n"
	"\tlocal word\n"
	"\tCOMPREPLY=()\n"
	"\twhile IFS=$'\\t' read -r word _; do\n"
	"\t\tif [[ $word == " COMPLETE_FILES " ]]; then\n"
	"\t\t\tcompopt -o filenames\n"
	"\t\t\tmapfile -t -O ${#COMPREPLY[@]} COMPREPLY < \\\n"
	"\t\t\t\t<(compgen -f -- \"${COMP_WORDS[COMP_CWORD]}\")\n"
	"\t\telse\n"
	"\t\t\tCOMPREPLY+=(\"$word\")\n"
	"\t\tfi\n"
	"\tdone < <(\"${COMP_WORDS[0]}\" completion words -- \"${COMP_WORDS[@]:1:COMP_CWORD}\" "
	"2>/dev/null)\n"
	"}\n"
	"complete -F _redirectctl redirectctl\n";

static const char zsh_script[] =
	"#compdef redirectctl\n"
	"# zsh completion for redirectctl: made by `redirectctl completion zsh`\n"
	"_redirectctl() {\n"
	"\tlocal word help\n"
	"\tlocal -a found\n"
	"\twhile IFS=$'\\t' read -r word help; do\n"
	"\t\tif [[ $word == " COMPLETE_FILES " ]]; then\n"
	"\t\t\t_files\n"
	"\t\telse\n"
	"\t\t\tfound+=(\"${word//:/\\\\:}${help:+:$help}\")\n"
	"\t\tfi\n"
	"\tdone < <(\"${words[1]}\" completion words -- \"${(@)words[2,CURRENT]}\" 2>/dev/null)\n"
	"\t_describe -V redirectctl found\n"
	"}\n"
	"if [[ $funcstack[1] == _redirectctl ]]; then\n"
	"\t_redirectctl \"$@\"\n"
	"else\n"
	"\tcompdef _redirectctl redirectctl\n"
	"fi\n";

static const char fish_script[] =
	"# fish completion for redirectctl: made by `redirectctl completion fish`\n"
	"function __redirectctl_complete\n"
	"\tset -l before (commandline -opc)\n"
	"\tset -l current (commandline -ct)\n"
	"\tfor line in ($before[1] completion words -- $before[2..-1] \"$current\" 2>/dev/null)\n"
	"\t\tif test \"$line\" = " COMPLETE_FILES "\n"
	"\t\t\t__fish_complete_path \"$current\"\n"
	"\t\telse\n"
	"\t\t\techo $line\n"
	"\t\tend\n"
	"\tend\n"
	"end\n"
	"complete -c redirectctl -f -k -a '(__redirectctl_complete)'\n";

static const struct {
	const char *shell, *script;
} scripts[] = {{"bash", bash_script}, {"zsh", zsh_script}, {"fish", fish_script}};

enum exit_code verb_completion(const struct options *o, struct failure *f)
{
	const char *shell = o->operands[0];

	if (strcmp(shell, "words") == 0) {
		complete_words(o->operands + 1, o->n_operands - 1, stdout);
		return CTL_DONE;
	}
	if (o->n_operands > 1)
		return failure_set(f, CTL_USAGE, "\"%s\" is too much: completion takes one shell",
				   o->operands[1]);
	for (size_t i = 0; i < sizeof(scripts) / sizeof(scripts[0]); i++)
		if (strcmp(shell, scripts[i].shell) == 0) {
			fputs(scripts[i].script, stdout);
			return CTL_DONE;
		}
	return failure_set(f, CTL_USAGE, "unknown shell \"%s\"; it is one of bash, zsh, fish",
			   shell);
}
