"""Kafka's jars: downloaded once, each checked against the sha256 in kafka.lock, kept flat."""

from __future__ import annotations

import fcntl
import hashlib
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

from config.embedded.errors import OWN_SERVERS, EmbeddedError

ENDPOINT = "org.apache.kafka:kafka_2.13:4.4.0+org.slf4j:slf4j-simple:1.7.36"
LOCK_FILE = Path(__file__).with_name("kafka.lock")


def kafka_jars(cache: Path, say: Callable[[str], None]) -> Path:
    """The folder with exactly the locked jars; downloads what is missing."""
    locked = read_lock()
    folder = cache / "kafka-4.4.0"
    if not _wrong(folder, locked):
        return folder
    folder.mkdir(parents=True, exist_ok=True)
    # Two first starts at once: one downloads, the other waits and finds the jars.
    with (cache / ".download").open("w") as guard:
        fcntl.flock(guard, fcntl.LOCK_EX)
        if _wrong(folder, locked):
            say("Downloading Apache Kafka (43 MB, once) …")
            _download(cache / "jgo", folder, locked)
    return folder


def read_lock(path: Path = LOCK_FILE) -> dict[str, str]:
    """File name to sha256."""
    lines = (line.split() for line in path.read_text(encoding="utf-8").splitlines())
    return {words[1]: words[0] for words in lines if len(words) == 2 and words[0] != "#"}


def _download(work: Path, folder: Path, locked: Mapping[str, str]) -> None:
    import jgo  # heavy, and only needed here

    try:
        jars = jgo.build(endpoint=ENDPOINT, cache_dir=work).all_jars
    except Exception as error:  # it raises whatever its HTTP client does
        raise EmbeddedError(
            f"Apache Kafka could not be downloaded ({type(error).__name__}: {error}).\n"
            f"Behind a company's mirror, jgo's own configuration names it. {OWN_SERVERS}"
        ) from error
    found = {Path(jar).name: Path(jar) for jar in jars}
    for name, expected in locked.items():
        if name not in found:
            raise EmbeddedError(f"Kafka's {name} is in {LOCK_FILE.name} but was not downloaded.")
        if _sha256(found[name]) != expected:
            raise EmbeddedError(
                f"Kafka's {name} is not the file that {LOCK_FILE.name} expects, so it is not run. "
                f"Expected sha256 {expected}. Remove {work} and try again. {OWN_SERVERS}"
            )
        shutil.copyfile(found[name], folder / name)
    for extra in {path.name for path in folder.iterdir()} - set(locked):
        (folder / extra).unlink()
    shutil.rmtree(work, ignore_errors=True)


def _wrong(folder: Path, locked: Mapping[str, str]) -> bool:
    present = {path.name for path in folder.glob("*")} if folder.is_dir() else set()
    return present != set(locked) or any(
        _sha256(folder / name) != expected for name, expected in locked.items()
    )


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
