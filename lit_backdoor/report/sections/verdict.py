"""The head of the page: what came out, in one sentence and one table."""

# ruff: noqa: RUF001  (typographic signs are meant)

from __future__ import annotations

from typing import Any

from markupsafe import Markup

from lit_backdoor.page.words import DASH, METRICS, count, number, percent, points, short
from lit_backdoor.report.run import Run
from lit_backdoor.report.template import Section, render
from lit_backdoor.triggers import AllToAll

__all__ = ["sentence", "verdict"]

_TOOK, _GONE, _WEAKER = 0.5, 0.1, 0.5  # ASR from which an attack took; below which it is gone; factor of a weaker one
_COSTLY = 0.05  # drop of ACC, or of ACC on the attack's class, that the sentence names as a price
_SAME = 0.02  # ACC that a control may lack and still do as well
_EMPTIED = 0.5  # share of its accuracy on the attack's class below which a net was cleaned by giving up the class
_ROWS = ("acc", "acc_target", "asr", "ra")
_LOW_IS_GOOD = ("asr",)
_TILES = ("dof", "selection_precision", "feature_distance", "f1", "auroc")  # of the chains that have them


def verdict(run: Run) -> Section:
    """Show the verdict, ACC, ASR and RA before and after, and the other numbers of the defense."""
    summary = run.results["summary"]
    before = summary["before"] or (run.before["metrics"] if run.before else None)
    after = summary["after"]
    beside = _beside(run)
    shown = [name for name in _ROWS if name != "acc_target" or (before or {}).get(name) is not None]
    rows = [_row(name, before or {}, after or {}, beside) for name in shown] if before or after else []
    tiles = [_tile(name, summary[name]) for name in ("der", "dem")] if after else []
    tiles += [_tile(name, run.numbers(name)[-1]) for name in _TILES if run.numbers(name)] + _target(run)
    title, good = sentence(before, after, unchanged=_unchanged(run))
    return Section(
        "verdict",
        "",
        render(
            "verdict.html", run=run, sentence=title, tone=good, setting=_setting(run), rows=rows, tiles=tiles,
            roles=(_role(run.before), _role(run.after)), has_after=after is not None,
            beside=[{**stage, "what": _what(stage)} for stage in beside],
            shows_nothing=any(_as_well(stage["metrics"], after or {}) for stage in beside),
        ),
    )  # fmt: skip


def sentence(
    before: dict[str, Any] | None, after: dict[str, Any] | None, unchanged: bool = False
) -> tuple[Markup, str]:
    """Say what came out, and whether that is ``good``, ``bad`` or ``plain``.

    Args:
        before: ACC, ASR and RA of the suspect.
        after: The same after the defense.
        unchanged: Whether nothing was flagged, so that the suspect went on as it was.
    """
    if before is None or before.get("acc") is None:
        return Markup("This chain compares no classifiers; its stages are below."), "plain"
    acc, asr = before["acc"], before.get("asr")
    if asr is None:
        return _without_attack(acc, after, unchanged), "plain"
    if asr < _TOOK:
        text = "The attack did not take hold: only {} of the triggered images get the attacker’s label."
        return _fill(text, asr), "plain"
    if after is None or after.get("asr") is None or after.get("acc") is None:
        return _fill("The suspect carries a backdoor that works on {} of the triggered images.", asr), "bad"
    if unchanged:
        text = "No class was flagged, so the suspect went on unchanged; its backdoor works on {} of triggered images."
        return _fill(text, after["asr"]), "bad"
    if after["asr"] <= _WEAKER * asr and _emptied(before, after):
        text = "Attack success fell from {} to {}, but so did accuracy on the attacker’s class: from {} to {}."
        return _fill(text, asr, after["asr"], before["acc_target"], after["acc_target"]), "bad"
    if after["asr"] <= _GONE:
        head = "The backdoor is gone: attack success fell from {} to {}"
        tone = "good" if max(acc - after["acc"], _lost(before, after)) <= _COSTLY else "plain"
    elif after["asr"] <= _WEAKER * asr:
        head, tone = "The backdoor is weaker, not gone: attack success fell from {} to {}", "plain"
    else:
        head, tone = "The backdoor still works: attack success went from {} to {}", "bad"
    tail, shares = _price(before, after)
    return _fill(head + tail, asr, after["asr"], *shares), tone


def _price(before: dict[str, Any], after: dict[str, Any]) -> tuple[str, list[Any]]:
    """Say how accuracy changed, on all classes or on the attack's."""
    whole: list[Any] = [before["acc"], after["acc"]]
    own = [before.get("acc_target"), after.get("acc_target")]
    costly = whole[0] - whole[1] > _COSTLY
    if _lost(before, after) <= _COSTLY:
        return f", {'at the price of accuracy:' if costly else 'and accuracy went'} from {{}} to {{}}.", whole
    if costly:
        return ", at the price of accuracy: from {} to {}, on the attacker’s class from {} to {}.", whole + own
    return ", at the price of the attacker’s class: its accuracy fell from {} to {}.", own


