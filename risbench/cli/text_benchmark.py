"""How trainings, evaluations and benchmarks are printed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from risbench.benchmark.eval.slices import FAILURE_KINDS, KINDS, in_order
from risbench.benchmark.table.table import METRICS
from risbench.cli.text import say, table

_SHOWN = ("mIoU", "oIoU", "Pr@0.5", "Pr@0.7", "Pr@0.9")


def _left_out(result: dict[str, Any]) -> None:
    _said_of("the release", result["left_out"], result["first_left_out"])


def _said_of(release: str, left_out: dict[str, int], first: list[str]) -> None:
    if left_out:
        counted = ", ".join(f"{count:,} {code}" for code, count in left_out.items())
        say(f"left out of {release}: {counted}; first: {'; '.join(first)}")


def print_train(result: dict[str, Any]) -> None:
    """Print what was learnt from, how validation went, and where the model is."""
    weights = ", ".join(f"{part} {origin}" for part, origin in result["weights"].items())
    say(f"{result['samples']:,} training samples, {result['steps']:,} steps; weights to begin with: {weights}")
    if result["sentences_cut"]:
        say(f"sentences cut to the model's length: {result['sentences_cut']:,} (text.max_tokens sets it)")
    _left_out(result)
    rows = [[f"{look['step']:,}", *(f"{100 * look[name]:.2f}" for name in _SHOWN)] for look in result["looks"]]
    table("on val, peer protocol, in percent", ["step", *_SHOWN], rows)
    say(f"{result['seconds_a_step']:.3f} s a step; waiting for input {100 * result['input_stall']:.1f} % of the time")
    say(f"best at step {result['best']['step']:,}, by oIoU; model, log and TensorBoard: {result['run']}")
    say(f"score it: risbench evaluate {result['run']} {result['release']}")


def print_evaluate(result: dict[str, Any]) -> None:
    """Print the figures, the slices and the failures."""
    reviewed = f"{result['reviewed']:,} of their masks reviewed by people"
    shuffled = ", sentences shuffled within the class" if result["shuffled"] else ""
    say(f"{result['subject']} on {result['split']}: {result['n']:,} samples on {result['images']:,} images, {reviewed};")
    say(f"{result['protocol']} protocol{shuffled}")
    _left_out(result)
    if result.get("classes_read_off_sentences"):
        say("the release names no classes: they are the first that a sentence names, and slices by class and uniqueness, --shuffle and")
        say("`largest` hang on them")
    if result.get("sentences_cut"):
        say(f"sentences cut to the model's length: {result['sentences_cut']:,}")
    if result["shuffled"]:
        say(f"sentences replaced by another one: {result['sentences_changed']:,}; the rest had none to change with")
    if result.get("unseen_classes"):
        say(f"warning: never seen in training: {', '.join(result['unseen_classes'])}")
    rows = [[name, f"{100 * row['value']:.2f}", _interval(row["interval"])] for name in METRICS for row in [result["figures"][name]]]
    table("in percent, intervals draw images", ["metric", "value", "95 %"], rows)
    for kind in KINDS:
        groups = result["slices"][kind]
        rows = [
            [name + (" (few)" if row["few"] else ""), f"{row['n']:,}", *_figures(row), _interval(row["mIoU"]["interval"])]
            for name in in_order(groups)
            for row in [groups[name]]
        ]
        table(f"by {kind}", [kind, "n", *_SHOWN, "mIoU 95 %"], rows)
    failed = result["failures"]
    say(f"failures (IoU below .5): {failed['failures']:,} of {failed['of']:,}; nothing found: {failed['nothing_found']:,};")
    say(f"found wholly elsewhere: {failed['wholly_elsewhere']:,}")
    rows = [
        [kind, f"{row['failures']:,}", _percent(row["of_failures"]), _percent(row["of_the_rest"]), f"{row['cannot_tell']:,}"]
        for kind in FAILURE_KINDS
        for row in [failed["kinds"][kind]]
    ]
    table(
        "the paper's kinds of failure (a sample may be of several)",
        ["kind", "failures", "% of failures", "% of the rest", "cannot tell"],
        rows,
    )
    say(f"figures: {result['path']}; best and worst cases: {result['sheet']}")


def print_benchmark(result: dict[str, Any]) -> None:
    """Print the table as it was written."""
    for line in Path(result["tables"]["txt"]).read_text(encoding="utf-8").splitlines():
        say(line)
    _left_out(result)
    say(f"written: {', '.join(result['tables'].values())}")


def print_compare(result: dict[str, Any]) -> None:
    """Print what the second release's masks are worth against the first's."""
    seeds = f"{result['seeds']} seed{'s' if result['seeds'] > 1 else ''}"
    say(f"{result['model']} ({result['config']}), {seeds}, on {result['split']} of {result['test_on']}:")
    say(f"{result['n']:,} samples, {result['reviewed']:,} of their masks reviewed by people; {result['protocol']} protocol")
    for name, left_out in result["left_out"].items():
        _said_of(name, left_out, result["first_left_out"][name])
    rows = [
        [
            f"{name} = {result[name]}",
            f"{result['training'][name]:,}",
            *(f"{100 * result['figures'][name][metric]:.2f}" for metric in _SHOWN),
        ]
        for name in ("A", "B")
    ]
    table("in percent, means over seeds", ["trained on", "training samples", *_SHOWN], rows)
    if not result["reviewed"]:
        say("warning: nobody has reviewed the masks that both are scored on")
    agreement = f"whose masks agree at mean IoU {result['mask_agreement']:.3f}"
    say(f"each learnt from the {result['common']:,} training samples that both have, {agreement}, for {result['steps']:,} steps")
    if result["begun"] is not None:
        say(f"each began with {result['begun']['from']}, of {result['begun']['steps']:,} steps")
    low, high = result["difference"]["interval"]
    say(f"B less A: {100 * result['difference']['value']:+.2f} mIoU, 95 % [{100 * low:+.2f}, {100 * high:+.2f}]; {result['path']}")


def _figures(row: dict[str, Any]) -> list[str]:
    return [f"{100 * row[name]['value']:.2f}" for name in _SHOWN]


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{100 * share:.1f}"


def _interval(pair: list[float]) -> str:
    return f"[{100 * pair[0]:.2f}, {100 * pair[1]:.2f}]"
