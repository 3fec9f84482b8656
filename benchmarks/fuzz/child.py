"""One reader and a range of cases, in a process of its own: a line of JSON for each fault, a dot for each case.

python -m benchmarks.fuzz.child READER SEED FIRST END FOLDER
"""

from __future__ import annotations

import json
import random
import sys
import traceback
import zlib
from collections.abc import Iterator
from pathlib import Path
from time import monotonic_ns

from benchmarks.fuzz.readers import Reader, readers
from benchmarks.processes import peak_rss
from wsigen.base.errors import WsigenError

SLOW_S = 2.0
MOST_MIB = 300
"""Above what the process held after its first good file."""
LONGEST_LINE = 1000

SCHEDULER = Path("/proc/thread-self/schedstat")
"""Of Linux: nanoseconds that this thread ran, and that it waited for a processor."""


def main() -> None:
    """Read good files, then spoiled ones."""
    name, seed, first, end, folder = sys.argv[1], *map(int, sys.argv[2:5]), Path(sys.argv[5])
    reader = readers()[name]
    files = reader.make(folder / "good")
    for file in files:
        reader.read(file)  # a good file must be taken, and loads what every later one needs
    print(".", first - 1, flush=True)
    start = _peak_mib()
    for case in range(first, end):
        for kind, text in faults(reader, files, name, seed, case):
            print(json.dumps({"reader": name, "case": case, "kind": kind, "text": text}), flush=True)
        print(".", case, flush=True)
        if _peak_mib() > start + MOST_MIB:
            text = f"{_peak_mib() - start:.0f} MiB above the start"
            print(json.dumps({"reader": name, "case": case, "kind": "memory", "text": text}), flush=True)
            return


def faults(reader: Reader, files: list[Path], name: str, seed: int, case: int) -> Iterator[tuple[str, str]]:
    """What went wrong with a case: (kind, text)."""
    rng = random.Random(zlib.crc32(f"{seed}/{name}/{case}".encode()))
    file = files[case % len(files)]
    good = file.read_bytes()
    begin = _busy_s()
    try:
        file.write_bytes(reader.spoil(good, rng))
        begin = _busy_s()
        reader.read(file)
    except WsigenError as error:
        text = str(error)
        if "\n" in text or len(text) > LONGEST_LINE or not text.isprintable():
            yield "message", text[:400]
    except Exception:
        yield "traceback", traceback.format_exc()[-1200:]
    finally:
        file.write_bytes(good)
    if (seconds := _busy_s() - begin) > SLOW_S:
        yield "slow", f"{seconds:.1f} s"


def _busy_s() -> float:
    """A clock that stands still while this thread waits for a processor: what others compute makes no reader slow."""
    waited = int(SCHEDULER.read_text().split()[1]) if SCHEDULER.exists() else 0
    return (monotonic_ns() - waited) / 1e9


def _peak_mib() -> float:
    return peak_rss() / 2**20


if __name__ == "__main__":
    main()
