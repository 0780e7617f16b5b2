"""YAML as people write and read it: of rules; the configuration is `config`'s alone to read."""

from __future__ import annotations

from typing import Any

import yaml

from alerts.problems import Problem, WrongError

LONGEST = 1_000_000


def written(data: Any) -> str:
    """Plain YAML in the order given; nothing for nothing."""
    if not data:
        return ""
    return yaml.safe_dump(data, sort_keys=False, allow_unicode=True, width=100)


def read(text: str, file: str = "", *, longest: int = LONGEST) -> Any:
    """Of a text without aliases, a few lines of which can stand for gigabytes.

    Raises:
        WrongError: for what is no YAML, with its line.
    """
    if len(text) > longest:
        allowed = f"at most {longest:,} characters"
        raise WrongError([Problem("", f"{len(text):,} characters", allowed, file)])
    try:
        for token in yaml.scan(text):
            if isinstance(token, yaml.AliasToken):
                line = token.start_mark.line + 1
                raise WrongError([Problem(f"line {line}", "an alias (*)", "plain values", file)])
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        place = f"line {mark.line + 1}, column {mark.column + 1}" if mark is not None else ""
        what = str(getattr(error, "problem", None) or "something that is no YAML")
        raise WrongError([Problem(place, what, "YAML such as `cooldown_s: 1800`", file)]) from None
    except (ValueError, RecursionError, OverflowError) as error:
        raise WrongError([Problem("", str(error)[:200], "YAML that can be read", file)]) from None
