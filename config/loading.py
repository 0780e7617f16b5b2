"""Reads config.yaml and the environment into one `VigilConfig`, or says what is wrong where.

The environment wins over the file, and the file over the embedded servers' addresses.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from config.problems import Key, Problem, dotted, from_validation
from config.schema import VigilConfig, is_secret, model_at
from config.yaml_source import YamlSource, read_yaml

PREFIX = "VIGIL_"
SHORT_NAMES: dict[str, Key] = {
    "KAFKA_BOOTSTRAP_SERVERS": ("kafka", "bootstrap_servers"),
    "DATABASE_URL": ("database", "url"),
    "REDIS_URL": ("redis", "url"),
}
LOOPBACK = frozenset({"127.0.0.1", "localhost", "::1", "[::1]"})


class ConfigError(Exception):
    """The configuration can't be used; `problems` says why, each in words for people."""

    def __init__(self, problems: list[Problem]) -> None:
        self.problems = problems
        super().__init__("\n\n".join(problem.text() for problem in problems))


@dataclass(frozen=True, slots=True)
class Loaded:
    """The configuration, and where each key that was set came from."""

    config: VigilConfig
    origins: Mapping[Key, str]

    def named(self, *key: str | int) -> bool:
        """Whether the file or the environment gave this key, the embedded servers aside."""
        return self.origins.get(key, "embedded") != "embedded"


def load(
    path: Path,
    environ: Mapping[str, str],
    *,
    embedded: Mapping[str, str] | None = None,
) -> Loaded:
    """The configuration of `path` under `environ`, over the embedded servers' addresses."""
    problems: list[Problem] = []
    source = read_yaml(path, problems)
    tree: dict[str, Any] = {}
    origins: dict[Key, str] = {}
    for name, value in (embedded or {}).items():
        _put(tree, origins, SHORT_NAMES[name], value, "embedded")
    _take_file(tree, origins, source, problems)
    _take_environment(tree, origins, environ, problems)
    try:
        config = VigilConfig.model_validate(_as_lists(tree))
    except ValidationError as error:
        problems += from_validation(error, _as_lists(tree), origins, source.where)
    if problems:
        raise ConfigError(problems)
    loaded = Loaded(config, origins)
    on_own_servers = any(loaded.named(*key) for key in SHORT_NAMES.values())
    embedded_default = environ.get("VIGIL_EMBEDDED") == "1" or not on_own_servers
    return Loaded(_resolved(config, embedded_default), origins)


def secret_value(environ: Mapping[str, str], name: str) -> str | None:
    """The value of `name`, or the content of the file that `name`_FILE names."""
    if value := environ.get(name):
        return value
    path = environ.get(f"{name}_FILE")
    if not path:
        return None
    try:
        content = Path(path).read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8 text"
        raise ConfigError(
            [Problem(f"environment variable {name}_FILE", "", f"{path!r} ({reason})",
                     "the path of a readable file with the secret in it")]
        ) from None  # fmt: skip
    if not content:
        raise ConfigError(
            [Problem(f"environment variable {name}_FILE", "", f"{path!r} (empty)",
                     "the path of a file with the secret in it")]
        )  # fmt: skip
    return content


def refuse_if_invalid() -> None:
    """For entry points: end with the message, and no traceback, when the settings are wrong."""
    from config import settings

    if settings.VIGIL_ERRORS:
        raise SystemExit(
            "Vigil can't start: the configuration has mistakes.\n\n"
            + "\n\n".join(problem.text() for problem in settings.VIGIL_ERRORS)
        )


def _take_file(
    tree: dict[str, Any], origins: dict[Key, str], source: YamlSource, problems: list[Problem]
) -> None:
    for key, value in source.leaves():
        where = source.where(key)
        section = model_at(key[:-1])
        if section is not None and is_secret(section, str(key[-1])):
            short = next((name for name, at in SHORT_NAMES.items() if at == key), None)
            name = short or PREFIX + "__".join(str(part) for part in key).upper()
            problems.append(
                Problem(where, dotted(key), "a secret in the file",
                        f"secrets come from the environment: {name}, or {name}_FILE with a path")
            )  # fmt: skip
        else:
            _put(tree, origins, key, value, where)


def _take_environment(
    tree: dict[str, Any],
    origins: dict[Key, str],
    environ: Mapping[str, str],
    problems: list[Problem],
) -> None:
    """Short names first, so that a long name for the same key has the last word."""
    named: list[tuple[str, Key]] = [
        (name, key) for name, key in SHORT_NAMES.items() if {name, f"{name}_FILE"} & environ.keys()
    ]
    named += [
        (name.removesuffix("_FILE") if _is_file_of_secret(name) else name, _key_of(name))
        for name in sorted(environ)
        if name.startswith(PREFIX) and ("__" in name or name == "VIGIL_STREAMS")
    ]
    for name, key in named:
        try:
            value = secret_value(environ, name)
        except ConfigError as error:
            problems += error.problems
            continue
        # A variable that is set and empty counts as unset: compose files pass such on.
        if value:
            origin = f"environment variable {name}"
            _put(tree, origins, key, _decoded(value), origin)


def _key_of(name: str) -> Key:
    name = name.removesuffix("_FILE") if _is_file_of_secret(name) else name
    parts = name.removeprefix(PREFIX).lower().split("__")
    return tuple(int(part) if part.isdigit() else part for part in parts)


def _is_file_of_secret(name: str) -> bool:
    parts = name.removeprefix(PREFIX).lower().split("__")
    section = model_at(tuple(parts[:-1]))
    return (
        name.endswith("_FILE")
        and section is not None
        and is_secret(section, parts[-1].removesuffix("_file"))
    )


def _decoded(value: str) -> Any:
    """JSON objects and lists as such; any other text is for the key's own type to read."""
    if value[:1] in "[{":
        try:
            return json.loads(value)
        except json.JSONDecodeError:
            return value
    return value


def _put(tree: dict[Any, Any], origins: dict[Key, str], key: Key, value: Any, origin: str) -> None:
    node = tree
    for part in key[:-1]:
        child = node.get(part)
        if isinstance(child, list):
            child = dict(enumerate(child))
        if not isinstance(child, dict):
            child = {}
        node[part] = child
        node = child
    node[key[-1]] = value
    origins[key] = origin


def _as_lists(node: Any) -> Any:
    """Mappings whose keys are all numbers are lists: that is how their items were put."""
    if not isinstance(node, dict):
        return node
    if node and all(isinstance(key, int) for key in node):
        return [_as_lists(node[key]) for key in sorted(node)]
    return {key: _as_lists(value) for key, value in node.items()}


def _resolved(config: VigilConfig, embedded_default: bool) -> VigilConfig:
    """Fills what depends on where Vigil runs, so that readers see True or False.

    With the embedded servers and on loopback, the documented API calls are open and the pages
    are served by plain http.
    """
    on_loopback = config.dashboard.host in LOOPBACK
    api, dashboard = config.api, config.dashboard
    if api.open is None:
        api = api.model_copy(update={"open": embedded_default and on_loopback})
    if dashboard.https is None:
        dashboard = dashboard.model_copy(update={"https": not (embedded_default or on_loopback)})
    return config.model_copy(update={"api": api, "dashboard": dashboard})


def config_path(environ: Mapping[str, str] = os.environ) -> Path:
    """The file to read: VIGIL_CONFIG, or the one beside this module."""
    named = environ.get("VIGIL_CONFIG")
    return Path(named) if named else Path(__file__).with_name("config.yaml")
