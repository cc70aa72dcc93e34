"""Who sees what: from risks, people and what is already out, the whole list of items that the server is to hold.

A pure function of its arguments: no clock, no server. `push` brings the server to the plan, so planning twice changes nothing.
"""

from __future__ import annotations

import hashlib
import hmac
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final, Literal

from pydantic import ConfigDict

from risbench.review.store.stored import Share, Text

Kind = Literal["task", "second", "gold", "expert", "audit"]
OPINIONS_IF_UNSURE: Final = 3
# The risk of a mask that somebody saw at a glance to be wrong; no mask comes so high by itself.
DOUBTED: Final = 1.0
# The share of masks that have to be drawn anew, before a workspace has answers to tell.
SHARE_DRAWN: Final = 0.35
# What people need for one mask, reading the sentence included (label_studio.md): where a project has no times of its own yet.
SECONDS: Final[Mapping[str, float]] = {"reject": 5.0, "accept": 5.0, "unsure": 5.0, "fix": 14.0, "redraw": 34.0}


@dataclass(frozen=True)
class Shown:
    """A record as it would be shown: the digest of its mask, the refine round it is of, its risk and its class."""

    record: str
    mask: str
    round: int
    risk: float
    category: str = ""


@dataclass(frozen=True)
class Item:
    """One task in one annotator's project. `wrong` is true of gold whose mask was corrupted; `key` tells nothing of all this."""

    __pydantic_config__ = ConfigDict(extra="forbid")

    key: Text
    record: Text
    mask: str
    annotator: Text
    kind: Kind
    round: int
    risk: Share
    wrong: bool = False
    withdrawn: bool = False


@dataclass(frozen=True)
class Policy:
    """How work is handed out. Shares lie in 0 to 1.

    `count`: plan this many of the records that are not out yet, of each class its share and in it the riskiest (None: all).
    `overlap`: this share gets a second opinion, drawn by hash or, with `overlap_by` "risk", the riskiest. `gold`: known answers among
    everyone's tasks. `qualification`: gold items that a newcomer meets first. `trust_source`: masks that the source brought are known
    answers, and are not asked about. `triaged_too`: masks that passed on a sheet are given out like others.
    """

    count: int | None = None
    overlap: float = 0.1
    overlap_by: Literal["share", "risk"] = "share"
    gold: float = 0.03
    qualification: int = 0
    trust_source: bool = False
    triaged_too: bool = False


@dataclass
class ReviewStore:
    """What is out already: all items ever planned, the keys that were answered, the records that someone was unsure of, and those
    that only somebody answered whose word needs another."""

    items: list[Item] = field(default_factory=list)
    answered: set[str] = field(default_factory=set)
    unsure: set[str] = field(default_factory=set)
    recheck: set[str] = field(default_factory=set)


def make_key(secret: bytes, *parts: str) -> str:
    """Return the opaque key of an item: whoever does not hold the secret can tell nothing from it."""
    return hmac.new(secret, "\0".join(parts).encode(), hashlib.sha256).hexdigest()[:32]


def _draw(secret: bytes, *parts: str) -> float:
    """Return a number in [0, 1) that depends on nothing but its arguments."""
    return int(make_key(secret, "draw", *parts)[:13], 16) / 16**13


class Planner:
    """Plans one push; `by_key` holds the result."""

    def __init__(self, secret: bytes, people: Sequence[str], desk: ReviewStore, policy: Policy) -> None:
        self.secret, self.people, self.policy = secret, sorted(people), policy
        self.answered = desk.answered
        self.by_key = {item.key: item for item in desk.items}
        self.load = Counter(dict.fromkeys(self.people, 0))
        for item in self.live():
            if item.key not in self.answered and item.annotator in self.load and item.kind != "expert":
                self.load[item.annotator] += 1

    def live(self) -> list[Item]:
        """Return what has not been withdrawn."""
        return [item for item in self.by_key.values() if not item.withdrawn]

    def withdraw(self, item: Item) -> None:
        """Take an item back."""
        self.by_key[item.key] = replace(item, withdrawn=True)
        self.load[item.annotator] -= 1

    def add(self, shown: Shown, annotator: str, kind: Kind, *, wrong: bool = False, mask: str = "") -> None:
        """Plan one item; a second of the same mask for the same person is not planned."""
        used = mask or shown.mask
        key = make_key(self.secret, annotator, shown.record, used)
        there = self.by_key.get(key)
        if there is None or there.withdrawn:
            self.by_key[key] = Item(key, shown.record, used, annotator, kind, shown.round, shown.risk, wrong)
            self.load[annotator] += 1

    def least_loaded(self, shown: Shown, taken: Iterable[str]) -> str | None:
        """Return who has least to do and has not seen this record; ties by hash, so that no one is always first."""
        free = set(self.people) - set(taken)
        return min(free, key=lambda name: (self.load[name], make_key(self.secret, shown.record, name)), default=None)


