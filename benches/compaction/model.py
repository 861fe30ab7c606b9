#!/usr/bin/env python3
"""What compaction costs, by a model of metadata alone: no disk, no bytes. Standard library only.

    model.py [fill] [whole] [reserve] [policy] [slots] [pool] [batch] [--pool-gib N] [--overwrites N] [--seed N]

fill     write amplification by how full the pool is, under uniform, zipf 0.99 and sequential overwrites
whole    the same where a segment is moved whole, into one pack: why the compactor cuts it into parts
reserve  by the share of slots that is kept free
policy   by the choice of victims and the number of output ages
slots    by the size of a slot
pool     by the size of the pool
batch    by how many 4 KiB writes go into one batch, of which each has a header of its own

One volume of 4 KiB blocks fills a pool until a share of all its bytes is live, first in order, then by overwrites until the
volume has been written --overwrites times more; twice as often under zipf, where what was filled in order takes long to come
apart. A slot is filled by the volume's writes (a header for each batch, a footer) or by what compaction moves (an entry for
each block). Whenever no more slots than the reserve are free, slots are compacted. That is a volume that never rests: the
worst case, since a pause lets garbage gather at no cost.

moved   write amplification: (blocks written by the volume + blocks moved) / blocks written by the volume
drift   by how much that differs between the two halves of what is measured, the last third: it is steady where this is small
device  the same with all headers, entries and footers: bytes written / bytes of the volume's writes
victim  how much of the slots that were compacted was live, on average

Victims are chosen by what of a slot is live (l) and how long ago that was written (age, in blocks written since):
greedy        the least l
cost-benefit  the most (1 - l) * age / l
steep         the most (1 - l)^4 * age / l
oracle        knows how often each block is written: the most (1 - l)^2 / (writes that will hit what is live), and six packs,
              each for blocks that are written about equally often. What no policy can do, as a bound
With two output ages, what was moved before goes to another open pack than what comes from the volume's own segments.
"""

import argparse
import random
import sys
import time
from itertools import accumulate

KIB, MIB, GIB = 1 << 10, 1 << 20, 1 << 30
BLOCK = 4 * KIB

# Sizes of the format (docs/format.md).
BATCH_FIXED, DESCRIPTOR, CHECK, FOOTER_ENTRY, PARCEL_ENTRY = 80, 32, 4, 36, 40

DEFAULTS = {"load": "uniform", "fill": 75, "slot": 32 * MIB, "reserve": 1.0, "policy": "steep", "ages": 2, "batch": 128,
            "whole": False}
# Rows that several tables have are computed once.
RESULTS = {}
LOADS = ["uniform", "zipf", "sequential"]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    tables = {"fill": by_fill, "whole": by_whole, "reserve": by_reserve, "policy": by_policy, "slots": by_slot, "pool": by_pool,
              "batch": by_batch}
    parser.add_argument("table", nargs="*", help="fill, whole, reserve, policy, slots, pool, batch (all)")
    parser.add_argument("--pool-gib", type=int, default=8)
    parser.add_argument("--overwrites", type=float, default=3.0, help="times the volume's size; the last third is measured")
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    unknown = set(arguments.table) - set(tables)
    if unknown:
        parser.error(f"no table is called {', '.join(unknown)}")
    began = time.monotonic()
    print(f"pool of {arguments.pool_gib} GiB, {arguments.overwrites:g} overwrites, seed {arguments.seed}; unless a table says "
          f"otherwise: {DEFAULTS['fill']} % live, slots of {DEFAULTS['slot'] // MIB} MiB, reserve {DEFAULTS['reserve']:g} %, "
          f"{DEFAULTS['policy']}, {DEFAULTS['ages']} output ages, {DEFAULTS['batch']} writes a batch")
    for name in arguments.table or tables:
        print(f"\n## {name}\n")
        tables[name](arguments)
        sys.stdout.flush()
    print(f"\n{time.monotonic() - began:.0f} s", file=sys.stderr)


def by_fill(arguments):
    heading("live", "load")
    for fill in (60, 65, 70, 75, 80, 85):
        for load in LOADS:
            row(arguments, f"{fill} %", load, fill=fill, load=load)


def by_whole(arguments):
    heading("live", "load")
    for fill in (50, 55, 60, 65):
        for load in ("uniform", "zipf"):
            row(arguments, f"{fill} %", load, fill=fill, load=load, whole=True)


