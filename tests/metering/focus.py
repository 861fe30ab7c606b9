#!/usr/bin/env python3
"""Runs the public validator of FOCUS 1.2 over an invoice and judges what it says.

    python -m venv V; V/bin/pip install --ignore-requires-python focus-validator==2.2.1
    V/bin/pip install 'pyarrow<20'      # newer ones do not go with the numpy that it wants
    V/bin/python tests/metering/focus.py focus.csv

The tool's own exit code is not to be trusted: it may be 0 with failing rules, or with none run. So its report is counted:
rules must have run, none may have failed but those that are listed here with the reason, and the columns that we claim must
have been looked at. It is run from a copy, since it finds its list of currencies only from the folder that it is installed in, and since
before Python 3.12 one of its lines cannot be read.
"""
import pathlib
import shutil
import subprocess
import sys
import tempfile
import xml.etree.ElementTree

import focus_validator

VERSION = "1.2.0.1"
# What we support, of what the model asks about.
CRITERIA = (
    "ACCOUNT_NAMING PUBLIC_PRICE_LIST NEGOTIATED_PRICING USAGE_MEASUREMENT UNIT_PRICING SUB_ACCOUNT"
    " BILLING_BASED_ON_PROVISIONED_RESOURCES RESOURCE_TYPE_ASSIGNMENT REGION TAGGING"
)
# Rules that fail for the tool's sake, and why.
KNOWN = {
    "InvoiceId-C-004-C": "asks for no invoice id at all: its condition is missing in the model, as is that of C-005, which asks for one",
}
# It runs 268 of 578; the others are about what no program can check, or what we do not claim.
RULES_MIN = 260
# Python before 3.12 has no backslash within an f-string.
UNREADABLE = r"""f"'{k.replace('\"', '\"\"')}'" for k"""
READABLE = r"""("'" + k.replace('"', '""') + "'") for k"""


def validate(data, folder):
    """Runs the tool from a copy and returns its report."""
    home = pathlib.Path(folder, "site")
    shutil.copytree(pathlib.Path(focus_validator.__file__).parent, home / "focus_validator")
    if sys.version_info < (3, 12):
        source = home / "focus_validator/config_objects/focus_to_duckdb_converter.py"
        source.write_text(source.read_text(encoding="utf-8").replace(UNREADABLE, READABLE), encoding="utf-8")
    report = pathlib.Path(folder, "report.xml")
    criteria = ",".join(f"{name}_SUPPORTED" for name in CRITERIA.split())
    command = [sys.executable, "-m", "focus_validator.main", "--data-file", str(data), "--validate-version", VERSION]
    command += ["--focus-dataset", "CostAndUsage", "--applicability-criteria", criteria, "--block-download"]
    command += ["--output-type", "unittest", "--output-destination", str(report)]
    ran = subprocess.run(command, cwd=home, capture_output=True, text=True, timeout=600)
    if not report.exists():
        sys.exit(f"no report: {ran.stdout[-3000:]}\n{ran.stderr[-3000:]}")
    return xml.etree.ElementTree.parse(report).getroot()


def main():
    data = pathlib.Path(sys.argv[1]).resolve()
    with tempfile.TemporaryDirectory() as folder:
        report = validate(data, folder)
    cases = list(report.iter("testcase"))
    failed, skipped = {}, []
    for case in cases:
        trouble = case.find("failure") if case.find("failure") is not None else case.find("error")
        if trouble is not None:
            failed[case.get("name")] = (trouble.get("message") or trouble.text or "").strip()[:300]
        elif case.find("skipped") is not None:
            skipped.append(case.get("name"))
    ran = len(cases) - len(skipped)
    unknown = {name: why for name, why in failed.items() if not any(name.startswith(known) for known in KNOWN)}
    print(f"focus-validator, model {VERSION}: {len(cases)} rules, {ran} run, {len(skipped)} skipped, {len(failed)} failed")
    for name, why in sorted(failed.items()):
        print(f"  {'known' if name not in unknown else 'FAILED'}: {name}: {why}")
    if ran < RULES_MIN:
        sys.exit(f"only {ran} rules were run, {RULES_MIN} are expected: nothing is proved")
    if unknown:
        sys.exit(1)


if __name__ == "__main__":
    main()
