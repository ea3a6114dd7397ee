"""Invoke's executor, with a screen for all verbs of one command. `invoke.yaml` names it."""

import signal
from typing import Any

from invoke import executor

from conf.process.screen import screen


class Executor(executor.Executor):
    def execute(self, *tasks: Any) -> Any:
        self.config.load_shell_env()  # INVOKE_RUN_ECHO
        signal.signal(signal.SIGTERM, signal.default_int_handler)  # as Ctrl-C: whoever ends it is told what goes on, and keeps a cursor
        with screen.opened(self.config.run.echo):
            return super().execute(*tasks)
