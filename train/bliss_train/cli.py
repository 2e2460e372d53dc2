"""The command line: bliss-train label | fit | evaluate | compare | leak."""

import argparse
import ipaddress
import json
from pathlib import Path

from . import __version__, refresh
from .errors import NothingToLearn, Problem
from .progress import PROGRAM, say


def parser():
    main = argparse.ArgumentParser(prog=PROGRAM, description="Labels access logs by rule, fits a model, says what it is worth.")
    main.add_argument("--version", action="version", version=f"{PROGRAM} {__version__}")
    commands = main.add_subparsers(dest="command", required=True, metavar="COMMAND")

    label = commands.add_parser("label", help="label the clients of an export, and make the list for its disguised copy")
    label.add_argument("--rows", required=True, type=Path, help="what `blissctl features --out` wrote")
    label.add_argument("--out", required=True, type=Path, help="labels, one row per client (Parquet)")
    label.add_argument("--rewrite", type=Path, help="line,user_agent of the disguised copy (CSV), for `blissctl features --rewrite`")
    add_rules(label)
    label.add_argument("--agents", type=Path, help="browsers' agents for the disguise, one a line, where the log has no people")
    label.add_argument("--actors", type=Path, metavar="CSV", help="a traffic lab's actors, which say who is what: no rule is asked")
    label.add_argument("--honeypot", metavar="WHY", help="every line of this log is automated; say why")
    label.add_argument("--seed", type=int, default=1)

    fit = commands.add_parser("fit", help="fit a model and write its folder")
    add_sites(fit)
    fit.add_argument("--out", required=True, type=Path, help="folder for model.cbm, fixture.jsonl, card.md, report.html, policy.toml")
    fit.add_argument("--base", default="none", metavar="MODEL.cbm|none", help="a model to correct (default: none)")
    add_wanted(fit)
    fit.add_argument("--allow-input", action="append", default=[], metavar="NAME", help="an input that may tell the label alone")
    fit.add_argument("--no-clients", action="store_true", help="leave addresses and agents of clients out of the report")
    fit.add_argument("--bootstrap", type=int, default=200, metavar="N", help="samples for the report's bands (default 200)")

    fit.add_argument("--named", action="append", default=[], metavar="TOOL:SITE:CSV",
                     help="what another tool names in a site's log (a column ip), to stand beside the model in the report")

    crowdsec = commands.add_parser("crowdsec", help="what CrowdSec's rules name in a log, as Debian ships them")
    crowdsec.add_argument("--rows", required=True, type=Path, help="what `blissctl features --out` wrote")
    crowdsec.add_argument("--out", required=True, type=Path, help="addresses and scenarios (CSV)")
    crowdsec.add_argument("--root", type=Path, default=Path("/"), metavar="DIR",
                          help="where the files of Debian's package crowdsec are (default: where it is installed)")
    crowdsec.add_argument("--seconds", type=int, default=3600, help="the most that CrowdSec may take (default 3600)")

    test = commands.add_parser("evaluate", help="print the acceptance table")
    add_sites(test)
    how = test.add_mutually_exclusive_group(required=True)
    how.add_argument("--leave-one-group-out", action="store_true", help="fit without a group, measure on it; for each group")
    how.add_argument("--model", type=Path, help="measure this model as it is")
    how.add_argument("--later", type=float, metavar="SHARE", help="fit on the first part of one log, measure on the last SHARE of its time")
    test.add_argument("--base", default="none", metavar="MODEL.cbm|none", help="with --later: a model to correct")
    add_wanted(test)
    add_rules(test)
    test.add_argument("--json", type=Path, help="also write the figures as JSON")

    refresh.add_command(commands, add_sites, add_wanted, add_rules)

    leak = commands.add_parser("leak", help="print how much each input alone tells of the label; exit 4 if one tells it")
    add_sites(leak)
    leak.add_argument("--allow-input", action="append", default=[], metavar="NAME")
    return main


def add_wanted(command):
    command.add_argument("--people-below", type=float, default=0.015, metavar="SHARE",
                         help="share of people whose mean score may be below 30 (default 0.015)")
    command.add_argument("--people-first-below", type=float, default=0.03, metavar="SHARE",
                         help="share of people whose first request may score below 30 (default 0.03)")


def wanted_of(told):
    from .model import Wanted

    for option, share in (("--people-below", told.people_below), ("--people-first-below", told.people_first_below)):
        if not 0 < share < 0.5:
            raise Problem(f"{option}: expected a share between 0 and 0.5, found {share}")
    return Wanted(told.people_below, told.people_first_below)


def add_rules(command):
    command.add_argument("--rules", type=Path, help="rules in TOML (default: the package's rules.toml)")
    command.add_argument("--decisions", type=Path, metavar="JSONL", help="what `blissctl allow` and `deny` wrote: labels that come first")
    command.add_argument("--not-people", type=Path, help="addresses or networks whose clients are never people, one a line")
    command.add_argument("--networks", default="auto", metavar="FILE|auto|none",
                         help="libloc's location.db, to refuse people in hosting networks (default auto: where Debian puts it)")


