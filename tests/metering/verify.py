#!/usr/bin/python3
"""Checks a tenant's bundle of the ledger; written from docs/metering.md alone, with nothing but hashlib.

    verify.py FILE [--key HEX]... [--head HEX]...     one key or one head's hash that is trusted is needed

Prints what the bundle is and exits with 0, or prints where it is wrong and exits with 1.
"""

import argparse
import hashlib
import itertools
import json
import re
import sys

LINE_BYTES_MAX = 65536 + 8192
PAYLOAD_BYTES_MAX = 65536
PAYLOAD_DEPTH_MAX = 100
BOOKS = {"both": ["meter", "account"], "account": ["account"]}
KINDS = {"readings": "meter", "clock_step": "meter"}
KINDS.update(dict.fromkeys(["rate_card", "invoice_line", "invoice", "reversal", "note"], "account"))
NONE = "0" * 64

N = r"(0|[1-9][0-9]{0,19})"
H = r"([0-9a-f]{64})"
HEADER = rf'\{{"bundle":1,"tenant":{N},"books":"(both|account)","origin":(true|false),"first":{N},"last":{N}\}}'
ENTRY = rf'\{{"entry":{N},"tenant":{N},"kind":"([a-z_]+)","time":{N},"before":"{H}","payload":(.*)\}}'
DATE = r"([0-9]{4})-([0-9]{2})-([0-9]{2})"
HEAD = (
    rf'(\{{"head":{N},"format":"aljibe-ledger-1","ledger":"([0-9a-f]{{32}})","date":"({DATE})","leaves":{N},"root":"{H}","before":"{H}",'
    rf'"log":"{H}","key":"{H}"(?:,"next_key":"{H}")?),"signature":"([0-9a-f]{{128}})"\}}'
)
PROOF = rf'\{{"proof":"(meter|account)","count":{N},"hash":"{H}","path":\[((?:"[0-9a-f]{{64}}",?)*)\]\}}'


class Wrong(Exception):
    """The bundle is wrong."""


def hold(condition, reason):
    if not condition:
        raise Wrong(reason)


def no_json(constant):
    raise ValueError(constant)


def sha(data):
    return hashlib.sha256(data).hexdigest()


def of_line(text):
    return sha(b"\x00" + text.encode())


def of_node(left, right):
    return sha(b"\x01" + bytes.fromhex(left) + bytes.fromhex(right))


def fields(pattern, line):
    match = re.fullmatch(pattern, line)
    hold(match, "no line that may come here")
    return match.groups()


def number(text):
    hold(int(text) < 1 << 63, "a number of 2^63 or more")
    return int(text)


# Ed25519, RFC 8032 5.1.

