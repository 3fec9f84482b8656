"""``python -m benchmarks.decoding``: what keeping freed memory and decoding in pieces are worth on a CPU.

Each row is a process of its own: seconds of a crop through the U-Net and of a decoded window of 128 latent px, the system's
share, pages fetched anew, and peak memory; by one thread and by two at once.
"""

from __future__ import annotations

import argparse
import resource
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from statistics import mean
from time import perf_counter
from typing import Any

import numpy as np

from benchmarks.document import rewrite, table
from benchmarks.processes import environment, in_process, peak_rss

COMMAND = "python -m benchmarks.decoding"
CALLS, WINDOWS = 4, 2
WHOLE = 10**6
"""A piece that is larger than any window."""


@dataclass(frozen=True, slots=True)
class Case:
    """A way to decode: whether the process keeps freed memory, latent px of a piece, whether it starts as by dask's nanny."""

    name: str
    kept: bool
    piece: int
    nanny: bool = False


CASES = (
    Case("dask's nanny, whole windows", False, WHOLE, nanny=True),
    Case("glibc's own ways, whole windows", False, WHOLE),
    Case("freed memory kept, whole windows", True, WHOLE),
    Case("glibc's own ways, pieces of 64", False, 64),
    Case("freed memory kept, pieces of 64", True, 64),
)


def main() -> None:
    """Measure every case in turn, with one thread and with two; print the table, or rewrite a document's."""
    parser = argparse.ArgumentParser(prog=COMMAND, description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--model", default="default", help="bundle (default: %(default)s)")
    parser.add_argument("--document", type=Path, help="rewrite the table in this document")
    args = parser.parse_args()
    head = ["way", "threads", "U-Net, a crop", "decoder, 128 x 128", "of it the system's", "pages", "peak memory"]
    rows = []
    for threads in (1, 2):
        for case in CASES:
            started = {"OMP_NUM_THREADS": "1"} | ({"MALLOC_TRIM_THRESHOLD_": "65536"} if case.nanny else {})
            with environment(started, without=("MALLOC_", "GLIBC_")):
                found = in_process(measure, case, threads, args.model)
            cells = [f"{found['call']:.3f}", f"{found['decode']:.2f}", f"{found['system']:.2f}", f"{found['pages'] / 1000:.0f}"]
            rows.append([case.name, threads, *cells, f"{found['peak'] / 2**20:.0f}"])
            print(*rows[-1], file=sys.stderr, flush=True)
    what = "Seconds, mean over the threads; MiB of the process; pages of a window in thousands."
    text = f"{what}\n\n{table(head, rows)}"
    print(text)
    if args.document:
        rewrite(args.document, COMMAND, text)


def measure(case: Case, threads: int, name: str) -> dict[str, float]:
    """Of a case, in the process that does nothing else."""
    import torch

    from wsigen.models import autoencoder
    from wsigen.models import model as loading
    from wsigen.models.bundle import find_bundle

    torch.set_num_threads(1)
    if not case.kept:
        vars(loading)["keep_freed_memory"] = lambda: None
    autoencoder.PIECE = case.piece
    model = loading.load_model(find_bundle(name))
    with ThreadPoolExecutor(threads) as pool:
        found = list(pool.map(lambda _: _work(model), range(threads)))
    rows = {key: mean(each[key] for each in found) for key in ("call", "decode")}
    return {**rows, "system": found[-1]["system"] / threads, "pages": found[-1]["pages"] / threads, "peak": peak_rss()}


def _work(model: Any) -> dict[str, float]:
    """Of one thread; the system's share and pages are those of the whole process meanwhile."""
    from wsigen.models.conditioning import NULL

    chance, card = np.random.default_rng(0), model.card
    side, channels = card.crop_latent, card.latent.channels
    crops = chance.standard_normal((4, channels, side, side)).astype(np.float32)
    autoencoder = model.autoencoder
    window = chance.standard_normal((channels, *[128 + 2 * autoencoder.halo] * 2)).astype(np.float32)
    autoencoder.freeze_norm(autoencoder.norm_statistics([crops[0]]))
    for work in (lambda: model.predict(crops, 500, [NULL] * 4, 0), lambda: autoencoder.decode(window, (autoencoder.halo,) * 4)):
        work()  # the first call of a process is slow
    begin = perf_counter()
    for _ in range(CALLS):
        model.predict(crops, 500, [NULL] * 4, 0)
    call = (perf_counter() - begin) / CALLS / len(crops)
    before, begin = resource.getrusage(resource.RUSAGE_SELF), perf_counter()
    for _ in range(WINDOWS):
        autoencoder.decode(window, (autoencoder.halo,) * 4)
    decode, after = (perf_counter() - begin) / WINDOWS, resource.getrusage(resource.RUSAGE_SELF)
    system, pages = (after.ru_stime - before.ru_stime) / WINDOWS, (after.ru_minflt - before.ru_minflt) / WINDOWS
    return {"call": call, "decode": decode, "system": system, "pages": pages}


if __name__ == "__main__":
    main()
