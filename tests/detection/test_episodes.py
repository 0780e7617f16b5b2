"""The episodes' kernel against a slow reference that keeps plain lists and dictionaries."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from detection import episodes
from detection.episodes import EXTEND, NONE, ONSET, RISE, Limits, Outcome
from detection.state import StateStore
from detection.thresholds import (
    CANDIDATE_FROM,
    HELD_BACK,
    LEVELS,
    RUNGS,
    WOULD_OPEN,
    Policy,
    PolicyTable,
)

START = 1_704_067_200_000_000
SECOND = 1_000_000
DAY = 86_400 * SECOND
SHORTEST = 4.5 / 7  # of the memory: that of a young series


@dataclass
class Events:
    """Columns as the kernel takes them; all of one policy table."""

    slot: NDArray[np.int64]
    time_us: NDArray[np.int64]
    offset: NDArray[np.int64]
    value: NDArray[np.float64]
    score: NDArray[np.float64]
    expected: NDArray[np.float64]
    policy: NDArray[np.int32]

    def part(self, start: int, end: int) -> Events:
        return Events(**{name: column[start:end] for name, column in vars(self).items()})


def made(score: list[float], step_s: float | list[float] = 10, **more: Any) -> Events:
    """Events of one series with these scores."""
    n = len(score)
    steps = np.broadcast_to(np.asarray(step_s, dtype=np.float64), n)
    time = START + np.round(np.concatenate([[0], np.cumsum(steps)[:-1]]) * SECOND).astype(np.int64)
    value = np.asarray(more.get("value", np.arange(n)), dtype=np.float64)
    mid = np.asarray(more.get("mid", np.zeros(n)), dtype=np.float64)
    return Events(
        np.zeros(n, dtype=np.int64), time, np.arange(n, dtype=np.int64) * 2, value,
        np.asarray(score, dtype=np.float64), np.stack([mid - 1, mid, mid + 1], axis=1),
        np.zeros(n, dtype=np.int32),
    )  # fmt: skip


def random_events(n: int, seed: int) -> Events:
    """Three series: warming up, faults of all lengths, late events, short and long gaps."""
    rng = np.random.default_rng(seed)
    slot = rng.integers(0, 3, n)
    step = rng.choice([1, 7, 30, 61], n) * SECOND
    step[rng.random(n) < 0.01] = 4_000 * SECOND
    time = START + np.cumsum(step)
    late = rng.random(n) < 0.05
    time[late] -= rng.choice([5, 100, 5_000], late.sum()) * SECOND
    score = rng.beta(1, 6, n)
    busy = np.repeat(rng.random(n // 10 + 1) < 0.15, 10)[:n]
    score[busy] = rng.beta(6, 2, int(busy.sum()))
    score[rng.random(n) < 0.02] = 0.8
    score[rng.random(n) < 0.05] = np.nan
    value = rng.normal(0, 10, n)
    mid = rng.normal(0, 5, n)
    mid[rng.random(n) < 0.05] = np.nan
    return Events(
        slot, time, np.arange(n, dtype=np.int64), value, score,
        np.stack([mid - 1, mid, mid + 1], axis=1), (slot % 3).astype(np.int32),
    )  # fmt: skip


POLICIES = PolicyTable(
    [
        Policy("plain", threshold=0.8),
        Policy("up", threshold=0.7, direction="up", min_absolute_deviation=3.0,
               source_pattern="u*"),
        Policy("down", threshold=0.6, direction="down", min_relative_deviation=0.5,
               medium_from=0.65, high_from=0.7, critical_from=0.75),
    ]
)  # fmt: skip
BUDGETED = PolicyTable(
    [
        replace(p, max_onsets_per_day=budget)
        for p, budget in zip(POLICIES.policies, (0.5, 2, 4), strict=False)
    ]
)
LIMITS = Limits(quiet_events=5, max_gap_us=1_000 * SECOND)


def new_state(slots: int = 3) -> NDArray[np.float64]:
    store = StateStore([episodes.component()], capacity=slots)
    store.allocate(slots)
    return store.rows("episodes")


def advance(
    state: NDArray[np.float64], e: Events, limits: Limits = LIMITS, table: PolicyTable = POLICIES
) -> Outcome:
    return episodes.advance(
        state, e.slot, e.time_us, e.offset, e.value, e.score, e.expected, e.policy, table.rows,
        limits,
    )  # fmt: skip


# -- the reference -----------------------------------------------------------------------------


@dataclass
class Budget:
    """How a policy counts onsets: each fades, and none goes beyond twice what is allowed."""

    memory: float
    first: int
    allowed: float

    @classmethod
    def of(cls, p: Policy, first: int, now: int) -> Budget:
        limit = p.max_onsets_per_day
        memory = 7 * DAY * max(1.0, 1 / limit if limit else 0.0)
        lived = 0.94 * memory * (1 - math.exp((first - now) / memory))
        return cls(memory, first, limit * max(memory * 2 / 7, lived) / DAY)

    def faded(self, since: int, now: int) -> float:
        """What is left of a count: by steps, each with the memory of its time."""
        edges = [since, *(self.first + self.memory * x for x in (SHORTEST, 1.0)), now]
        left = 1.0
        for a, b in pairwise(sorted(min(max(edge, since), now) for edge in edges)):
            if b <= self.first + self.memory * SHORTEST:
                left *= math.exp((a - b) / (self.memory * SHORTEST))
            elif b <= self.first + self.memory:
                left *= (a - self.first) / (b - self.first)
            else:
                left *= math.exp((a - b) / self.memory)
        return left


@dataclass
class Count:
    """Onsets as they would be at one threshold, or as they were."""

    threshold: float = 0.0
    since: float = math.inf
    value: float = 0.0
    at: int = 0

    def now(self, now: int, budget: Budget) -> float:
        return self.value * budget.faded(self.at, now) if self.value else 0.0

    def add(self, now: int, budget: Budget) -> None:
        limit = 2 * budget.allowed if budget.allowed else math.inf
        self.value, self.at = min(self.now(now, budget) + 1, limit), now

    def see(self, score: float, meant: bool, now: int, budget: Budget, limits: Limits) -> bool:
        reached = meant and score >= self.threshold
        opens = reached and self.since >= limits.quiet_events
        self.since = 0 if reached else self.since + 1
        if opens:
            self.add(now, budget)
        return opens


@dataclass
class Line:
    """One series, as the words of the design say."""

    events: list[tuple[int, float]] = field(default_factory=list)
    newest: int | None = None
    episode: dict[str, Any] | None = None
    quiet: int = 0
    since_over: list[float] = field(default_factory=lambda: [math.inf] * len(LEVELS))
    first: int = 0
    own: Count = field(default_factory=Count)
    rungs: list[Count] = field(default_factory=lambda: [Count(x) for x in RUNGS.tolist()])
    told: Count = field(default_factory=Count)
    raised_to: float = 0.0
    minute: dict[str, Any] | None = None


def asked(line: Line, now: int, p: Policy, budget: Budget) -> float:
    """The threshold that keeps to the budget, by what came before."""
    if p.max_onsets_per_day == 0:
        return p.threshold
    ladder = [line.own, *(r for r in line.rungs if r.threshold > p.threshold)]
    fitting = (r.threshold for r in ladder if r.now(now, budget) <= budget.allowed)
    found = next(fitting, math.inf)
    if line.told.now(now, budget) + 1 > 2 * budget.allowed:
        found = max(found, far(p))
    last = line.told.at or -math.inf
    if found > far(p) and now - last >= DAY / p.max_onsets_per_day:
        found = far(p)
    return found


def far(p: Policy) -> float:
    return 1 - (1 - p.threshold) ** 3


def over(score: float, value: float, mid: float, p: Policy) -> bool:
    return score >= p.threshold and meant(value, mid, p)


def meant(value: float, mid: float, p: Policy) -> bool:
    if p.direction == "both" and not p.min_absolute_deviation and not p.min_relative_deviation:
        return True
    if math.isnan(mid):
        return p.direction == "both" and p.min_absolute_deviation == 0
    away = value - mid
    right_way = {"both": True, "up": away >= 0, "down": away <= 0}[p.direction]
    far = abs(away) >= p.min_absolute_deviation and abs(away) >= p.min_relative_deviation * abs(mid)
    return right_way and far


def rank_of(score: float, p: Policy) -> int:
    return 1 + sum(score >= x for x in (p.medium_from, p.high_from, p.critical_from))


def reference(e: Events, limits: Limits = LIMITS, table: PolicyTable = POLICIES) -> dict[str, Any]:
    lines: dict[int, Line] = {}
    out: dict[str, Any] = {
        "change": [], "severity": [], "late": [], "levels": [], "sequence": [],
        "onset_offset": [], "closed": [], "minutes": [], "context": [],
        "threshold": [],
    }  # fmt: skip
    for i in range(len(e.slot)):
        slot, t, x, score = int(e.slot[i]), int(e.time_us[i]), float(e.value[i]), float(e.score[i])
        p = table.policies[int(e.policy[i])]
        line = lines.setdefault(slot, Line(first=t, own=Count(p.threshold)))
        out["late"].append(line.newest is not None and t < line.newest)
        gap = line.newest is not None and t - line.newest > limits.max_gap_us
        line.newest = t if line.newest is None else max(t, line.newest)
        line.events.append((t, x))
        if gap:
            line.since_over = [math.inf] * len(LEVELS)
            for rung in (line.own, *line.rungs):
                rung.since = math.inf
            close(line, slot, i, out)
        change, rank = NONE, 0
        mid = float(e.expected[i, 1])
        budget = Budget.of(p, line.first, line.newest)
        inside = False
        if over(score, x, mid, p):
            rank = rank_of(score, p)
            if line.episode is None:
                line.raised_to = asked(line, line.newest, p, budget)
            inside = score >= line.raised_to
        if inside:
            if line.episode is None:
                change = ONSET
                line.episode = {
                    "onset": int(e.offset[i]), "onset_time": t, "end_time": t, "count": 0,
                    "severity": rank, "sequence": 0, "peak": (-1.0, 0.0, 0),
                }  # fmt: skip
                line.told.add(line.newest, budget)
                out["context"].append((i, line.events[-episodes.RING_SIZE :]))
            elif rank > line.episode["severity"]:
                change = RISE
                line.episode["severity"] = rank
                line.episode["sequence"] += 1
            else:
                change = EXTEND
            one = line.episode
            one["count"] += 1
            one["end"] = int(e.offset[i])
            one["end_time"] = max(one["end_time"], t)
            if score > one["peak"][0]:
                one["peak"] = (score, x, t)
            line.quiet = 0
        elif line.episode is not None:
            line.quiet += 1
        out["change"].append(change)
        out["severity"].append(rank)
        out["threshold"].append(max(p.threshold, line.raised_to))
        out["sequence"].append(line.episode["sequence"] if change else 0)
        out["onset_offset"].append(line.episode["onset"] if change else -1)
        if line.quiet >= limits.quiet_events:
            close(line, slot, i, out)
        marks = WOULD_OPEN * line.own.see(score, meant(x, mid, p), line.newest, budget, limits)
        if marks and line.episode is None:
            marks |= HELD_BACK
        for rung in line.rungs:
            rung.see(score, meant(x, mid, p), line.newest, budget, limits)
        out["levels"].append(count_levels(line, score, limits) | marks)
        add_to_minute(line, slot, i, e, out)
    out["open"] = {slot: line.episode for slot, line in lines.items()}
    out["minutes"] += [(s, line.minute) for s, line in sorted(lines.items())]
    return out


def close(line: Line, slot: int, i: int, out: dict[str, Any]) -> None:
    if line.episode is not None:
        out["closed"].append((slot, i, line.episode))
        line.episode["sequence"] += 1
    line.episode = None
    line.quiet = 0


def count_levels(line: Line, score: float, limits: Limits) -> int:
    mask = 0
    for k, level in enumerate(LEVELS.tolist()):
        if score >= level:
            if line.since_over[k] >= limits.quiet_events:
                mask |= 1 << k
            line.since_over[k] = 0
        else:
            line.since_over[k] += 1
    return mask


def add_to_minute(line: Line, slot: int, i: int, e: Events, out: dict[str, Any]) -> None:
    number = int(e.time_us[i]) // (60 * SECOND)
    if line.minute is None or line.minute["number"] != number:
        if line.minute is not None:
            out["minutes"].append((slot, line.minute))
        line.minute = {"number": number, "first": int(e.offset[i]), "values": [], "scores": [],
                       "onsets": [0] * len(LEVELS)}  # fmt: skip
    minute = line.minute
    minute["values"].append(float(e.value[i]))
    minute["expected"] = e.expected[i].tolist()
    if not math.isnan(e.score[i]):
        minute["scores"].append(float(e.score[i]))
    for k in range(len(LEVELS)):
        minute["onsets"][k] += out["levels"][i] >> k & 1


def minute_row(slot: int, minute: dict[str, Any]) -> list[float]:
    values, scores = minute["values"], minute["scores"]
    total = 0.0
    for x in values:
        total += x
    return [
        slot, minute["number"], minute["first"], len(values), len(scores), min(values), max(values),
        total, values[-1], max(scores, default=math.nan), *minute["expected"],
        *(sum(s >= level for s in scores) for level in LEVELS), *minute["onsets"],
    ]  # fmt: skip


# -- comparisons -------------------------------------------------------------------------------


@pytest.mark.parametrize("table", [POLICIES, BUDGETED], ids=["no limit", "limit"])
@pytest.mark.parametrize("seed", range(6))
def test_the_kernel_does_what_the_reference_does(seed: int, table: PolicyTable) -> None:
    e = random_events(4_000, seed)
    state = new_state()
    found = advance(state, e, table=table)
    expected = reference(e, table=table)
    held = found.levels & HELD_BACK > 0
    assert held.any() == (table is BUDGETED)
    assert (found.levels[held] & WOULD_OPEN).all()
    for name in ("change", "severity", "late", "levels", "sequence", "onset_offset"):
        assert getattr(found, name).tolist() == expected[name], name
    told = np.flatnonzero((found.change == ONSET) | (found.change == RISE))
    assert found.threshold[told].tolist() == [expected["threshold"][i] for i in told]
    assert {ONSET, EXTEND} <= set(found.change.tolist())
    assert RISE in found.change or table is BUDGETED
    assert len(expected["closed"]) > 10

    first = episodes.EPISODE_FROM - 1
    for row, at, (slot, i, one) in zip(
        found.closed, found.closed_at.tolist(), expected["closed"], strict=True
    ):
        assert (row[0], at) == (slot, i)
        assert row[episodes.SEQUENCE - first] == one["sequence"]
        assert_episode(row[1:], episodes.EPISODE_FROM, one)
    for slot, one in expected["open"].items():
        assert state[slot, episodes.OPEN] == (one is not None)
        if one is not None:
            assert_episode(state[slot], 0, one)

    rows = [*found.segments, *(
        np.concatenate([[s], state[s, episodes.SEGMENT_FROM : episodes.SEGMENT_TO]])
        for s in range(3)
    )]  # fmt: skip
    minutes = [minute_row(slot, minute) for slot, minute in expected["minutes"]]
    assert np.array_equal(np.array(rows), np.array(minutes), equal_nan=True)

    assert found.context_at.tolist() == [i for i, _ in expected["context"]]
    for (times, values), (_, events) in zip(found.context, expected["context"], strict=True):
        assert [(int(t), v) for t, v in zip(times, values, strict=True) if t] == events


def assert_episode(row: NDArray[np.float64], first: int, one: dict[str, Any]) -> None:
    names = ("ONSET_OFFSET", "ONSET_TIME", "END_OFFSET", "END_TIME", "COUNT", "SEVERITY",
             "PEAK_SCORE", "PEAK_VALUE", "PEAK_TIME")  # fmt: skip
    got = [row[getattr(episodes, name) - first] for name in names]
    assert got == [one["onset"], one["onset_time"], one["end"], one["end_time"], one["count"],
                   one["severity"], *one["peak"]]  # fmt: skip


@pytest.mark.parametrize("size", [1, 7, 100])
def test_batch_borders_change_nothing(size: int) -> None:
    e = random_events(2_000, 9)
    whole, cut = new_state(), new_state()
    once = advance(whole, e, table=BUDGETED)
    parts = [advance(cut, e.part(at, at + size), table=BUDGETED) for at in range(0, 2_000, size)]
    assert np.array_equal(whole.view(np.int64), cut.view(np.int64))
    for name in ("change", "severity", "sequence", "onset_offset", "threshold", "levels", "late",
                 "segments",
                 "closed", "context"):  # fmt: skip
        joined = np.concatenate([getattr(part, name) for part in parts])
        assert np.array_equal(getattr(once, name), joined, equal_nan=joined.dtype.kind == "f"), name


# -- single rules, in plain sight ----------------------------------------------------------------


def test_an_episode_ends_with_the_last_of_its_quiet_events() -> None:
    found = advance(new_state(), made([0.9, *[0.1] * 4, 0.9, *[0.1] * 5, 0.9]))
    assert found.change.tolist() == [ONSET, 0, 0, 0, 0, EXTEND, 0, 0, 0, 0, 0, ONSET]
    assert found.closed_at.tolist() == [10]


def test_a_gap_ends_it_with_the_event_behind_the_gap() -> None:
    steps = [10.0, 1_000.0, 1_000.001, 10.0]
    found = advance(new_state(), made([0.9] * 4, steps))
    assert found.change.tolist() == [ONSET, EXTEND, EXTEND, ONSET]
    assert found.closed_at.tolist() == [3]


def test_a_late_event_neither_ends_an_episode_nor_makes_a_gap() -> None:
    e = made([0.9] * 4)
    e.time_us[1] -= 86_400 * SECOND
    found = advance(new_state(), e)
    assert found.late.tolist() == [False, True, False, False]
    assert found.change.tolist() == [ONSET, EXTEND, EXTEND, EXTEND]


def test_a_late_event_does_not_move_the_end_back() -> None:
    e = made([0.9, 0.9, 0.9])
    e.time_us[2] -= 3_600 * SECOND
    state = new_state()
    advance(state, e)
    assert state[0, episodes.END_TIME] == e.time_us[1]
    assert state[0, episodes.END_OFFSET] == e.offset[2]


def test_what_if_counts_are_the_onsets_that_threshold_would_have_had() -> None:
    """The preview's promise: at every level, the kernel run with that threshold agrees."""
    e = random_events(4_000, 12)
    e.policy[:] = 0
    counted = advance(new_state(), e).levels
    for k, level in enumerate(LEVELS.tolist()):
        table = PolicyTable([Policy(threshold=level)])
        onsets = advance(new_state(), e, table=table).change == ONSET
        assert np.array_equal(onsets, counted >> k & 1 == 1), level


def test_near_misses_begin_at_their_level() -> None:
    found = advance(new_state(), made([0.59, 0.6, 0.61, *[0.1] * 6, 0.55]))
    assert episodes.wanted_levels(found.levels).tolist() == [1]
    assert LEVELS[CANDIDATE_FROM] == 0.6


def test_warming_up_counts_events_but_no_scores() -> None:
    state = new_state()
    found = advance(state, made([math.nan, math.nan, 0.9]))
    assert found.change.tolist() == [NONE, NONE, ONSET]
    assert state[0, episodes.R_COUNT] == 3
    assert state[0, episodes.R_SCORED] == 1
    assert state[0, episodes.R_MAX_SCORE] == 0.9


def test_a_late_minute_is_a_segment_of_its_own() -> None:
    e = made([0.1] * 4, 30)
    e.time_us[2] -= 600 * SECOND
    state = new_state()
    found = advance(state, e)
    minute = START // (60 * SECOND)
    assert found.segments[:, 1:3].tolist() == [[minute, 0], [minute - 9, 4]]
    assert state[0, [episodes.MINUTE, episodes.FIRST_OFFSET]].tolist() == [minute + 1, 6]
