"""Which addresses belong to hosting networks, by the name of their autonomous system.

Reads the database of Debian's package `libloc-database` (`location.db`, format 1): a binary tree over the 128 bits of an
address (an IPv4 address is `::ffff:a.b.c.d`), whose leaves name an autonomous system, and a table of their names. Used to
clean labels ("a person does not sit in a data centre"), and never as an input.
"""

import ipaddress
import mmap
import re
import struct
from pathlib import Path

USUAL_PLACES = ("/usr/share/libloc-location/location.db", "/var/lib/location/database.db")
MAGIC = b"LOCDBXX\x01"
NONE = 0xFFFFFFFF


class HostingError(Exception):
    """The file is no database that this can read."""


def usual_database():
    """The database of the Debian package, or None where it is not installed."""
    return next((place for place in USUAL_PLACES if Path(place).is_file()), None)


class Networks:
    """Looks up the name of an address's autonomous system."""

    def __init__(self, path):
        try:
            with open(path, "rb") as file:
                self.data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        except (OSError, ValueError) as error:
            raise HostingError(f"{path}: cannot be read: {error}") from error
        if self.data[:8] != MAGIC:
            raise HostingError(
                f"{path}: expected a location database of format 1 (it begins with LOCDBXX and 1), found "
                f"{bytes(self.data[:8])!r}. Install Debian's libloc-database, or leave --networks out."
            )
        header = struct.unpack(">Q3I10I", self.data[8:68])
        (self.systems, systems_size, self.networks, self.networks_size, self.tree, self.tree_size, _, _, self.pool,
         self.pool_size) = header[4:]
        self.names = {}
        for offset in range(self.systems, self.systems + systems_size - 7, 8):
            number, name = struct.unpack(">II", self.data[offset:offset + 8])
            self.names[number] = name
        self.known = {}

    def text(self, offset):
        start = self.pool + min(offset, self.pool_size)
        end = self.data.find(b"\0", start)
        return self.data[start:end].decode("utf-8", "replace")

    def system(self, address):
        """Number of the autonomous system, or None."""
        try:
            parsed = ipaddress.ip_address(address)
        except ValueError:
            return None
        bits = int(parsed) if parsed.version == 6 else int(parsed) | 0xFFFF << 32
        node, found = 0, None
        for place in range(127, -2, -1):
            offset = self.tree + 12 * node
            if 12 * node + 12 > self.tree_size:
                break
            zero, one, network = struct.unpack(">III", self.data[offset:offset + 12])
            if network != NONE and 12 * network + 12 <= self.networks_size:
                found = network
            if place < 0:
                break
            node = one if bits >> place & 1 else zero
            if node == 0:
                break
        if found is None:
            return None
        offset = self.networks + 12 * found
        return struct.unpack(">I", self.data[offset + 4:offset + 8])[0] or None

    def name(self, address):
        """Name of the address's autonomous system; empty where it is not known."""
        if address not in self.known:
            number = self.system(address)
            self.known[address] = self.text(self.names[number]) if number in self.names else ""
        return self.known[address]


class Hosting:
    """Whether an address is a hoster's: its autonomous system's name matches one of the patterns."""

    def __init__(self, path, patterns):
        self.networks = Networks(path)
        self.pattern = re.compile("|".join(f"(?:{pattern})" for pattern in patterns), re.I)

    def is_hosting(self, address):
        return bool(self.pattern.search(self.networks.name(address)))
