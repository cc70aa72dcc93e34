"""`risbench review status`: how far the work is, how much people agree, and a score card for each of them."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any, Final

import numpy as np

from risbench.core.errors import InvalidRowError
from risbench.core.metrics import mask_iou, wilson
from risbench.core.workspace import Workspace
from risbench.review.labelstudio.reader import Shown
from risbench.review.rules.agreement import agreement_wanted, kappa, mask_agreement, verdict_alpha
from risbench.review.rules.plan import SECONDS, Item
from risbench.review.store.answers import NOT_JUDGED, Answer, check_size, read_answers
from risbench.review.store.review_store import Annotator, ReviewStore
from risbench.review.store.triage_votes import TriageVote, read_triage_votes
from risbench.review.verbs.consensus import Decision, answers_by_record, decisions_of
from risbench.review.verbs.pull import quarantine_rows

# Whoever is, with 95 % certainty, right in fewer than this share of gold items should stop and talk.
GOLD_WANTED: Final = 0.85
_GOLD_FROM: Final = 6


def status(*, workspace: Path | str = ".") -> dict[str, Any]:
    """Return progress, hours left, agreement, and a score card per person, from what was pulled last.

    Raises:
        InputError: the workspace or its desk is damaged.
    """
    desk = ReviewStore(Workspace.open(workspace))
    items = [item for item in desk.queue() if not item.withdrawn]
    answers = read_answers(desk)
    by_key = {answer.key: answer for answer in answers}
    people = {person.name: person for person in desk.annotators()}
    gold, gold_lost = _gold(desk, items, by_key)
    cards = {name: _card(name, items, by_key, gold.get(name, []), people[name]) for name in sorted(people)}
    decisions = decisions_of(desk)
    for name, (sensitivity, specificity) in _performance(decisions.values()).items():
        if name in cards:
            cards[name] |= {"sensitivity": sensitivity, "specificity": specificity}
    open_ = Counter(str(decision.why) for decision in decisions.values() if decision.why)
    kinds = {item.key: item.kind for item in desk.queue()}
    real = [answer for answer in answers if kinds.get(answer.key) != "gold"]
    return {
        "planned": len(items),
        "answered": sum(item.key in by_key for item in items),
        "records": len({item.record for item in items if item.kind != "gold"}),
        "verdicts": dict(sorted(Counter(answer.verdict for answer in real).items())),
        "sentences": dict(sorted(Counter(answer.sentence or NOT_JUDGED for answer in real).items())),
        "pulled": desk.pulled(),
        "hours_spent": round(sum(card["hours_spent"] for card in cards.values()), 2),
        "hours_left": round(sum(card["hours_left"] for card in cards.values()), 2),
        "agreement": _agreement(answers_by_record(desk)),
        "to_adjudicate": dict(sorted(open_.items())),
        "quarantined": len(quarantine_rows(desk)),
        "gold_lost": gold_lost,
        "triage": _triage(desk),
        "annotators": cards,
        "pause": [name for name, card in cards.items() if card["pause"]],
    }


@dataclass(frozen=True)
class _Gold:
    """One answered gold item: was its mask wrong, and was the answer right."""

    wrong: bool
    right: bool


def _gold(desk: ReviewStore, items: Sequence[Item], answers: Mapping[str, Answer]) -> tuple[dict[str, list[_Gold]], int]:
    """Return everyone's answered gold, and of how many items the known answer is gone with its round.

    Right is who ends with the object's mask, and not with the corrupted one as it was shown. A rejection never is: there is an object.
    To be unsure is neither; the card shows how often.
    """
    asked = {item.key: item for item in items if item.kind == "gold" and item.key in answers}
    shown, found, lost = Shown(desk, asked), defaultdict(list), 0
    for key, item in asked.items():
        answer = answers[key]
        if answer.verdict == "unsure":
            continue
        try:
            truth = shown.unspoilt(item)
        except InvalidRowError:
            lost += 1
            continue
        check_size(answer, (int(truth.shape[0]), int(truth.shape[1])), "the known answer")
        mask = answer.mask()
        good = mask is not None and mask_iou(mask, truth) >= agreement_wanted(float(np.count_nonzero(truth)))
        # of a small object so little agreement is wanted that the corrupted mask itself can have it
        good = good and not (item.wrong and not answer.changed)
        found[item.annotator].append(_Gold(item.wrong, good))
    return found, lost


def _triage(desk: ReviewStore) -> dict[str, dict[str, Any]]:
    """Return what everyone looked at on sheets, by the newest glance at every mask."""
    found: dict[str, list[TriageVote]] = defaultdict(list)
    for glance in read_triage_votes(desk).values():
        found[glance.person].append(glance)
    return {
        name: {
            "passed": sum(not glance.doubted for glance in glances),
            "doubted": sum(glance.doubted for glance in glances),
            "seconds_each": round(float(np.mean(sorted(glance.seconds for glance in glances))), 2),
        }
        for name, glances in sorted(found.items())
    }


def _card(name: str, items: Sequence[Item], answers: Mapping[str, Answer], gold: Sequence[_Gold], person: Annotator) -> dict[str, Any]:
    mine = [item for item in items if item.annotator == name]
    done = [answers[item.key] for item in mine if item.key in answers]
    work = [answers[item.key] for item in mine if item.key in answers and item.kind != "gold"]
    times = [answer.lead_time_s for answer in done if answer.lead_time_s is not None]
    # a long break makes one time enormous: nobody's pace is that
    seconds = float(np.mean(np.minimum(times, 5 * np.median(times)))) if times else SECONDS["fix"]
    days = {answer.updated[:10] for answer in done}  # one that has only begun is nobody's pace
    right = sum(item.right for item in gold)
    pause = len(gold) >= _GOLD_FROM and wilson(right, len(gold))[1] < GOLD_WANTED
    return {
        "planned": len(mine),
        "answered": len(done),
        "seconds_each": round(seconds, 1) if times else None,
        "answers_a_day": round(len(done) / len(days), 1) if len(days) > 1 else None,
        "hours_spent": round(len(times) * seconds / 3600, 3),
        "hours_left": round((len(mine) - len(done)) * seconds / 3600, 2),
        "share_corrected": round(sum(answer.changed for answer in work) / len(work), 3) if work else None,
        "share_rejected": round(sum(answer.verdict == "reject" for answer in work) / len(work), 3) if work else None,
        "share_unsure": round(sum(answer.verdict == "unsure" for answer in work) / len(work), 3) if work else None,
        "share_judged": round(sum(bool(answer.sentence) for answer in work) / len(work), 3) if work else None,
        "gold": len(gold),
        "gold_right": round(right / len(gold), 3) if gold else None,
        "sensitivity": None,
        "specificity": None,
        "wrong_masks_missed": sum(item.wrong and not item.right for item in gold),
        "paused": person.paused,
        "expert": person.is_expert,
        "pause": pause and not person.paused,
    }


def _performance(decisions: Iterable[Decision]) -> dict[str, tuple[float, float]]:
    """Return everyone's mean sensitivity and specificity over the masks that STAPLE joined theirs into."""
    found: dict[str, list[tuple[float, float]]] = defaultdict(list)
    for decision in decisions:
        for name, sensitivity, specificity in decision.performance:
            found[name].append((sensitivity, specificity))
    means = {name: np.mean(sorted(pairs), axis=0) for name, pairs in sorted(found.items())}
    return {name: (round(float(mean[0]), 4), round(float(mean[1]), 4)) for name, mean in means.items()}


