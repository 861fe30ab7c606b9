"""The matrix: what is measured, from which state, and which ratio to the best peer is promised."""

from dataclasses import dataclass, field

MIB = 1 << 20


@dataclass(frozen=True)
class Case:
    """One row of the matrix.

    `state` says what is in the page cache when the clock starts: `warm` (every byte was read just before, by a
    sequential read), `random-warm` (read in 4 KiB pieces, so that the cache holds small pages), or `cold` (dropped).
    `refill` brings the content back to the source's bytes first. `before` is a job that runs unmeasured just before.
    """

    name: str
    title: str
    tool: str = "fio"
    fio: dict = field(default_factory=dict)
    state: str = "cold"
    refill: bool = False
    before_seconds: int = 0
    tls: bool = False
    writes: bool = False
    unit: str = "IOPS"
    ratio: float | None = None
    cpu_ratio: float | None = None
    raw_ratio: float | None = None
    has_raw: bool = True


def job(rw, block, depth, connections, **more):
    return {"rw": rw, "bs": block, "iodepth": depth, "numjobs": connections, **more}


def random_cases():
    cases = []
    targets = {
        ("randread", 1, 1): {"ratio": 1.0},
        ("randread", 32, 1): {"ratio": 1.2, "cpu_ratio": 0.6},
        ("randwrite", 1, 1): {"ratio": 0.9},
        ("randwrite", 32, 1): {"ratio": 1.0, "cpu_ratio": 0.8},
    }
    for rw in ("randread", "randwrite"):
        for connections in (1, 4):
            for depth in (1, 32):
                is_write = rw == "randwrite"
                cases.append(Case(
                    name=f"{rw}-q{depth}-c{connections}",
                    title=f"random {'write' if is_write else 'read'} 4 KiB, depth {depth}"
                          + (f" on each of {connections} connections" if connections > 1 else ""),
                    fio=job(rw, "4k", depth, connections),
                    state="cold" if is_write else "warm",
                    refill=is_write, before_seconds=2 if is_write else 0, writes=is_write,
                    **targets.get((rw, depth, connections), {})))
    return cases


def flush_cases():
    cases = []
    targets = {(1, 1): {"ratio": 1.3, "raw_ratio": 0.8}, (32, 1): {"ratio": 2.0}, (32, 32): {"ratio": 2.0}}
    for depth, connections, every in ((1, 1, 1), (32, 1, 1), (32, 1, 32), (1, 4, 1), (32, 4, 1)):
        each = "every write" if every == 1 else f"every {every} writes"
        cases.append(Case(
            name=f"flush{every}-q{depth}-c{connections}",
            title=f"random write 4 KiB, a flush after {each}, depth {depth}"
                  + (f" on each of {connections} connections" if connections > 1 else ""),
            fio=job("randwrite", "4k", depth, connections, fsync=every),
            refill=True, before_seconds=1, writes=True,
            **(targets.get((depth, every), {}) if connections == 1 else {})))
    return cases


def other_cases():
    return [
        Case("mix-q32-c1", "70/30 random read and write 4 KiB, depth 32", fio=job("randrw", "4k", 32, 1, rwmixread=70),
             state="random-warm", refill=True, writes=True, ratio=1.2),
        Case("mix-q32-c4", "70/30 random read and write 4 KiB, depth 32 on each of 4 connections",
             fio=job("randrw", "4k", 32, 4, rwmixread=70), state="random-warm", refill=True, writes=True),
        Case("first-write-q32", "random write 4 KiB, depth 32, the first after the fill",
             fio=job("randwrite", "4k", 32, 1), refill=True, writes=True),
        Case("seqread", "sequential read 1 MiB, depth 8", fio=job("read", "1m", 8, 1), state="warm", unit="MiB/s",
             ratio=1.0),
        Case("seqread-cold", "sequential read 1 MiB, depth 8, nothing cached", fio=job("read", "1m", 8, 1),
             unit="MiB/s"),
        Case("seqwrite-cold", "sequential write 1 MiB, depth 8, nothing cached, once through",
             fio=job("write", "1m", 8, 1, loops=1),
             refill=True, writes=True, unit="MiB/s", ratio=1.2),
        Case("copy-out", "nbdcopy, all of it to nowhere, 4 connections", tool="copy-out", state="warm", unit="MiB/s",
             has_raw=False),
        Case("copy-in", "nbdcopy, all of it into the export and flushed, 4 connections", tool="copy-in", refill=True,
             writes=True, unit="MiB/s", has_raw=False),
        Case("tls-seqread", "TLS: sequential read 1 MiB, depth 8", fio=job("read", "1m", 8, 1), state="warm", tls=True,
             unit="MiB/s", ratio=4.0, has_raw=False),
        Case("tls-seqwrite", "TLS: sequential write 1 MiB, depth 8", fio=job("write", "1m", 8, 1), refill=True,
             writes=True, tls=True, unit="MiB/s", ratio=4.0, has_raw=False),
        Case("tls-randread-q32", "TLS: random read 4 KiB, depth 32", fio=job("randread", "4k", 32, 1), state="warm",
             tls=True, has_raw=False),
        Case("tls-copy-out", "TLS: nbdcopy, all of it to nowhere, 4 connections", tool="copy-out", state="warm",
             tls=True, unit="MiB/s", has_raw=False),
        Case("tls-copy-in", "TLS: nbdcopy, all of it into the export and flushed, 4 connections", tool="copy-in", refill=True,
             writes=True, tls=True, unit="MiB/s", has_raw=False),
    ]


def all_cases():
    """Those that only read come first, so that one fill serves them all."""
    cases = random_cases() + flush_cases() + other_cases()
    return [case for case in cases if not case.writes] + [case for case in cases if case.writes]
