from __future__ import annotations

from collections import Counter
from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from risbench.review.rules.plan import Item, Policy, ReviewStore, Shown, moved, plan, projected_hours, served_order

SECRET = b"s" * 32


def shown(count: int, start: int = 0, mask: str = "m") -> list[Shown]:
    return [Shown(f"r{index:04d}", f"{mask}{index}", 1, (index * 37 % 100) / 100) for index in range(start, start + count)]


def live(items: list[Item]) -> list[Item]:
    return [item for item in items if not item.withdrawn]


PLAIN = Policy(overlap=0, gold=0)


def test_every_record_goes_to_exactly_one_person_and_work_is_even() -> None:
    items = plan(SECRET, ["a", "b", "c"], shown(100), [], ReviewStore(), PLAIN)
    assert Counter(item.record for item in items) == {f"r{index:04d}": 1 for index in range(100)}
    assert sorted(Counter(item.annotator for item in items).values()) == [33, 33, 34]


def test_planning_twice_changes_nothing_and_new_records_join() -> None:
    first = plan(SECRET, ["a", "b"], shown(40), [], ReviewStore(), Policy())
    assert plan(SECRET, ["b", "a"], list(reversed(shown(40))), [], ReviewStore(first), Policy()) == first
    more = plan(SECRET, ["a", "b"], shown(60), [], ReviewStore(first), Policy())
    assert more[: len(first)] == first
    assert {item.record for item in more[len(first) :]} == {f"r{index:04d}" for index in range(40, 60)}


def test_only_the_riskiest_of_those_not_out_yet_are_added() -> None:
    candidates = shown(100)
    by_risk = sorted(candidates, key=lambda one: (-one.risk, one.record))
    first = plan(SECRET, ["a"], candidates, [], ReviewStore(), replace(PLAIN, count=10))
    assert {item.record for item in first} == {one.record for one in by_risk[:10]}
    second = plan(SECRET, ["a"], candidates, [], ReviewStore(first), replace(PLAIN, count=5))
    assert {item.record for item in second} == {one.record for one in by_risk[:15]}


def test_every_class_gets_its_share_of_a_count() -> None:
    hard = [replace(one, record=f"a{one.record}", category="hard", risk=0.5 + one.risk / 2) for one in shown(30)]
    easy = [replace(one, record=f"b{one.record}", category="easy", risk=one.risk / 2) for one in shown(90)]
    items = plan(SECRET, ["a"], [*hard, *easy], [], ReviewStore(), replace(PLAIN, count=40))
    given = {item.record for item in items}
    for of_class in (hard, easy):
        by_risk = sorted(of_class, key=lambda one: (-one.risk, one.record))
        share = len(of_class) // 3
        assert {one.record for one in by_risk[:share]} == given & {one.record for one in of_class}


@pytest.mark.parametrize("by", ["share", "risk"])
def test_second_opinions_are_others_and_as_many_as_asked(by: str) -> None:
    items = plan(SECRET, ["a", "b", "c"], shown(400), [], ReviewStore(), Policy(overlap=0.25, overlap_by=by, gold=0))  # type: ignore[arg-type]
    people: dict[str, list[str]] = {}
    for item in items:
        people.setdefault(item.record, []).append(item.annotator)
    twice = {record for record, names in people.items() if len(names) == 2}
    assert all(len(set(names)) == len(names) <= 2 for names in people.values())
    assert 70 <= len(twice) <= 130
    if by == "risk":
        assert twice == {one.record for one in sorted(shown(400), key=lambda one: (-one.risk, one.record))[:100]}


def test_a_changed_mask_is_asked_anew_of_the_same_person_unless_answered() -> None:
    first = plan(SECRET, ["a", "b"], shown(10), [], ReviewStore(), PLAIN)
    done = {first[0].key, first[1].key}
    after = plan(SECRET, ["a", "b"], shown(10, mask="better"), [], ReviewStore(first, done), PLAIN)
    assert [item for item in after if item.key in done] == first[:2]
    assert {item.key for item in live(after)} & {item.key for item in first} == done
    who = {item.record: item.annotator for item in first}
    assert all(who[item.record] == item.annotator for item in live(after))
    assert Counter(item.record for item in live(after)) == Counter(who.keys())


def test_decided_records_are_withdrawn_and_come_back_if_they_must() -> None:
    first = plan(SECRET, ["a"], shown(10), [], ReviewStore(), PLAIN)
    fewer = plan(SECRET, ["a"], shown(6), [], ReviewStore(first), PLAIN)
    assert len(live(fewer)) == 6
    back = plan(SECRET, ["a"], shown(10), [], ReviewStore(fewer), PLAIN)
    assert {item.key for item in live(back)} == {item.key for item in first}


def test_unsure_brings_two_more_opinions_by_others() -> None:
    people = ["a", "b", "c", "d"]
    first = plan(SECRET, people, shown(8), [], ReviewStore(), PLAIN)
    after = plan(SECRET, people, shown(8), [], ReviewStore(first, {first[0].key}, {first[0].record}), PLAIN)
    names = [item.annotator for item in after if item.record == first[0].record]
    assert len(names) == len(set(names)) == 3
    assert len(after) == len(first) + 2