def _lost(before: dict[str, Any], after: dict[str, Any]) -> float:
    """Give the accuracy lost on the attack's class, 0 where it is not known."""
    first, last = before.get("acc_target"), after.get("acc_target")
    return 0.0 if first is None or last is None else float(first - last)


def _emptied(before: dict[str, Any], after: dict[str, Any]) -> bool:
    """Say whether the attack's class is hardly named any more, which leaves an attack nothing to succeed at."""
    first = before.get("acc_target")
    return first is not None and _lost(before, after) > (1 - _EMPTIED) * first


def _unchanged(run: Run) -> bool:
    """Say whether the defense that is summed up was told of no class to defend."""
    numbers = run.after["metrics"] if run.after else {}
    return "target_class" in numbers and numbers["target_class"] is None


def _without_attack(acc: float, after: dict[str, Any] | None, unchanged: bool = False) -> Markup:
    if after is None or after.get("acc") is None:
        return _fill("No attack here: a clean model with an accuracy of {}.", acc)
    if unchanged:
        return _fill("No attack here, and no class was flagged: the clean model went on as it was, with {}.", acc)
    return _fill("No attack here: the defense took a clean model’s accuracy from {} to {}.", acc, after["acc"])


def _fill(text: str, *shares: float) -> Markup:
    return Markup(text).format(*(Markup("<b>{}</b>").format(percent(share)) for share in shares))


def _beside(run: Run) -> list[dict[str, Any]]:
    """Give up to two further suspects made from the same one, such as plain fine-tuning: the controls."""
    if run.before is None or run.after is None:
        return []
    main = (run.before["name"], run.after["name"])
    own = [stage for stage in run.stages if stage["kind"] == "suspect" and stage["name"] not in main]
    return [stage for stage in own if run.before["name"] in stage["inputs"].values()][:2]


def _what(stage: dict[str, Any]) -> str:
    """Say what a further suspect is."""
    name = short(stage["class_path"])
    return "plain fine-tuning" if name == "FineTune" else name


def _as_well(control: dict[str, Any], after: dict[str, Any]) -> bool:
    """Say whether a control removes the backdoor like the defense, for no more accuracy."""
    if None in (control.get("acc"), control.get("asr"), after.get("acc"), after.get("asr")):
        return False
    return bool(control["asr"] <= max(after["asr"], _GONE) and control["acc"] >= after["acc"] - _SAME)


def _row(name: str, before: dict[str, Any], after: dict[str, Any], beside: list[dict[str, Any]]) -> dict[str, Any]:
    first, last = before.get(name), after.get(name)
    gain = None if first is None or last is None else (last - first) * (-1 if name in _LOW_IS_GOOD else 1)
    title, meaning = METRICS[name]
    return {
        "title": title, "meaning": meaning, "before": first, "after": last, "change": points(first, last),
        "tone": "" if gain is None or abs(gain) < 0.01 else "good" if gain > 0 else "bad",
        "beside": [(stage["name"], stage["metrics"].get(name)) for stage in beside],
        "wish": "lower is better" if name in _LOW_IS_GOOD else "higher is better",
    }  # fmt: skip


def _tile(name: str, value: float | None) -> dict[str, str]:
    title, meaning = METRICS[name]
    return {"title": title, "value": number(None if value is None else float(value), name), "meaning": meaning}


def _target(run: Run) -> list[dict[str, str]]:
    """Show the class that the defense takes for the attacker's, where it looks for one."""
    found = run.numbers("target_class")
    if not found:
        return []
    title, meaning = METRICS["target_class"]
    last = (run.after["metrics"] if run.after else {}).get("target_class", found[-1])
    name = "none" if last is None else run.class_name(int(last))
    return [{"title": title, "value": name, "meaning": meaning}]


def _role(stage: dict[str, Any] | None) -> str:
    return str(stage["name"]) if stage else ""


def _setting(run: Run) -> str:
    """Say in one line what was attacked, how, and what the defender had."""
    data, attack = run.results["data"], run.data.attack
    parts = [f"{short(data['source'])}, {run.data.num_classes} classes"]
    if attack is None:
        parts.append("no attack")
    else:
        of = {"target": "the target class", "carriers": "the pictures that carry it"}.get(
            attack.rate_of, f"{count(data['n_train'])} training images"
        )
        policy = type(attack.policy).__name__
        target = policy if isinstance(attack.policy, AllToAll) else f"target “{run.class_name(attack.target)}”"
        name = type(attack.trigger).__name__.removesuffix("Trigger")
        parts.append(f"{name} trigger on {percent(attack.rate, 0)} of {of}, {target}")
    if data["n_root"]:
        parts.append(f"defended with {count(data['n_root'])} clean images")
    return " · ".join(parts) or DASH
