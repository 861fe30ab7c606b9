#!/usr/bin/env python3
"""Finds a tenant's bill anew, from raw readings and rate cards alone, and says where an invoice differs.

Uses nothing of ours: fractions, json, and the time zones of the system. What it does is what docs/metering.md says,
written another way, so that a mistake would have to be made twice.

    recompute.py --readings readings.jsonl --cards cards.json --tenant 2 --month 2026-11 --zone Europe/Berlin
    recompute.py --bundle bundle --tenant 2 --month 2026-11 --zone Europe/Berlin     with the readings and cards of a bundle
    recompute.py ... --invoice invoice.json     ends with 1 when a line or the sum differs
"""
import argparse
import collections
import datetime
import fractions
import itertools
import json
import math
import sys
import zoneinfo

F = fractions.Fraction
BYTE_TIME = ("provisioned", "written", "snapshots", "history", "physical")
SIZES = {"gib": 2**30, "gb": 10**9, "tib": 2**40, "tb": 10**12, "thousand_requests": 10**3, "million_requests": 10**6}
HOUR = 3_600_000
REGISTERS = (*BYTE_TIME, "reads", "writes", "read_bytes", "write_bytes")
MARKS = ("usual", "begins", "ends")


def milliseconds(text):
    moment = datetime.datetime.fromisoformat(text.replace("Z", "+00:00"))
    return round((moment - datetime.datetime(1970, 1, 1, tzinfo=datetime.timezone.utc)) / datetime.timedelta(milliseconds=1))


