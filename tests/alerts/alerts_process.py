"""`manage.py runalerts` as a process of its own, on the test's database."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile

from tests.integration.harness import ROOT, database_url


class Process:
    """One `manage.py runalerts`."""

    def __init__(self, name: str, topic: str, **more: str) -> None:
        self._log = tempfile.TemporaryFile()  # noqa: SIM115
        env = os.environ | {"DATABASE_URL": database_url(), "VIGIL_KAFKA__ALERTS_TOPIC": topic}
        env |= more
        self.process = subprocess.Popen(
            [sys.executable, "manage.py", "runalerts", "--instance", name],
            cwd=ROOT, env=env, stdout=self._log, stderr=subprocess.STDOUT,
        )  # fmt: skip

    def output(self) -> str:
        return os.pread(self._log.fileno(), 1 << 20, 0).decode()

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()