def add_sites(command):
    command.add_argument("--site", action="append", required=True, metavar="NAME:ROWS:LABELS[:DISGUISED]", help="a log's files; repeat")
    command.add_argument("--groups", default="", metavar="NAME=GROUP,…", help="sites of one operator are one group")
    command.add_argument("--inputs", type=Path, help="list of inputs in TOML (default: the package's inputs.toml)")
    command.add_argument("--seed", type=int, default=1)


def main(arguments=None):
    told = parser().parse_args(arguments)
    try:
        return {"label": run_label, "fit": run_fit, "evaluate": run_evaluate, "leak": run_leak,
                "compare": refresh.run, "crowdsec": run_crowdsec}[told.command](told)
    except Problem as error:
        say(f"{'' if isinstance(error, NothingToLearn) else 'error: '}{error}")
        return error.code
    except BrokenPipeError:
        return 1


def parts_of_sites(told):
    """[(name, rows, labels, disguised or None, group)] of the command line."""
    groups = {}
    for pair in filter(None, told.groups.split(",")):
        name, equals, group = pair.partition("=")
        if not equals or not name or not group:
            raise Problem(f"--groups: expected NAME=GROUP,…, found {pair!r}")
        groups[name] = group
    parts = []
    for site in told.site:
        fields = site.split(":")
        if len(fields) not in (3, 4) or not all(fields[:3]):
            raise Problem(f"--site: expected NAME:ROWS:LABELS or NAME:ROWS:LABELS:DISGUISED, found {site!r}")
        name = fields[0]
        if name in [part[0] for part in parts]:
            raise Problem(f"--site: the name {name!r} is there twice; each log needs one of its own")
        parts.append((name, fields[1], fields[2], fields[3] if len(fields) == 4 and fields[3] else None, groups.pop(name, name)))
    if groups:
        raise Problem(f"--groups: no --site is named {', '.join(groups)}; there are {', '.join(part[0] for part in parts)}")
    return parts


def inputs_of(told):
    """The names of the inputs that all files of the sites have, and the list of inputs."""
    from .inputs import Inputs

    parts, inputs = parts_of_sites(told), Inputs(told.inputs)
    return inputs.of_files([path for part in parts for path in (part[1], part[3]) if path]), inputs


def load_sites(told, names):
    from . import data

    parts = parts_of_sites(told)
    return [data.load(name, rows, labels, disguised, group, names) for name, rows, labels, disguised, group in parts]


def rules_of(told):
    from .hosting import Hosting, HostingError, usual_database
    from .decisions import Decisions
    from .rules import Rules

    rules = Rules(told.rules)
    if told.decisions is not None:
        rules.decisions = Decisions(told.decisions)
    networks = []
    if told.not_people is not None:
        try:
            lines = told.not_people.read_text(encoding="utf-8").splitlines()
        except OSError as error:
            raise Problem(f"{told.not_people}: cannot be read: {error.strerror}") from error
        for number, line in enumerate(lines, 1):
            line = line.split("#")[0].strip()
            if line:
                try:
                    networks.append(str(ipaddress.ip_network(line, strict=False)))
                except ValueError as error:
                    raise Problem(f"{told.not_people}, line {number}: expected an address or a network, found {line!r}") from error
    place = usual_database() if told.networks == "auto" else None if told.networks == "none" else told.networks
    if told.networks == "auto" and place is None:
        say("no list of networks (Debian's libloc-database): robots in hosting networks that load assets count as people")
    try:
        hosting = Hosting(place, rules.hosting["names"]) if place else None
    except HostingError as error:
        raise Problem(str(error)) from error
    return rules, networks, hosting


def run_label(told):
    from . import label
    from .rows import read

    rules, networks, hosting = rules_of(told)
    if told.agents is not None:
        try:
            rules.disguise["agents"] = [line.strip() for line in told.agents.read_text(encoding="utf-8").splitlines() if line.strip()]
        except OSError as error:
            raise Problem(f"{told.agents}: cannot be read: {error.strerror}") from error
    rows = read(told.rows, [])
    if told.actors is not None:
        labels = label.by_actors(rows, told.actors)
    else:
        labels = label.label(rows, rules, hosting, networks, told.honeypot)
    write_frame(labels, told.out)
    counts = labels["label"].value_counts()
    say(f"{len(labels)} clients: " + ", ".join(f"{count} {name}" for name, count in counts.items())
        + f"; {int((labels['conflicts'] != '').sum())} with conflicts")
    if told.rewrite is not None:
        rewritten = label.rewrite(rows, labels, rules, told.seed)
        write_frame(rewritten, told.rewrite)
        say(f"{len(rewritten)} lines of declared crawlers to disguise, {int((rewritten['user_agent'] == '').sum())} of them dropped")
    return 0