def by_reserve(arguments):
    heading("reserve", "load")
    for reserve in (1, 2, 3, 5, 10):
        for load in ("uniform", "zipf"):
            row(arguments, f"{reserve} %", load, reserve=reserve, load=load)


def by_policy(arguments):
    heading("victims, output ages", "load")
    for policy in ("greedy", "cost-benefit", "steep"):
        for ages in (1, 2):
            for load in ("uniform", "zipf"):
                row(arguments, f"{policy}, {ages}", load, policy=policy, ages=ages, load=load)
    row(arguments, "oracle, 6", "zipf", policy="oracle", ages=6, load="zipf")


def by_slot(arguments):
    heading("slot", "load")
    for slot in (8 * MIB, 32 * MIB, 128 * MIB):
        for load in ("uniform", "zipf"):
            row(arguments, f"{slot // MIB} MiB", load, slot=slot, load=load)


def by_pool(arguments):
    heading("pool", "load")
    for gib in (4, 8, 16, 32):
        row(argparse.Namespace(**{**vars(arguments), "pool_gib": gib}), f"{gib} GiB", "uniform")


def by_batch(arguments):
    heading("writes a batch", "load")
    for batch in (1, 8, 32, 128):
        row(arguments, f"{batch}", "uniform", batch=batch)


def heading(*columns):
    print(f"| {' | '.join(columns)} | moved | drift | device | victim |")
    print(f"|{' --- |' * len(columns)} ---: | ---: | ---: | ---: |")


def row(arguments, *columns, **settings):
    settings = {**DEFAULTS, **settings}
    known = (arguments.pool_gib, *settings.values())
    if known not in RESULTS:
        overwrites = arguments.overwrites * (2 if settings["load"] == "zipf" else 1)
        try:
            kind = Whole if settings["whole"] else Oracle if settings["policy"] == "oracle" else Model
            model = kind(arguments, **settings)
            moved, drift, device, victim = model.steady_state(overwrites)
            RESULTS[known] = f"{moved:.2f} | {drift:+.2f} | {device:.2f} | {victim:.0%}"
        except Full:
            RESULTS[known] = "does not fit | | |"
    print(f"| {' | '.join(columns)} | {RESULTS[known]} |", flush=True)


class Full(Exception):
    """What is live does not fit beside the reserve."""