P = 2**255 - 19
ORDER = 2**252 + 27742317777372353535851937790883648493
D = -121665 * pow(121666, P - 2, P) % P
ROOT_OF_MINUS_1 = pow(2, (P - 1) // 4, P)


def plus(a, b):
    e, f = (a[1] - a[0]) * (b[1] - b[0]) % P, (a[1] + a[0]) * (b[1] + b[0]) % P
    g, h = 2 * a[3] * b[3] * D % P, 2 * a[2] * b[2] % P
    return (f - e) * (h - g) % P, (h + g) * (f + e) % P, (h - g) * (h + g) % P, (f - e) * (f + e) % P


def times(factor, point):
    result = (0, 1, 1, 0)
    while factor:
        if factor & 1:
            result = plus(result, point)
        point = plus(point, point)
        factor >>= 1
    return result


def point_of(data):
    y = int.from_bytes(data, "little")
    sign, y = y >> 255, y & ((1 << 255) - 1)
    hold(y < P, "no public key")
    square = (y * y - 1) * pow(D * y * y + 1, P - 2, P) % P
    x = pow(square, (P + 3) // 8, P)
    if (x * x - square) % P:
        x = x * ROOT_OF_MINUS_1 % P
    hold((x * x - square) % P == 0 and (x or not sign), "no public key")
    if x & 1 != sign:
        x = P - x
    return x, y, 1, x * y % P


def bytes_of(point):
    inverse = pow(point[2], P - 2, P)
    x, y = point[0] * inverse % P, point[1] * inverse % P
    return (y | (x & 1) << 255).to_bytes(32, "little")


BASE = point_of((4 * pow(5, P - 2, P) % P).to_bytes(32, "little"))


# The y of the points of low order: by those anybody can sign. Two of order 8, which are each other's negative.
ORDER_8 = int.from_bytes(bytes.fromhex("26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05"), "little")
LOW_ORDER = {0, 1, P - 1, ORDER_8, P - ORDER_8}
for low in LOW_ORDER:
    assert bytes_of(times(8, point_of(low.to_bytes(32, "little")))) == (1).to_bytes(32, "little")


def hold_key(key):
    y = int.from_bytes(key, "little") & ((1 << 255) - 1)
    hold(y < P and y not in LOW_ORDER, "no public key")


def is_signed(key, text, signature):
    r, s = signature[:32], int.from_bytes(signature[32:], "little")
    k = int.from_bytes(hashlib.sha512(r + key + text).digest(), "little") % ORDER
    x, y, z, t = point_of(key)
    return s < ORDER and bytes_of(plus(times(s, BASE), times(k, (P - x, y, z, P - t)))) == r


# The bundle.


def is_included(leaf, index, size, path, root):
    """RFC 9162 2.1.3.2."""
    if index >= size:
        return False
    last = size - 1
    for step in path:
        if last == 0:
            return False
        if index & 1 or index == last:
            leaf = of_node(step, leaf)
            while not index & 1 and index:
                index, last = index >> 1, last >> 1
        else:
            leaf = of_node(leaf, step)
        index, last = index >> 1, last >> 1
    return last == 0 and leaf == root


class Bundle:
    """A bundle as far as it was read."""

    def __init__(self, header, keys, heads):
        tenant, books, origin, first, last = fields(HEADER, header)
        self.tenant, self.books, self.last = number(tenant), BOOKS[books], number(last)
        hold(1 <= number(first) <= self.last, "no head is both first and last")
        self.keys, self.heads, self.is_trusted = keys, heads, False
        self.tips = {book: (0, NONE) for book in self.books} if origin == "true" else {}
        # What the next head has to be: its number, the hash, ledger and key of the one before it.
        self.head, self.before, self.ledger, self.date, self.key = number(first), None, None, "", None
        self.place, self.proofs, self.tree, self.entries = 0, [], None, 0
        self.begins = "from its first entry on" if origin == "true" else None

    def line(self, text):
        if self.proofs:
            self.on_proof(*fields(PROOF, text), self.proofs.pop(0))
        elif self.head > self.last:
            raise Wrong("the bundle goes on behind its last head")
        elif text.startswith('{"entry":'):
            self.on_entry(text, *fields(ENTRY, text))
        else:
            self.on_head(*fields(HEAD, text))

    def on_entry(self, text, count, tenant, kind, time, before, payload):
        number(time)
        hold(number(tenant) == self.tenant, "another tenant's entry")
        book = KINDS.get(kind)
        hold(book in self.tips and self.books.index(book) >= self.place, "an entry has no place here")
        reached, newest = self.tips[book]
        hold(number(count) == reached + 1, f"entry {count} of the {book} book where entry {reached + 1} belongs")
        hold(before == newest, f"entry {count} of the {book} book does not follow the one before it")
        hold(len(payload.encode()) <= PAYLOAD_BYTES_MAX, "a payload is too long")
        hold(all(char >= " " for char in payload), "a payload is no JSON on one line")
        nesting = re.sub(r'"(?:[^"\\]|\\.)*"|[^][{}"]', "", payload)
        depths = itertools.accumulate(1 if char in "[{" else -1 for char in nesting)
        hold(max(depths, default=0) <= PAYLOAD_DEPTH_MAX, "a payload is nested too deep")
        try:
            # What is no JSON is refused; numbers of any length are taken, and not made numbers.
            json.loads(payload, parse_constant=no_json, parse_int=str, parse_float=str)
        except ValueError as error:
            raise Wrong("a payload is no JSON on one line") from error
        self.tips[book] = (reached + 1, of_line(text))
        self.place = self.books.index(book)
        self.entries += 1

    def on_head(self, *members):
        text, head, ledger, date, year, month, day, leaves, root, before, log, key, next_key, signature = members
        text += "}"
        hold(number(head) == self.head, f"head {head} where head {self.head} belongs")
        hold(int(year) >= 1970 and 1 <= int(month) <= 12 and 1 <= int(day) <= 31, "no date")
        for public in filter(None, (key, next_key)):
            hold_key(bytes.fromhex(public))
        if self.before is None:
            hold((before == NONE) == (self.head == 1), "the first head of all has none before it")
        else:
            hold((before, ledger) == (self.before, self.ledger), f"head {head} does not follow the one before it")
        hold(self.key in (None, key), f"head {head} is signed by a key that may not")
        signed = is_signed(bytes.fromhex(key), text.encode(), bytes.fromhex(signature))
        hold(signed, f"the signature of head {head} is wrong")
        self.is_trusted |= key in self.keys or of_line(text) in self.heads
        self.before, self.ledger, self.date, self.key = of_line(text), ledger, date, next_key or key
        self.head += 1
        self.place, self.proofs, self.tree = 0, list(self.books), (number(leaves), root)
        self.begins = self.begins or f"behind head {head} of {date}"

    def on_proof(self, book, count, newest, path, expected):
        count, (size, root), steps = number(count), self.tree, path.split(",") if path else []
        hold(all(len(step) == 66 for step in steps) and len(steps) <= 65, "a proof is badly written")
        tip = f'{{"tip":"{book}","tenant":{self.tenant},"count":{count},"hash":"{newest}"}}'
        leaf = 2 * self.tenant + ["meter", "account"].index(book)
        proven = is_included(of_line(tip), leaf, size, [step.strip('"') for step in steps], root)
        hold(book == expected and proven, f"head {self.head - 1} was not signed over what this says of the {expected} book")
        reached = self.tips.setdefault(book, (count, newest))
        hold(reached[0] >= count, f"entries {reached[0] + 1} to {count} of the {book} book are missing")
        hold(reached[0] <= count, f"entry {reached[0]} of the {book} book is behind head {self.head - 1}")
        hold(reached[1] == newest, f"entry {count} of the {book} book was changed")

    def end(self):
        hold(self.head > self.last and not self.proofs, f"the bundle ends before head {self.last} and its proofs")
        hold(self.is_trusted, "no head is trusted")


def check(file, keys, heads):
    bundle, place = None, 0
    try:
        for place, line in enumerate(iter(lambda: file.readline(LINE_BYTES_MAX + 1), b""), 1):
            hold(line.endswith(b"\n"), "a line is too long, or cut")
            try:
                text = line[:-1].decode()
            except UnicodeDecodeError as error:
                raise Wrong("not UTF-8") from error
            if bundle is None:
                bundle = Bundle(text, keys, heads)
            else:
                bundle.line(text)
        place += 1
        hold(bundle, "the bundle is empty")
        bundle.end()
    except Wrong as error:
        print(f"line {place}: {error}")
        return 1
    ends = ", ".join(f"{book} to {count}" for book, (count, _) in bundle.tips.items())
    of = f"tenant {bundle.tenant}: {bundle.entries} entries"
    print(f"{of} ({ends}), {bundle.begins}, signed to {bundle.date}, ledger {bundle.ledger}")
    return 0


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("file", nargs="+", help="the bundle; of several, each has a line of output")
    parser.add_argument("--key", action="append", default=[], help="a trusted public key")
    parser.add_argument("--head", action="append", default=[], help="the hash of a trusted head")
    arguments = parser.parse_args()
    status = 0
    for name in arguments.file:
        with open(name, "rb") as file:
            status |= check(file, arguments.key, arguments.head)
    return status


if __name__ == "__main__":
    sys.exit(main())