def write_frame(frame, path):
    part = path.with_name(path.name + ".part")
    try:
        if path.suffix == ".csv":
            frame.to_csv(part, index=False)
        else:
            frame.to_parquet(part, index=False)
        part.replace(path)
    except OSError as error:
        raise Problem(f"{path}: cannot be written: {error}") from error


def base_of(told, names):
    from .model import load_base

    if told.base == "none":
        return None, names
    base = load_base(told.base, names)
    return base, list(base.feature_names_)


def run_fit(told):
    from . import fitting

    wanted = wanted_of(told)
    names, inputs = inputs_of(told)
    base, names = base_of(told, names)
    sites = load_sites(told, names)
    try:
        fitted = fitting.fit(sites, names, inputs, told.seed, base, wanted, told.allow_input, say)
    except NothingToLearn:
        if told.base != "none":
            say(f"the default model {Path(told.base).name} stays as it is")
        raise
    facts = {"seed": told.seed, "base": Path(told.base).name if base is not None else None, "wanted": wanted,
             "bootstrap": told.bootstrap, "sites": sites, "inputs": inputs, "name_clients": not told.no_clients,
             "named": named_of(told.named, [site.name for site in sites])}
    fitting.write(fitted, told.out, facts)
    from .evaluate import as_text
    print(as_text(fitted.figures, f"Out of fold (left out by {fitted.folds}), threshold from the same people:"))
    say(f"written to {told.out}: model.cbm, fixture.jsonl, inputs.txt, figures.json, policy.toml, card.md, report.html")
    return 0


def run_evaluate(told):
    from . import data, evaluate, later
    from .model import Recipe, load_base, raw_of

    wanted = wanted_of(told)
    names, inputs = inputs_of(told)
    if told.model is not None:
        model = load_base(told.model, names)
        table = data.together(load_sites(told, names))
        answers, title = raw_of(model, table, list(model.feature_names_)), f"{told.model.name}, as it is:"
    elif told.later is not None:
        if len(told.site) != 1 or not 0 < told.later < 1:
            raise Problem("--later: expected one --site and a share between 0 and 1")
        rules, networks, hosting = rules_of(told)
        base, names = base_of(told, names)
        table, answers = later.measured(parts_of_sites(told)[0], names, inputs, rules, networks, hosting, told.later, base,
                                        told.seed, wanted, say)
        title = f"The last {100 * told.later:.0f} % of the time, fitted on what came before:"
    else:
        table = data.together(load_sites(told, names))
        recipe = Recipe(names, inputs, told.seed)
        optional = inputs.told(names, table)
        answers, poorer = evaluate.leave_one_group_out(table, recipe, wanted, say, optional)
        title = "Each group of sites by a model and a threshold made without it:"
        if optional:
            without = evaluate.figures(table, poorer)
            print(evaluate.as_text(without, f"{title[:-1]}, where a site has no {', '.join(optional)}:") + "\n")
            title = f"{title[:-1]}, where a site has {', '.join(optional)}:"
    found = evaluate.figures(table, answers)
    print(evaluate.as_text(found, title))
    if told.json is not None:
        from .fitting import plain
        told.json.write_text(json.dumps(plain(found), indent=1, sort_keys=True) + "\n", encoding="utf-8")
    return 0


def named_of(options, sites):
    """{tool: {(site, address), …}} of --named."""
    import pandas

    found = {}
    for option in options:
        tool, _, rest = option.partition(":")
        site, _, path = rest.partition(":")
        if not tool or not path or site not in sites:
            raise Problem(f"--named: expected TOOL:SITE:CSV with a site among {', '.join(sites)}, found {option!r}")
        try:
            addresses = pandas.read_csv(path, dtype=str, keep_default_na=False)["ip"]
        except (OSError, ValueError, KeyError) as error:
            raise Problem(f"--named: {path}: expected a CSV file with a column ip: {error}") from error
        found.setdefault(tool, set()).update((site, address) for address in addresses)
    return found


def run_crowdsec(told):
    from . import crowdsec
    from .rows import read

    found = crowdsec.named(read(told.rows, []), told.root, told.seconds)
    write_frame(found, told.out)
    say(f"CrowdSec names {found['ip'].nunique()} addresses, by {found['scenario'].nunique()} scenarios")
    return 0


def run_leak(told):
    from . import data, leak
    from .errors import LeakFound
    from .model import check_enough, folds_of

    names, inputs = inputs_of(told)
    table = data.together(load_sites(told, names))
    check_enough(table)
    folds, what = folds_of(table)
    aucs = leak.single_aucs(table, names, folds)
    evidence = inputs.evidence(names)
    print(f"AUC of each input alone, worst and best {what} left out; * gave a label")
    for name, values in aucs.assign(low=aucs.min(axis=1)).sort_values("low", ascending=False).iterrows():
        print(f"{values.drop('low').min():.4f} {values.drop('low').max():.4f} {name}{' *' if name in evidence else ''}")
    found = [name for name in leak.suspects(aucs) if name not in told.allow_input and name not in evidence]
    if found:
        raise LeakFound(f"Expected that no input tells the label alone; {', '.join(found)} does.")
    return 0
