"""From slots to a table: medians, spread, ratios to the best peer of the case, the raw file beside it."""

import statistics


def summarize(slots):
    """Medians by (case, server). `slots` are dictionaries with case, server, round and figures."""
    groups = {}
    for slot in slots:
        groups.setdefault((slot["case"], slot["server"]), []).append(slot)
    return {key: summarize_one(group) for key, group in groups.items()}


def summarize_one(group):
    speeds = [slot["speed"] for slot in group]
    middle = statistics.median(speeds)
    return {
        "speed": middle,
        "spread_percent": 100 * (max(speeds) - min(speeds)) / middle if middle else 0,
        "rounds": len(speeds),
        "p99_us": statistics.median(slot["p99_us"] for slot in group),
        "server_us": median_of(slot.get("server_us") for slot in group),
        "machine_us": median_of(slot.get("machine_us") for slot in group),
        "flushes_per_second": statistics.median(slot["flushes"] / slot["seconds"] for slot in group),
        "writes_per_flush": median_of(
            slot["operations"] / slot["flushes"] if slot["flushes"] else None for slot in group),
        "syscalls": median_of(slot.get("syscalls") for slot in group),
    }


def median_of(values):
    known = [value for value in values if value is not None]
    return statistics.median(known) if known else None


def render(cases, servers, summary, failures):
    """The whole report as Markdown. `servers` are (name, is_peer) in the order of the columns' rows."""
    lines = []
    for case in cases:
        lines += render_case(case, servers, summary, failures)
    lines += ["", "## Against the promised ratios", "",
              "| case | of the best peer | promised | processor time of the best peer | promised | of the raw file direct "
              "| promised | |", "| --- | --- | --- | --- | --- | --- | --- | --- |"]
    lines += [line for case in cases for line in render_verdict(case, servers, summary)]
    if failures:
        lines += ["", "## Failed slots: this run is a failed run", ""]
        lines += [f"- {failure['case']}, {failure['server']}, round {failure['round']}: {failure['reason']}"
                  for failure in failures]
    return "\n".join(lines) + "\n"


def render_case(case, servers, summary, failures):
    state = {"warm": "everything cached", "random-warm": "everything cached in small pages",
             "cold": "page cache dropped"}[case.state]
    lines = ["", f"### {case.name}: {case.title}", "", f"Begins with {state}"
             + (", after a fill" if case.refill else "")
             + (f" and {case.before_seconds} s of the same job unmeasured" if case.before_seconds else "") + ".", "",
             f"| server | {case.unit} | of the best peer | spread | p99 us | server us per {per(case)} | "
             f"machine us per {per(case)} | flushes/s | writes per flush | syscalls per I/O |",
             "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |"]
    best = best_peer(case, servers, summary)
    for name, _ in servers:
        row = summary.get((case.name, name))
        if row is None:
            if any(failure["case"] == case.name and failure["server"] == name for failure in failures):
                lines.append(f"| {name} | FAILED | | | | | | | | |")
            continue
        ratio = f"{row['speed'] / best['speed']:.2f}x" if best else ""
        flushes = f"{row['flushes_per_second']:,.0f}" if row["flushes_per_second"] else ""
        lines.append(f"| {name} | {row['speed']:,.0f} | {ratio} | {row['spread_percent']:.0f} % | {row['p99_us']:,.0f} | "
                     f"{number(row['server_us'])} | {number(row['machine_us'])} | {flushes} | "
                     f"{number(row['writes_per_flush'])} | {number(row['syscalls'], 2)} |")
    return lines


def per(case):
    return "I/O" if case.unit == "IOPS" else "MiB"


def number(value, digits=1):
    return "" if value is None else f"{value:.{digits}f}"


def best_peer(case, servers, summary):
    rows = [summary[(case.name, name)] for name, is_peer in servers if is_peer and (case.name, name) in summary]
    return max(rows, key=lambda row: row["speed"]) if rows else None


def render_verdict(case, servers, summary):
    ours, best = summary.get((case.name, "aljibe")), best_peer(case, servers, summary)
    raw = summary.get((case.name, "raw-direct"))
    if ours is None or best is None or case.ratio is None:
        return []
    checks = [(ours["speed"] / best["speed"], case.ratio, True)]
    cpu = ours["server_us"] / best["server_us"] if case.cpu_ratio and best["server_us"] else None
    if cpu is not None:
        checks.append((cpu, case.cpu_ratio, False))
    of_raw = ours["speed"] / raw["speed"] if raw and case.raw_ratio else None
    if of_raw is not None:
        checks.append((of_raw, case.raw_ratio, True))
    is_met = all(value >= goal if more_is_better else value <= goal for value, goal, more_is_better in checks)
    return [f"| {case.name} | {checks[0][0]:.2f}x | {case.ratio}x | {number(cpu, 2)} | {case.cpu_ratio or ''} | "
            f"{number(of_raw, 2)} | {case.raw_ratio or ''} | {'met' if is_met else 'MISSED'} |"]
