"""The rules that label clients, read from TOML and checked."""

import ipaddress
import re
import tomllib
from pathlib import Path

from .errors import Problem

DEFAULT = Path(__file__).with_name("rules.toml")
KEYS = {
    "declared": {"weight", "source", "package"},
    "scanner": {"weight", "source", "failed", "share", "error_share", "assets", "methods", "no_http", "paths", "targets"},
    "login_flood": {"weight", "source", "posts", "share", "paths"},
    "passed": {"weight", "source"},
    "browsing": {"weight", "source", "pages", "assets", "site_share"},
    "search": {"weight", "source", "search_pages", "error_share", "hosts"},
    "browser": {"not"},
    "hosting": {"source", "names"},
    "disguise": {"agents", "referrers"},
}
LISTS = {
    "people": {"name", "source", "weight", "method", "path", "status"},
    "robots": {"name", "source", "weight", "agent", "addresses"},
}
PATTERNS = [("scanner", "paths"), ("scanner", "targets"), ("login_flood", "paths"), ("search", "hosts"), ("hosting", "names")]


class Rules:
    """Sections as attributes; a section that the operator's file leaves out is the default's."""

    def __init__(self, path=None):
        with open(DEFAULT, "rb") as file:
            sections = tomllib.load(file)
        self.source = "the package's rules.toml"
        if path is not None:
            self.source = str(path)
            sections.update(self.operator(path))
        self.check(sections)
        for name in KEYS:
            setattr(self, name, sections[name])
        for name in LISTS:
            setattr(self, name, sections.get(name, []))
        for section, key in PATTERNS:
            patterns = sections[section][key]
            joined = "|".join(f"(?:{pattern})" for pattern in patterns) if patterns else r"(?!)"
            flags = 0 if section == "search" else re.I
            sections[section][key + "_pattern"] = self.compile(joined, f"[{section}] {key}", flags)
        # What an operator decided by hand, if that is given.
        self.decisions = None
        self.no_browser = self.compile(self.browser["not"], "[browser] not")

    def operator(self, path):
        try:
            with open(path, "rb") as file:
                return tomllib.load(file)
        except OSError as error:
            raise Problem(f"{path}: the rules cannot be read: {error.strerror}") from error
        except tomllib.TOMLDecodeError as error:
            raise Problem(f"{path}: expected TOML: {error}. The package's own rules.toml is an example.") from error

    def check(self, sections):
        for name, section in sections.items():
            if name in LISTS:
                if not isinstance(section, list):
                    raise Problem(f"{self.source}: expected [[{name}]] with two brackets, found one table")
                for entry in section:
                    self.check_keys(f"[[{name}]]", entry, LISTS[name], {"name"})
                    needed = LISTS[name] - {"name", "source", "weight"}
                    if not needed & set(entry):
                        raise Problem(f"{self.source}: [[{name}]] {entry['name']!r} would hold for everybody: give at "
                                      f"least one of {', '.join(sorted(needed))}")
                    for key in {"path", "agent"} & set(entry):
                        self.compile(entry[key], f"[[{name}]] {key}")
                    for address in entry.get("addresses", []):
                        try:
                            ipaddress.ip_network(address, strict=False)
                        except ValueError as error:
                            raise Problem(f"{self.source}: [[{name}]] {entry['name']!r}: expected an address or network "
                                          f"as 192.0.2.0/24, found {address!r}") from error
            elif name in KEYS:
                self.check_keys(f"[{name}]", section, KEYS[name], KEYS[name])
            else:
                raise Problem(f"{self.source}: unknown section [{name}]; known are {', '.join([*KEYS, *LISTS])}")

    def check_keys(self, where, section, known, needed):
        for key in section:
            if key not in known:
                raise Problem(f"{self.source}: {where} has an unknown key {key!r}; known are {', '.join(sorted(known))}")
        for key in sorted(needed):
            if key not in section:
                raise Problem(f"{self.source}: {where} lacks {key!r}; a section is taken whole, so copy it from the "
                              "package's rules.toml and change what you need")
        share = section.get("referrers", 0.0)
        if not isinstance(share, (int, float)) or not 0 <= share <= 1:
            raise Problem(f"{self.source}: {where} referrers: expected a share from 0 to 1, found {share!r}")
        weight = section.get("weight", 1.0)
        if not isinstance(weight, (int, float)) or not 0 < weight <= 100:
            raise Problem(f"{self.source}: {where} weight: expected a number above 0 and at most 100, found {weight!r}")

    def compile(self, pattern, where, flags=0):
        try:
            return re.compile(pattern, flags)
        except re.error as error:
            raise Problem(f"{self.source}: {where}: expected a regular expression, found {pattern!r}: {error}") from error

    def is_no_browser(self, agent):
        """Whether a user agent that claims to be a browser names something else too."""
        return bool(self.no_browser.search(agent))
