"""Run a fuzzing campaign: ``python -m benchmarks.fuzz --cases 100000 --seed 0``."""

from __future__ import annotations

import argparse
import json
import selectors
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

from benchmarks.fuzz.readers import readers

HANG_S = 60.0
"""Without a sign of life a process is killed, and its case counts as a hang."""


def main() -> None:
    """Share the cases among the readers; exit code 1 if there was any fault."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cases", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--reader", action="append", choices=sorted(readers()), help="these alone")
    parser.add_argument("--out", type=Path, help="write every fault as a line of JSON")
    args = parser.parse_args()
    faults = run_campaign(args.cases, args.seed, args.reader)
    if args.out:
        args.out.write_text("".join(json.dumps(fault) + "\n" for fault in faults))
    for (reader, kind), count in sorted(Counter((f["reader"], f["kind"]) for f in faults).items()):
        example = next(f for f in faults if (f["reader"], f["kind"]) == (reader, kind))
        print(f"{reader}: {count} x {kind}, e.g. case {example['case']}: {example['text'].strip()[-500:]}")
    print(f"{args.cases} cases, {len(faults)} faults")
    sys.exit(1 if faults else 0)


def run_campaign(cases: int, seed: int, names: list[str] | None = None) -> list[dict[str, Any]]:
    """Every fault: reader, case, kind (``traceback``, ``message``, ``slow``, ``memory``, ``hang``, ``died``) and text."""
    chosen = {name: reader for name, reader in readers().items() if not names or name in names}
    total = sum(reader.weight for reader in chosen.values())
    faults: list[dict[str, Any]] = []
    for name, reader in chosen.items():
        share = -(-cases * reader.weight // total)
        faults += run_reader(name, seed, share)
        print(f"{name}: {share} cases", file=sys.stderr, flush=True)
    return faults


def run_reader(name: str, seed: int, cases: int) -> list[dict[str, Any]]:
    """The cases of one reader; a process that hangs, dies or grew too large is replaced by another one."""
    faults: list[dict[str, Any]] = []
    case = 0
    while case < cases:
        with tempfile.TemporaryDirectory(prefix="wsigen-fuzz-") as folder:
            case = _run_child([name, str(seed), str(case), str(cases), folder], case, faults)
    return faults


def _run_child(arguments: list[str], first: int, faults: list[dict[str, Any]]) -> int:
    """Watch one process; returns the first case that it did not do."""
    command = [sys.executable, "-m", "benchmarks.fuzz.child", *arguments]
    following, began = first, False
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as child:
        assert child.stdout is not None
        with selectors.DefaultSelector() as waiting:
            waiting.register(child.stdout, selectors.EVENT_READ)
            while True:
                if not waiting.select(HANG_S):
                    child.kill()
                    faults.append({"reader": arguments[0], "case": following, "kind": "hang", "text": f"{HANG_S:.0f} s"})
                    return following + 1
                line = child.stdout.readline()
                if not line:
                    break
                began = True
                if line.startswith("."):
                    following = int(line[1:]) + 1
                else:
                    faults.append(json.loads(line))
        code = child.wait()
    if not began:
        raise SystemExit(f"{arguments[0]}: does not take its good files; see: {' '.join(command)}")
    if code != 0:
        faults.append({"reader": arguments[0], "case": following, "kind": "died", "text": f"exit code {code}"})
        return following + 1
    return following


if __name__ == "__main__":
    main()