def _agreement(by_record: Mapping[str, Sequence[Answer]]) -> dict[str, Any]:
    """Return how much people agree on records that several answered."""
    several = [group for group in by_record.values() if len(group) > 1]
    masks = [[mask for answer in group if (mask := answer.mask()) is not None] for group in several]
    found = [mask_agreement(group) for group in masks if len(group) > 1]
    pairs: dict[tuple[str, str], list[tuple[str, str]]] = defaultdict(list)
    for group in several:
        for first, second in combinations(sorted(group, key=lambda answer: answer.annotator), 2):
            pairs[first.annotator, second.annotator].append((first.verdict, second.verdict))
    kappas = {f"{a} - {b}": kappa(*map(list, zip(*votes, strict=True))) for (a, b), votes in sorted(pairs.items())}
    return {
        "records": len(several),
        "iou": round(float(np.mean(sorted(one.iou for one in found))), 4) if found else None,
        "boundary_iou": round(float(np.mean(sorted(one.boundary_iou for one in found))), 4) if found else None,
        "pixel_alpha": round(float(np.mean(sorted(one.alpha for one in found))), 4) if found else None,
        "verdict_alpha": round(verdict_alpha([Counter(answer.verdict for answer in group) for group in several]), 4) if several else None,
        "verdict_kappa": {names: None if value is None else round(value, 4) for names, value in kappas.items()},
    }
