"""card.md: what a model is, in a page."""

from . import __version__, evaluate
from .model import CORRECTION, FITS, PARAMETERS


def shift(fitted):
    """What was added to the log odds."""
    told, without = fitted.shifts.told, fitted.shifts.without
    return f"{told:+.4f}" if fitted.poorer is None or told == without else f"{told:+.4f}, and {without:+.4f} without what is optional,"


def without(fitted, optional):
    """What it gives where a site does not have what is optional."""
    if fitted.poorer is None:
        return ""
    return f"""
{evaluate.as_text(fitted.poorer, f"## What it gives where a site has no {optional}")}

A site has {optional} only once the operator names a list of networks (docs/lists.md); without one the second table holds. The first one
flatters: people's labels are refused in hosting networks (by another list of names), so that hardly a person of these figures is in one.
People do come from there, by VPNs and relays; training puts a tenth of the people of its second copy into robots' networks for their sake.
"""


def card(fitted, facts):
    """The card of a fitted model."""
    base = facts["base"]
    used = sorted(((weight, name) for weight, name in zip(fitted.model.get_feature_importance(), fitted.model.feature_names_)
                   if weight > 0), reverse=True)
    parameters = {**PARAMETERS, **(CORRECTION if base else {})}
    sites = "\n".join(
        f"| {site.name} | {site.group} | {site.facts['requests']:,} | "
        + ", ".join(f"{count} {label}" for label, count in sorted(site.facts["labels"].items())) + " |" for site in facts["sites"]
    )
    optional = ", ".join(f"`{name}`" for name in facts["inputs"].told(fitted.names, fitted.table)) if fitted.poorer else ""
    evidence = facts["inputs"].evidence([name for _, name in used])
    return f"""# The model

`model.cbm` gives the log odds that a request comes from a robot. The product's score is 1 + floor(98 · P(human) + 0.5): 1 is a robot,
99 a person. The threshold is in the file's bias: {"the base model's was kept, because the log has fewer than 100 people" if fitted.kept_base_threshold
    else f"of people, out of fold, at most {100 * facts['wanted'].all:.1f} % have a mean score, and {100 * facts['wanted'].first:.1f} % a first request, below 30"}.

| | |
|---|---|
| made by | bliss-train {__version__}, seed {facts['seed']}, CatBoost {'' if base else f'mean of {FITS} fits of '}{parameters['iterations']} trees of depth {parameters['depth']}{f", as a correction of `{base}`" if base else ""} |
| inputs | {len(fitted.model.feature_names_)}, of which {len(used)} are used |
| shift | {shift(fitted)} to the log odds |
| measured | out of fold, left out by {fitted.folds} |

| site | group | requests | clients by label |
|---|---|---|---|
{sites}

{evaluate.as_text(fitted.figures, "## What it gives" + (f" where a site has {optional}" if optional else ""))}
{without(fitted, optional)}
## Inputs that matter most

| input | importance | gave a label |
|---|---|---|
{chr(10).join(f"| `{name}` | {weight:.1f} | {'yes' if name in evidence else ''} |" for weight, name in used[:15])}

Evidence that gave a label is an input too; that circle flatters the figures by two to five points of AUC.

## What it does not see

Browsers driven well from networks where people live; scrapers that load a page's assets with their referrers; robots that the rules
do not know. People at work in an application load few assets and may score low. Unknown clients were left out of training and figures.
"""
