"""What the checks read out of the protocol page: tables, the Python client, the example session."""

import re

from processes import ROOT

TEXT = (ROOT / "bins" / "gateway" / "PROTOCOL.md").read_text()


def _cells(line):
    return [cell.strip() for cell in line.strip().strip("|").split("|")]


def notifications():
    """message_type: (priority, channel, [(field, kind)])"""
    table = {}
    for line in TEXT.splitlines():
        row = re.match(r"\| `(\w+)` \| ([0-3]) \| (\w+) \| (.+) \|$", line)
        if row:
            name, priority, channel, fields = row.groups()
            table[name] = (int(priority), channel, [tuple(field.split()) for field in fields.split(", ")])
    return table


def values():
    """Direction, Offset, …: the values that each may have."""
    table = {}
    for line in TEXT.splitlines():
        if re.match(r'\| [A-Z]\w+ \| `("|0)', line):
            name, cells = _cells(line)
            table[name] = [word.strip('"') if word.startswith('"') else int(word)
                           for word in re.findall(r"`([^`]+)`", cells)]
    return table


def close_codes():
    """code: reason"""
    return {int(code): reason for code, reason in re.findall(r"^\| (\d{4}) \| (\w+) \|", TEXT, re.MULTILINE)}


def python_client():
    """The source of the client."""
    return re.search(r"```python\n(.*?)```", TEXT, re.DOTALL).group(1)


def example_frames():
    """The frames of the example session: ("C" or "S", text)."""
    session = TEXT[TEXT.index("## An example session"):]
    return re.findall(r"^([CS]) (\{.*\})$", session, re.MULTILINE)