class Model:
    """A pool of one volume. Blocks are numbers; a slot knows which were written to it, a block in which slot it is now."""

    def __init__(self, arguments, load, fill, slot, reserve, policy, ages, batch, whole):
        self.random = random.Random(arguments.seed)
        self.slot_count = arguments.pool_gib * GIB // slot
        self.slot_bytes = slot
        self.reserve = max(2 + ages, round(self.slot_count * reserve / 100))
        self.policy = policy
        self.ages = ages
        blocks = slot // BLOCK
        # Blocks of a slot that hold data: all but the headers of the slot, the batches or parcels, and the footer.
        header = -(-(BATCH_FIXED + batch * (DESCRIPTOR + CHECK)) // BLOCK)
        self.segment_blocks = int((blocks - 2) * batch / (batch + header + batch * (FOOTER_ENTRY + CHECK) / BLOCK))
        self.pack_blocks = int((blocks - 1) / (1 + (PARCEL_ENTRY + CHECK) / BLOCK))
        self.volume_blocks = self.slot_count * blocks * fill // 100
        # A block that was never written is in a slot of its own kind, behind the others.
        self.slot_of = [self.slot_count] * self.volume_blocks
        self.blocks_of = [[] for _ in range(self.slot_count)]
        self.live = [0] * (self.slot_count + 1)
        # When what a slot holds was written, on average, in blocks written by the volume; and how often it was moved.
        self.written_at = [0.0] * self.slot_count
        self.is_pack = [False] * self.slot_count
        self.free = list(range(self.slot_count - 1, -1, -1))
        self.sealed = set()
        self.open_packs = [None] * ages
        self.now = self.moved = self.device_bytes = self.victims = self.victim_live = 0
        self.load = getattr(self, load)(self.volume_blocks)

    def uniform(self, count):
        draw = self.random.random
        return lambda blocks: [int(draw() * count) for _ in range(blocks)]

    def zipf(self, count):
        """The block of rank k is written with a probability of k^-0.99; ranks are scattered over the volume."""
        self.ranked = list(range(count))
        self.random.shuffle(self.ranked)
        self.weights = list(accumulate((k + 1) ** -0.99 for k in range(count)))
        return lambda blocks: self.random.choices(self.ranked, cum_weights=self.weights, k=blocks)

    def sequential(self, count):
        def take(blocks):
            return [block % count for block in range(self.now, self.now + blocks)]

        return take

    def steady_state(self, overwrites):
        for first in range(0, self.volume_blocks, self.segment_blocks):
            self.append(list(range(first, min(first + self.segment_blocks, self.volume_blocks))))
        end = self.now + int(self.volume_blocks * overwrites)
        third = int(self.volume_blocks * overwrites / 3)
        marks = []
        for until in (end - third, end - third // 2, end):
            while self.now < until:
                self.append(self.load(self.segment_blocks))
            marks.append((self.now, self.moved, self.device_bytes, self.victims, self.victim_live))
        written, moved, device, victims, live = (after - before for before, after in zip(marks[0], marks[2]))
        halves = [1 + (after[1] - before[1]) / (after[0] - before[0]) for before, after in zip(marks, marks[1:])]
        return 1 + moved / written, halves[1] - halves[0], device / (written * BLOCK), live / max(1, victims)

    def append(self, blocks):
        """The volume fills a slot."""
        while len(self.free) <= self.reserve:
            self.compact()
        slot = self.free.pop()
        self.place(blocks, slot)
        self.now += len(blocks)
        self.blocks_of[slot] = blocks
        self.is_pack[slot] = False
        self.written_at[slot] = self.now
        self.device_bytes += self.slot_bytes * len(blocks) // self.segment_blocks
        self.sealed.add(slot)

    def place(self, blocks, slot):
        slot_of, live = self.slot_of, self.live
        live[slot] += len(blocks)
        for block in blocks:
            live[slot_of[block]] -= 1
            slot_of[block] = slot

    def compact(self):
        """Moves what is live in one slot to the open pack of its age."""
        victim = self.choose()
        slot_of = self.slot_of
        survivors = list(dict.fromkeys(block for block in self.blocks_of[victim] if slot_of[block] == victim))
        self.victims += 1
        self.victim_live += len(survivors) / (self.slot_bytes // BLOCK)
        self.moved += len(survivors)
        self.device_bytes += self.slot_bytes * len(survivors) // self.pack_blocks
        for age, some in self.by_age(victim, survivors):
            self.move(some, age, victim)
        self.sealed.discard(victim)
        self.blocks_of[victim] = []
        self.free.append(victim)

    def by_age(self, victim, survivors):
        return [(min(self.ages - 1, int(self.is_pack[victim])), survivors)]

    def move(self, blocks, age, victim):
        while blocks:
            pack = self.pack_of(age)
            held = self.blocks_of[pack]
            room = self.pack_blocks - len(held)
            some, blocks = blocks[:room], blocks[room:]
            self.written_at[pack] += (self.written_at[victim] - self.written_at[pack]) * len(some) / (len(held) + len(some))
            self.place(some, pack)
            held.extend(some)

    def pack_of(self, age):
        pack = self.open_packs[age]
        if pack is None or len(self.blocks_of[pack]) >= self.pack_blocks:
            if pack is not None:
                self.sealed.add(pack)
            if not self.free:
                raise Full
            pack = self.open_packs[age] = self.free.pop()
            self.blocks_of[pack] = []
            self.is_pack[pack] = True
            self.written_at[pack] = 0.0
        return pack

    def choose(self):
        live = self.live
        victim = min(self.sealed, key=live.__getitem__)
        # Nothing is gained by moving it, and by no other.
        if live[victim] >= self.pack_blocks:
            raise Full
        if self.policy == "greedy" or live[victim] == 0:
            return victim
        # (1 - l) * age / l: Kawaguchi and others, 1995. Where all blocks are written alike, age tells nothing of the future,
        # and the product passes by the emptiest slots; a higher power of the gain stays with them.
        now, written_at, blocks = self.now, self.written_at, self.pack_blocks
        power = 4 if self.policy == "steep" else 1
        return max(self.sealed, key=lambda slot: (1 - live[slot] / blocks) ** power * (now - written_at[slot]) / live[slot])


class Whole(Model):
    """Segments are moved whole: a pack takes those that fit. Blocks know their segment, `slot_of`, which stays theirs."""

    VICTIMS_MAX = 16

    def __init__(self, *arguments, **settings):
        super().__init__(*arguments, **settings)
        self.live = []
        self.seat = []
        self.held = [set() for _ in range(self.slot_count)]
        self.slot_of = [None] * self.volume_blocks

    def append(self, blocks):
        while len(self.free) <= self.reserve:
            self.compact()
        self.live.append(0)
        self.seat.append(None)
        self.sit(len(self.seat) - 1, self.free.pop())
        self.place(blocks, len(self.seat) - 1)
        self.now += len(blocks)
        self.device_bytes += self.slot_bytes * len(blocks) // self.segment_blocks

    def sit(self, segment, slot):
        """Gives a segment a place, or none."""
        left = self.seat[segment]
        self.seat[segment] = slot
        if slot is not None:
            self.held[slot].add(segment)
        if left is not None:
            self.held[left].discard(segment)
            if not self.held[left]:
                self.free.append(left)

    def place(self, blocks, segment):
        for block in blocks:
            old = self.slot_of[block]
            self.slot_of[block] = segment
            self.live[segment] += 1
            if old is not None:
                self.live[old] -= 1
                if self.live[old] == 0 and old != segment:
                    self.sit(old, None)

    def compact(self):
        """Moves the segments of as many of the best slots as give the most slots for each pack."""
        slots = sorted((slot for slot in range(self.slot_count) if self.held[slot]), key=self.score, reverse=True)
        segments, best, best_gain = [], [], 0.0
        for count, slot in enumerate(slots[:self.VICTIMS_MAX], 1):
            segments.extend(self.held[slot])
            packs = self.packs(segments)
            if (count - len(packs)) / len(packs) > best_gain:
                best, best_gain = packs, (count - len(packs)) / len(packs)
        if not best:
            raise Full
        for pack in best:
            if not self.free:
                raise Full
            slot = self.free.pop()
            for segment in pack:
                self.moved += self.live[segment]
                self.device_bytes += self.slot_bytes * self.live[segment] // self.pack_blocks
                self.victim_live += self.live[segment] / (self.slot_bytes // BLOCK)
                self.sit(segment, slot)
        self.victims += round(len(best) * (1 + best_gain))

    def packs(self, segments):
        packs = []
        for segment in segments:
            room = self.pack_blocks - self.live[segment]
            pack = next((pack for pack in packs if pack[0] <= room), None)
            if pack is None:
                packs.append(pack := [0])
            pack[0] += self.live[segment]
            pack.append(segment)
        return [pack[1:] for pack in packs]

    def score(self, slot):
        live = sum(self.live[segment] for segment in self.held[slot])
        age = sum((len(self.seat) - segment) * self.live[segment] for segment in self.held[slot]) / max(1, live)
        return max(0, 1 - live / self.pack_blocks) ** 4 * age / max(1, live)


class Oracle(Model):
    """One that knows the load. Zipf only."""

    def zipf(self, count):
        draw = super().zipf(count)
        self.rate = [0.0] * count
        for rank, block in enumerate(self.ranked):
            self.rate[block] = (rank + 1) ** -0.99 / self.weights[-1]
        self.rate_of = [0.0] * (self.slot_count + 1)
        self.rate_of[self.slot_count] = 1.0
        return draw

    def place(self, blocks, slot):
        for block in blocks:
            self.rate_of[self.slot_of[block]] -= self.rate[block]
            self.rate_of[slot] += self.rate[block]
            self.live[self.slot_of[block]] -= 1
            self.live[slot] += 1
            self.slot_of[block] = slot

    def by_age(self, victim, survivors):
        groups = [[] for _ in range(self.ages)]
        limits = [16.0 / 4 ** k / self.volume_blocks for k in range(self.ages - 1)]
        for block in survivors:
            groups[sum(self.rate[block] < limit for limit in limits)].append(block)
        return enumerate(groups)

    def choose(self):
        blocks = self.pack_blocks
        victim = max(self.sealed, key=lambda s: max(0, 1 - self.live[s] / blocks) ** 2 / max(self.rate_of[s], 1e-12))
        if self.live[victim] >= blocks:
            raise Full
        return victim


if __name__ == "__main__":
    main()