def plan(
    secret: bytes,
    people: Sequence[str],
    candidates: Sequence[Shown],
    gold: Sequence[Shown],
    desk: ReviewStore,
    policy: Policy,
    corrupted: Mapping[str, str] | None = None,
) -> list[Item]:
    """Return all items, those already out included, with what this push adds and what it withdraws.

    `candidates` are the undecided records, `gold` those whose answer is known, `corrupted` the digest of a deliberately wrong mask for gold
    that has one. Unanswered items of records that are no candidate any more, or whose mask changed, are withdrawn; a changed mask goes to
    the same person. An answered item stays for ever.
    """
    planner = Planner(secret, people, desk, policy)
    now = {shown.record: shown for shown in candidates}
    _renew(planner, now, {(shown.record, mask) for shown in gold for mask in (shown.mask, (corrupted or {}).get(shown.record, shown.mask))})
    by_record: dict[str, list[Item]] = defaultdict(list)
    for item in planner.live():
        if item.kind not in ("gold", "expert"):
            by_record[item.record].append(item)
    fresh = sorted((shown for shown in candidates if shown.record not in by_record), key=lambda shown: (-shown.risk, shown.record))
    if policy.count is not None:
        fresh = _riskiest_of_each(fresh, policy.count)
    twice = _overlapped(secret, fresh, policy)
    had: dict[str, set[str]] = defaultdict(set)
    for item in planner.live():
        had[item.record].add(item.annotator)  # as gold, when the source was trusted
    for shown in fresh:
        taken = list(had[shown.record])
        for copy in range(2 if shown.record in twice else 1):
            if (who := planner.least_loaded(shown, taken)) is not None:
                planner.add(shown, who, "second" if copy else "task")
                taken.append(who)
    for record in sorted((desk.unsure | desk.recheck) & now.keys()):
        taken = [item.annotator for item in by_record.get(record, [])]
        wanted = OPINIONS_IF_UNSURE if record in desk.unsure else 2
        while len(taken) < wanted and (who := planner.least_loaded(now[record], taken)) is not None:
            planner.add(now[record], who, "second")
            taken.append(who)
    _add_gold(planner, gold, corrupted or {})
    return list(planner.by_key.values())


def _riskiest_of_each(fresh: Sequence[Shown], count: int) -> list[Shown]:
    """Return `count` of what is ordered by risk: whatever somebody doubted, then from each class its share, there the riskiest.

    The riskiest of all would be a few hard classes, and an adapter that learns from those alone spoils the others (docs/decisions/0009).
    """
    size = Counter(shown.category for shown in fresh)
    met: Counter[str] = Counter()
    place = {}
    for shown in fresh:
        place[shown.record] = 0.0 if shown.risk >= DOUBTED else (met[shown.category] + 0.5) / size[shown.category]
        met[shown.category] += 1
    chosen = set(sorted(place, key=place.__getitem__)[:count])  # sorting keeps the order by risk among equals
    return [shown for shown in fresh if shown.record in chosen]


def _renew(planner: Planner, now: Mapping[str, Shown], gold: set[tuple[str, str]]) -> None:
    """Withdraw what is unanswered and no longer to be asked; what has a new mask is asked anew of the same person."""
    for item in planner.live():
        if item.key in planner.answered or item.kind == "expert":
            continue
        if item.kind == "gold":
            if (item.record, item.mask) not in gold:
                planner.withdraw(item)
        elif item.record not in now or now[item.record].mask != item.mask:
            planner.withdraw(item)
            if item.record in now:
                planner.add(now[item.record], item.annotator, item.kind)