def test_gold_is_hidden_half_of_it_is_wrong_and_no_two_people_get_the_same_list() -> None:
    gold = shown(60, 1000, "g")
    corrupted = {one.record: f"bad{one.record}" for one in gold}
    items = plan(SECRET, ["a", "b"], shown(400), gold, ReviewStore(), Policy(overlap=0, gold=0.1), corrupted)
    lists = {}
    for who in ("a", "b"):
        mine = [item for item in items if item.annotator == who and item.kind == "gold"]
        assert len(mine) == 20
        assert sum(item.wrong for item in mine) == 10
        lists[who] = {item.record for item in mine}
        served = served_order(SECRET, [item for item in items if item.annotator == who], 0)
        places = [index for index, item in enumerate(served) if item.kind == "gold"]
        assert all(later - earlier <= 25 for earlier, later in pairwise(places))
        assert len({later - earlier for earlier, later in pairwise(places)}) > 3  # at no fixed distance
        risks = [item.risk for item in served if item.kind != "gold"]
        assert risks == sorted(risks, reverse=True)
    assert lists["a"] != lists["b"]
    assert all(
        "g" not in item.key and len(item.key) == 32 for item in items if item.kind == "gold" and not set(item.key) - set("0123456789abcdef")
    )
    assert plan(SECRET, ["a", "b"], shown(400), gold, ReviewStore(items), Policy(overlap=0, gold=0.1), corrupted) == items


def test_a_newcomer_begins_with_the_qualification() -> None:
    gold = shown(30, 1000, "g")
    first = plan(SECRET, ["a"], shown(50), gold, ReviewStore(), Policy(overlap=0, gold=0, qualification=6), {})
    served = served_order(SECRET, first, 6)
    assert [item.kind for item in served[:6]] == ["gold"] * 6
    assert all(item.kind == "task" for item in served[6:])


def test_keys_tell_nothing_and_depend_on_the_secret() -> None:
    ours, theirs = (plan(secret, ["a"], shown(20), [], ReviewStore(), PLAIN) for secret in (SECRET, b"t" * 32))
    assert not {item.key for item in ours} & {item.key for item in theirs}
    assert all(item.record not in item.key for item in ours)


def test_reassigning_moves_what_is_open_and_not_what_was_done_or_seen() -> None:
    items = plan(SECRET, ["a", "b"], shown(60), [], ReviewStore(), Policy(overlap=0.5, gold=0))
    mine = [item for item in items if item.annotator == "a"]
    done = {item.key for item in mine[:5]}
    after = moved(SECRET, items, done, "a", "b")
    assert {item.key for item in live(after) if item.annotator == "a"} == done
    per_person = Counter((item.record, item.annotator) for item in live(after))
    assert max(per_person.values()) == 1
    assert {item.record for item in live(after)} == {item.record for item in items}


def test_a_second_opinion_of_whom_the_target_gave_the_first_goes_to_a_third() -> None:
    items = plan(SECRET, ["a", "b", "c"], shown(60), [], ReviewStore(), Policy(overlap=1, gold=0))
    after = live(moved(SECRET, items, set(), "a", "b", ["c"]))
    assert Counter(item.record for item in after) == Counter(item.record for item in items)
    assert max(Counter((item.record, item.annotator) for item in after).values()) == 1
    assert {item.annotator for item in after} == {"b", "c"}
    alone = live(moved(SECRET, items, set(), "a", "b"))  # with nobody else they fall away
    assert len(alone) < len(items)
    assert max(Counter((item.record, item.annotator) for item in alone).values()) == 1


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 60), st.integers(1, 5), st.floats(0, 1), st.floats(0, 0.3), st.sets(st.integers(0, 59)))
def test_whatever_happens_nobody_sees_a_record_twice_and_nothing_answered_goes(
    count: int, people: int, overlap: float, gold: float, answered: set[int]
) -> None:
    names = [f"p{index}" for index in range(people)]
    policy = Policy(overlap=overlap, gold=gold)
    golden = shown(20, 2000, "g")
    first = plan(SECRET, names, shown(count), golden, ReviewStore(), policy)
    done = {item.key for index, item in enumerate(first) if index in answered}
    after = plan(SECRET, names[:-1] or names, shown(count, mask="n"), golden, ReviewStore(first, done), policy)
    assert done <= {item.key for item in live(after)}
    assert len({item.key for item in after}) == len(after)
    seen = Counter((item.record, item.annotator) for item in live(after))
    assert not seen or max(seen.values()) == 1


def test_hours_are_what_the_times_say() -> None:
    items = plan(SECRET, ["a"], shown(360), [], ReviewStore(), PLAIN)
    assert projected_hours(items, 0.5, {"redraw": 30.0, "accept": 10.0}) == pytest.approx(2.0)