def month_of(month, zone):
    """When a month begins and ends, where the tenant lives."""
    year, number = map(int, month.split("-"))
    ends = []
    for y, m in ((year, number), (year + number // 12, number % 12 + 1)):
        local = datetime.datetime(y, m, 1, tzinfo=zoneinfo.ZoneInfo(zone))
        ends.append(int(local.timestamp()) * 1000)
    return ends


def in_bundle(file):
    """The readings and the cards that a bundle of the ledger has; whether it is a right one says verify.py."""
    readings, cards = [], []
    for entry in (json.loads(line) for line in file):
        if entry.get("kind") == "readings":
            for group in entry["payload"]:
                readings += [reading_of(entry["tenant"], group, row) for row in group["of"]]
        elif entry.get("kind") == "rate_card":
            cards.append(entry["payload"]["card"])
    return readings, cards


def reading_of(tenant, group, row):
    resource, number, sequence, mark, changes, registers = row
    reading = {"resource": resource, "tenant": tenant, "class": number, "sequence": sequence, "mark": MARKS[mark]}
    reading |= {"changes": changes, **{of: group[of] for of in ("epoch", "at", "estimated_ms", "wall_ms")}}
    values = itertools.zip_longest(REGISTERS, registers.split(" ") if registers else [], fillvalue="0")
    return reading | {"registers": dict(values)}


def parts_of(cards, begin, end):
    """The month, cut where another card begins to hold: (from, to, card)."""
    cards = sorted(cards, key=lambda card: milliseconds(card["effective_from"]))
    cuts = sorted({begin, end} | {at for at in (milliseconds(c["effective_from"]) for c in cards) if begin < at < end})
    parts = []
    for at, to in zip(cuts, cuts[1:]):
        holding = [card for card in cards if milliseconds(card["effective_from"]) <= at]
        parts.append((at, to, holding[-1] if holding else None))
    return parts


def usage_of(readings, tenant, parts):
    """By part, class, dimension and resource: how far the registers went on."""
    meters = collections.defaultdict(dict)
    for reading in readings:
        if reading["tenant"] != tenant:
            continue
        meter = meters[reading["resource"], reading["epoch"]]
        if meter.setdefault(reading["sequence"], reading) != reading:
            sys.exit(f"two readings with one number: {reading}")
    used = collections.defaultdict(F)
    for meter in meters.values():
        said = [meter[sequence] for sequence in sorted(meter)]
        for one, two in zip(said, said[1:]):
            if one["mark"] == "ends" or two["mark"] == "begins":
                continue
            dwell = two["at"] - one["at"]
            began = one["wall_ms"]
            for index, (at, to, _) in enumerate(parts):
                for dimension, register in two["registers"].items():
                    went_on = int(register) - int(one["registers"].get(dimension, 0))
                    if went_on < 0:
                        sys.exit(f"a register went back: {two}")
                    if dwell:
                        before, behind = (went_on * min(max(0, moment - began), dwell) // dwell for moment in (at, to))
                        own = behind - before
                    else:
                        own = went_on * (at <= began < to)
                    if own:
                        used[index, one["class"], dimension, one["resource"]] += own
    return used


def rounded(value, rule, digits):
    scaled = abs(value) * 10**digits
    below = math.floor(scaled)
    rest = scaled - below
    up = {
        "down": False,
        "up": rest > 0,
        "half_up": rest >= F(1, 2),
        "half_down": rest > F(1, 2),
        "half_even": rest > F(1, 2) or (rest == F(1, 2) and below % 2 == 1),
    }[rule]
    return F(below + up, 10**digits) * (-1 if value < 0 else 1)


def size_of(unit, month):
    name, _, time = unit.partition("_")
    if time == "month":
        return SIZES[name] * month
    if time == "hour":
        return SIZES[name] * HOUR
    return SIZES[unit]


def tiers_of(price, quantity, share):
    """(tier, quantity, price): what is free first, then by the card's tiers."""
    free = min(quantity, F(price.get("free", "0")) * share)
    rest = quantity - free
    found = [("free", free, F(0))]
    ends = [F(tier["up_to"]) * share if "up_to" in tier else None for tier in price["tiers"]]
    if price.get("tiering", "graduated") == "volume":
        step = next(i for i, end in enumerate(ends) if end is None or rest <= end)
        found.append((str(step + 1), rest, F(price["tiers"][step]["price"])))
    else:
        low = F(0)
        for step, end in enumerate(ends):
            high = rest if end is None else min(rest, end)
            found.append((str(step + 1), max(F(0), high - low), F(price["tiers"][step]["price"])))
            low = max(low, high)
    return [tier for tier in found if tier[1]]


def shares_of(own, registers, quantity, amount, digits):
    """By resource, in their order: how far its register went on, its part of a line's quantity, and of its amount."""
    total, units = sum(own.values(), F(0)), amount * 10**digits
    shares, so_far = {}, F(0)
    for resource in sorted(own):
        below = math.floor(units * so_far / total)
        so_far += own[resource]
        pays = F(math.floor(units * so_far / total) - below, 10**digits)
        shares[resource] = (F(registers[resource]), own[resource] * quantity / total, pays)
    return shares


def class_of(card, number):
    return next((found for found in card["classes"] if found["class"] == number), None)


def price_of(card, number, dimension):
    prices = class_of(card, number) if card else None
    return next((price for price in prices["prices"] if price["dimension"] == dimension), None) if prices else None


def runs_of(parts, number, dimension):
    """Parts of the month one after the other in which a price is the same, and is rounded in the same way."""
    said = [(price_of(card, number, dimension), card and card["rounding"]) for _, _, card in parts]
    for key, run in itertools.groupby(range(len(parts)), key=lambda index: said[index]):
        if key[0] is not None:
            yield list(run), key[0], key[1]


def lines_of(parts, used, lived):
    """By (from, class, dimension, tier): quantity, exact amount, amount, unit, price, shares. A minimum's dimension is None."""
    lines = {}
    begin, month = parts[0][0], parts[-1][1] - parts[0][0]
    for index, number in sorted({key[:2] for key in used}):
        card = parts[index][2]
        if card is None:
            sys.exit(f"no card holds at {parts[index][0]}, and class {number} was used")
        if class_of(card, number) is None:
            sys.exit(f"class {number} is not on the card of {card['effective_from']}")

    def top_up(minimum_of, charged, number):
        told = [(minimum_of(card), card["rounding"], at, to) for at, to, card in parts if card]
        told = [found for found in told if found[0] is not None]
        if not told:
            return F(0)
        overlaps = (F(one) * max(0, min(to, lived[1]) - max(at, lived[0])) / month for one, _, at, to in told)
        missing = sum(overlaps, F(0)) - charged
        amount = rounded(missing, told[-1][1]["rule"], told[-1][1]["digits"])
        if missing > 0 and amount:
            lines[begin, number, None, None] = (None, missing, amount, None, None, None)
            return amount
        return F(0)

    of_all = F(0)
    for number in sorted({key[1] for key in used}):
        of_class = F(0)
        for dimension in sorted({key[2] for key in used if key[1] == number}):
            for run, price, rounding in runs_of(parts, number, dimension):
                at, to = parts[run[0]][0], parts[run[-1]][1]
                registers = collections.defaultdict(int)
                for (index, *which, resource), value in used.items():
                    if index in run and which == [number, dimension]:
                        registers[resource] += value
                own = {resource: F(v) / size_of(price["unit"], month) for resource, v in registers.items()}
                for tier, quantity, one in tiers_of(price, sum(own.values(), F(0)), F(to - at, month)):
                    amount = rounded(quantity * one, rounding["rule"], rounding["digits"])
                    shares = shares_of(own, registers, quantity, amount, rounding["digits"])
                    lines[at, number, dimension, tier] = (quantity, quantity * one, amount, price["unit"], one, shares)
                    of_class += amount
        of_class += top_up(lambda card: (class_of(card, number) or {}).get("minimum"), of_class, number)
        of_all += of_class
    top_up(lambda card: card.get("minimum"), of_all, None)
    return lines


def lines_on(invoice, begin):
    """The same, as an invoice has them, and what corrections and roundings come to, which are not of this rating."""
    lines, corrections, rounding = {}, [], F(0)
    for line in invoice["lines"]:
        charge = line["charge"]
        if line["correction"] is not None:
            if milliseconds(line["span"]["to"]) > begin:
                sys.exit(f"line {line['number']} corrects a time that is not before the month")
            corrections.append(F(line["amount"]))
            continue
        if charge["kind"] == "rounding":
            rounding += F(line["amount"])
            continue
        at = milliseconds(line["span"]["from"])
        if charge["kind"] == "usage":
            tier = charge["tier"] if charge["tier"] == "free" else str(charge["tier"]["step"])
            key = (at, charge["class"], charge["dimension"], tier)
            shares = {r["resource"]: (F(r["used"]), F(r["quantity"]), F(r["amount"])) for r in charge["resources"]}
            if len(shares) != len(charge["resources"]):
                sys.exit(f"line {line['number']} names a resource twice")
            said = (charge["unit"], F(charge["price"]), shares)
            quantity = F(charge["quantity"])
        else:
            key, quantity, said = (at, charge["class"], None, None), None, (None, None, None)
        if key in lines:
            sys.exit(f"line {line['number']} is there twice")
        lines[key] = (quantity, F(line["exact"]), F(line["amount"]), *said)
    return lines, corrections, rounding


def compare(invoice, lines, parts, given):
    cards = [card for _, _, card in parts if card]
    for what, here in (("tenant", given.tenant), ("currency", cards[-1]["currency"])):
        if invoice[what] != here:
            sys.exit(f"the {what} of the invoice is {invoice[what]}, not {here}")
    if (invoice["period"]["month"], invoice["period"]["zone"]) != (given.month, given.zone):
        sys.exit(f"the invoice is of {invoice['period']}")
    if [milliseconds(invoice["period"]["span"][end]) for end in ("from", "to")] != [parts[0][0], parts[-1][1]]:
        sys.exit(f"the invoice is from and to {invoice['period']['span']}")
    theirs, corrections, rounding = lines_on(invoice, parts[0][0])
    for key in sorted(set(lines) | set(theirs), key=str):
        if lines.get(key) != theirs.get(key):
            sys.exit(f"{key}: recomputed {lines.get(key)}, on the invoice {theirs.get(key)}")
    if sum((F(line["amount"]) for line in invoice["lines"]), F(0)) != F(invoice["total"]):
        sys.exit("the sum of the invoice is not that of its lines")
    minor = len(invoice["total"].partition(".")[2])
    exact = sum((line[2] for line in lines.values()), sum(corrections, F(0)))
    total = rounded(exact, cards[-1]["rounding"]["rule"], minor)
    if (total, total - exact) != (F(invoice["total"]), rounding):
        sys.exit(f"to pay: recomputed {total} with a rounding of {total - exact}, on the invoice {invoice['total']}")
    if corrections:
        worth = sum(corrections)
        print(f"{len(corrections)} corrections, worth {worth}, are as told: rate their months anew to know")
    print(f"{len(lines)} lines and the sum, {invoice['total']} {invoice['currency']}, are the same")


def main():
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--bundle", help="what `aljibe usage export` gave; or the two:")
    arguments.add_argument("--readings", help="a reading a line, as JSON, in any order")
    arguments.add_argument("--cards", help="a JSON array of rate cards")
    arguments.add_argument("--tenant", required=True, type=int)
    arguments.add_argument("--month", required=True, help="such as 2026-11")
    arguments.add_argument("--zone", required=True, help="such as Europe/Berlin")
    arguments.add_argument("--begins", help="when the month before ended, if that was in another zone")
    arguments.add_argument("--since", help="from when on the tenant had an account")
    arguments.add_argument("--until", help="until when")
    arguments.add_argument("--invoice", help="an invoice in JSON to hold against it")
    given = arguments.parse_args()
    if bool(given.bundle) == bool(given.readings and given.cards):
        arguments.error("either --bundle, or --readings and --cards")
    with open(given.bundle or given.readings, encoding="utf-8") as file:
        readings, cards = in_bundle(file) if given.bundle else ([json.loads(line) for line in file], [])
    if given.cards:
        with open(given.cards, encoding="utf-8") as file:
            cards = json.load(file)
    cards = sorted(cards, key=lambda card: milliseconds(card["effective_from"]))
    begin, end = month_of(given.month, given.zone)
    begin = milliseconds(given.begins) if given.begins else begin
    lived = (milliseconds(given.since) if given.since else begin, milliseconds(given.until) if given.until else end)
    parts = parts_of(cards, begin, end)
    used = usage_of(readings, given.tenant, parts)
    lines = lines_of(parts, used, lived)
    if given.invoice:
        with open(given.invoice, encoding="utf-8") as file:
            compare(json.load(file), lines, parts, given)
        return
    for key, (quantity, exact, amount, *_) in lines.items():
        print(json.dumps({"line": key, "quantity": str(quantity), "exact": str(exact), "amount": str(amount)}))
    print(json.dumps({"sum": str(sum((line[2] for line in lines.values()), F(0)))}))


if __name__ == "__main__":
    main()