def _overlapped(secret: bytes, fresh: Sequence[Shown], policy: Policy) -> set[str]:
    if policy.overlap_by == "risk":
        return {shown.record for shown in fresh[: round(policy.overlap * len(fresh))]}
    return {shown.record for shown in fresh if _draw(secret, "overlap", shown.record) < policy.overlap}


def _add_gold(planner: Planner, gold: Sequence[Shown], corrupted: Mapping[str, str]) -> None:
    """Give everyone as many gold items as the policy asks of their tasks, and newcomers their qualification; each its own draw of them."""
    of: dict[str, list[Item]] = defaultdict(list)
    for item in planner.by_key.values():
        if item.kind != "expert":
            of[item.annotator].append(item)
    for who in planner.people:
        mine = [item for item in of[who] if not item.withdrawn]
        has = sum(item.kind == "gold" for item in mine)
        tasks = len(mine) - has
        wanted = max(planner.policy.qualification, round(planner.policy.gold * tasks)) - has
        seen = {item.record for item in of[who]}
        order = sorted(
            (shown for shown in gold if shown.record not in seen), key=lambda shown: make_key(planner.secret, "gold", who, shown.record)
        )
        # every other one is corrupted, so that whoever accepts everything is found out after a few
        wrong = sum(item.kind == "gold" and item.wrong for item in mine) * 2 <= has
        for _ in range(min(max(0, wanted), len(order))):
            shown = next((shown for shown in order if shown.record in corrupted), order[0]) if wrong else order[0]
            order.remove(shown)
            bad = wrong and shown.record in corrupted
            planner.add(shown, who, "gold", wrong=bad, mask=corrupted[shown.record] if bad else "")
            wrong = not bad


def served_order(secret: bytes, items: Sequence[Item], qualification: int) -> list[Item]:
    """Return one person's items in the order they are to be met: riskiest first, gold at hashed places, qualification at the front."""
    gold = sorted((item for item in items if item.kind == "gold"), key=lambda item: item.key)
    tasks = sorted((item for item in items if item.kind != "gold"), key=lambda item: (-item.risk, item.record))
    first, rest = gold[:qualification], gold[qualification:]
    places = [((index + _draw(secret, "place", item.key)) / max(1, len(rest)), item) for index, item in enumerate(rest)]
    merged = [((index + 0.5) / max(1, len(tasks)), item) for index, item in enumerate(tasks)] + places
    return [*first, *(item for _, item in sorted(merged, key=lambda pair: (pair[0], pair[1].key)))]


def moved(secret: bytes, items: Sequence[Item], answered: set[str], source: str, target: str, others: Sequence[str] = ()) -> list[Item]:
    """Return the items with `source`'s unanswered ones withdrawn and given to `target`.

    Nobody gets what they have seen already: a second opinion of which the target gave the first goes to who has least to do of `others`.
    """
    seen: dict[str, set[str]] = defaultdict(set)
    load: Counter[str] = Counter()
    for item in items:
        if not item.withdrawn:
            seen[item.annotator].add(item.record)
            load[item.annotator] += item.key not in answered
    given, kept = [], []
    for item in items:
        open_ = item.annotator == source and not item.withdrawn and item.key not in answered and item.kind != "expert"
        kept.append(replace(item, withdrawn=True) if open_ else item)
        if not open_:
            continue
        able = [name for name in (target, *others) if item.record not in seen[name]]
        if able and (item.kind != "gold" or able[0] == target):
            who = target if able[0] == target else min(able, key=lambda name: (load[name], name))
            given.append(replace(item, annotator=who, key=make_key(secret, who, item.record, item.mask)))
            seen[who].add(item.record)
            load[who] += 1
    keys = {item.key for item in given}
    return [*(item for item in kept if item.key not in keys), *given]


def projected_hours(items: Iterable[Item], share_fixed: float = SHARE_DRAWN, seconds: Mapping[str, float] = SECONDS) -> float:
    """Return the hours that items will take where this share of masks is drawn anew and the rest accepted."""
    count = sum(1 for _ in items)
    return count * (share_fixed * seconds["redraw"] + (1 - share_fixed) * seconds["accept"]) / 3600
