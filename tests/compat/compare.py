#!/usr/bin/env python3
"""Compares the results of a suite with what is expected of it. Fails on a failure that is not expected, and
on an expected one that passes now or was not run: the list of expectations only shrinks.

RESULTS has lines `pass|fail|skip NAME`. EXPECTED has lines `NAME reason`; a name without `::` is a file
that is not run at all. Usage: compare.py RESULTS EXPECTED"""

import sys


def read(path):
    with open(path, encoding="utf-8") as lines:
        for line in lines:
            if line.strip() and not line.startswith("#"):
                word, _, rest = line.strip().partition(" ")
                yield word, rest.strip()


def main(results_file, expected_file):
    results = {name: outcome for outcome, name in read(results_file)}
    expected = dict(read(expected_file))
    wrong = [f"{name}: expected, but no reason is given" for name, reason in expected.items() if not reason]
    for name, outcome in results.items():
        if outcome == "fail" and name not in expected:
            wrong.append(f"{name}: failed, and was expected to pass")
    for name in expected:
        if "::" in name and results.get(name) == "pass":
            wrong.append(f"{name}: passes now; take it from the list")
        elif "::" in name and name not in results:
            wrong.append(f"{name}: is on the list and was not run")
        elif "::" not in name and any(ran.startswith(name + "::") for ran in results):
            wrong.append(f"{name}: is listed as not run, and was run")
    count = {outcome: sum(1 for o in results.values() if o == outcome) for outcome in ("pass", "fail", "skip")}
    files = sum(1 for name in expected if "::" not in name)
    print(f"{count['pass']} passed, {count['fail']} failed ({len(expected) - files} expected), "
          f"{count['skip']} skipped by the suite itself, {files} files not run")
    for line in wrong:
        print(f"  {line}")
    return 1 if wrong or not results else 0


sys.exit(main(*sys.argv[1:]))
