# Reads what iscsi-test-cu prints without -n, -s or -x and says of each case, in its order: SUITE.TEST ran, skipped or
# FAILED. A case that skips itself ends as passed; only a line of its own tells. One that ended the program has no
# verdict: FAILED.

function tell() {
    if (test != "") print suite "." test, (verdict != "passed" ? "FAILED" : is_skipped ? "skipped" : "ran")
    test = ""
}

/^Suite: / { tell(); suite = $2 }
/^  Test: / {
    tell()
    test = $2
    verdict = ""
    is_skipped = 0
    sub(/^  Test: [^ ]+ \.\.\./, "")
}
/^Run Summary:/ { tell() }
/\[SKIPPED\]/ { is_skipped = 1 }
/^passed/ { verdict = "passed" }
/^FAILED/ { verdict = "FAILED" }
END { tell() }
