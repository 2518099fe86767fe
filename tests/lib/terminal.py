# SPDX-License-Identifier: GPL-2.0-or-later
"""A terminal for programs that want one: tmux, without anybody's configuration.

Owns the tmux server it starts and its socket; both are gone after the context.
"""

import contextlib
import os
import shlex
import shutil
import subprocess
import tempfile

from netns import eventually


class Terminal:
    """A program in a terminal of so many columns and lines."""

    def __init__(self, *command, columns=80, lines=24, environment=None):
        self.command, self.size = list(map(str, command)), (columns, lines)
        self.environment = {"TERM": "screen-256color", "LC_ALL": "C.UTF-8", "PATH": os.environ["PATH"],
                            **(environment or {})}

    def __enter__(self):
        self.folder = tempfile.mkdtemp(prefix="redirectd-terminal.")
        self.path = os.path.join(self.folder, "tmux")
        self.status = os.path.join(self.folder, "status")
        # The program's end is seen by what it left on the screen, so the pane stays.
        settings = [f"{name}={value}" for name, value in self.environment.items()]
        # tmux does not always tell how a program ended: a shell around it does.
        program = shlex.join(["env", "-i", *settings, "sh", "-c",
                              'trap : INT; "$@"; echo $? > "$0"', self.status, *self.command])
        self.tmux("-f", "/dev/null", "new-session", "-d", "-x", self.size[0], "-y", self.size[1], program, ";",
                  "set-option", "-g", "remain-on-exit", "on", ";", "set-option", "-g", "status", "off")
        self.resize(*self.size)
        return self

    def __exit__(self, *error):
        if error and error[0]:
            print(f"--- screen\n{self.screen()}")
        self.tmux("kill-server", check=False)
        shutil.rmtree(self.folder, ignore_errors=True)

    def tmux(self, *arguments, check=True):
        environment = {k: v for k, v in os.environ.items() if not k.startswith("TMUX")}
        done = subprocess.run(["tmux", "-u", "-S", self.path, *map(str, arguments)], env=environment, text=True,
                              capture_output=True, check=False, timeout=60)
        assert not check or done.returncode == 0, f"tmux {arguments}: {done.stderr}"
        return done.stdout

    def keys(self, *keys):
        """Names of keys as tmux has them: Enter, Tab, Up, C-c."""
        self.tmux("send-keys", *keys)

    def type(self, text):
        self.tmux("send-keys", "-l", "--", text)

    def screen(self):
        return self.tmux("capture-pane", "-p", check=False)

    def history(self):
        """The screen and what has left it upwards; tmux pushes up a line when the program ends."""
        return self.tmux("capture-pane", "-p", "-S", "-")

    def styled(self):
        """The screen with its escape sequences."""
        return self.tmux("capture-pane", "-p", "-e")

    def shows(self, *texts):
        """Waits until all texts are on the screen; returns it."""
        seen = [""]

        def there():
            seen[0] = self.screen()
            return all(text in seen[0] for text in texts) and seen[0]
        try:
            return eventually(there)
        except AssertionError:
            raise AssertionError(f"not on the screen: {[t for t in texts if t not in seen[0]]}\n"
                                 f"{seen[0]}") from None

    def resize(self, columns, lines):
        self.tmux("resize-window", "-x", columns, "-y", lines)

    def ended(self):
        """The exit status, or None while it runs."""
        with contextlib.suppress(FileNotFoundError, ValueError), open(self.status, encoding="utf-8") as f:
            return int(f.read())
        return None

    def pid(self):
        """The program's, which is the shell's only child."""
        shell = self.tmux("display-message", "-p", "#{pane_pid}").strip()
        return int(subprocess.run(["pgrep", "-P", shell], capture_output=True, text=True, check=True).stdout)
