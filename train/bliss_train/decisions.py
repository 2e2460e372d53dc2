"""What an operator decided by hand: `blissctl allow` and `deny` write one JSON object a line, and each is a label."""

import ipaddress
import json

import numpy

from .errors import Problem


class Decisions:
    """Labels by network and by user agent; of several lines for one of them the last counts, and null takes it back."""

    def __init__(self, path):
        self.networks, self.agents = {}, {}
        try:
            lines = path.read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise Problem(f"{path}: expected decisions as `blissctl allow` and `deny` write them: {error}") from error
        for number, line in enumerate(lines, 1):
            try:
                self.add(json.loads(line))
            except (ValueError, TypeError, KeyError, AttributeError) as error:
                # A line that was cut off when the disk was full is the last one, and is no reason to lose the others.
                if number < len(lines):
                    raise Problem(f"{path}, line {number}: expected a decision as `blissctl allow` and `deny` write it: "
                                  f"{error}; remove the line") from error

    def add(self, decision):
        if decision["label"] not in ("person", "robot", None):
            raise ValueError(f"label: expected person, robot or null, found {decision['label']!r}")
        if "network" in decision:
            self.networks[ipaddress.ip_network(decision["network"])] = decision["label"]
        else:
            self.agents[str(decision["user_agent"])] = decision["label"]

    def labels(self, clients, agents):
        """person, robot or None of each client: that of the longest network it is in, else that of its agent."""
        lengths = {version: sorted({network.prefixlen for network in self.networks if network.version == version}, reverse=True)
                   for version in (4, 6)}
        found = {address: self.of_address(address, lengths) for address in clients["ip"].unique()}
        of_agent = {agent: self.agents.get(plain) for agent, plain in agents.items()}
        pairs = zip(clients["ip"], clients["user_agent"])
        return numpy.array([found[address] or of_agent[agent] for address, agent in pairs], dtype=object)

    def of_address(self, address, lengths):
        try:
            parsed = ipaddress.ip_address(address)
        except ValueError:
            return None
        for length in lengths[parsed.version]:
            label = self.networks.get(ipaddress.ip_network((parsed, length), strict=False))
            if label is not None:
                return label
        return None
