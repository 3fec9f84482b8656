"""A slide of 100,000 px on 1 to 1,000 workers: a discrete-event simulation on the engine's own wavefront.

The plan, the tasks, their order and what they wait for are the real ones; what they cost is measured
(``benchmarks.scale.times``) or, of a GPU, assumed. A store that all share is reckoned from bytes and requests. Simulated are
the class map, the wavefront of every pass, the decoder's shared statistics, decoding, and the file; not simulated are starting,
loading, and faults.

    python -m benchmarks.simulate [--measure] [--size PX] [--chunks SIDE ...] [--workers N ...] [--document docs/benchmarks.md]
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

from benchmarks.document import rewrite
from benchmarks.scale.dispatching import heartbeat_interval
from benchmarks.scale.events import Platform, Store
from benchmarks.scale.run import open_slide, run_slide
from benchmarks.scale.slide import Slide
from benchmarks.scale.tables import by_chunk, by_workers, header
from benchmarks.scale.times import MEASURED, Scenario, TaskTimes, assumed_gpu, this_cpu
from wsigen.base.errors import WsigenError

WORKERS = (1, 2, 8, 32, 128, 512, 1000)
CHUNKS = (256, 512, 1024)
COMPARED = (8, 128, 1000)
"""Workers for which sides of chunks are compared."""

AMPLE = Store(1e10, 1e13, 0.0)
"""A store that hardly binds, by which is seen what else does."""

LAYOUTS = ("all tissue", "two thirds glass")
COMMAND = "python -m benchmarks.simulate"


def main() -> int:
    """Measure or read the task times, simulate, print the tables."""
    args = _parser().parse_args()
    try:
        if args.measure:
            from benchmarks.scale.measure import measure

            measure().save(args.times)
        table = simulate_all(args, TaskTimes.load(args.times))
        if args.document:
            rewrite(args.document, COMMAND, table)
    except WsigenError as error:
        print(f"simulate: {error}", file=sys.stderr)
        return 2
    return 0


def simulate_all(args: argparse.Namespace, times: TaskTimes) -> str:
    """All tables, as Markdown; each is printed once it is there."""
    store = Store(args.worker_gb_s * 1e9, args.store_gb_s * 1e9, args.latency_ms / 1000)
    scenarios = [this_cpu(times), assumed_gpu(args.gpu_ms / 1000)]
    blocks = [header(args.size, times, store)]

    def show(table: str) -> None:
        blocks.append(table)
        print(table, end="\n\n", flush=True)

    with tempfile.TemporaryDirectory(prefix="wsigen-simulate-") as folder:

        def slide(layout: str, chunk: int) -> Slide:
            return open_slide(Path(folder), args.size, chunk, layout, args.steps, args.levels, args.model)

        def row_of_workers(layout: str, opened: Slide, scenario: Scenario, where: Store) -> None:
            found = {n: run_slide(opened, times, scenario, _platform(n, args, times, where)) for n in args.workers}
            of_store = "" if where is store else ", a store that hardly binds"
            show(by_workers(f"{layout}, {scenario.name}, chunks of {args.chunk}{of_store}", found))

        for layout in args.layouts:
            opened = slide(layout, args.chunk)
            for scenario in scenarios:
                row_of_workers(layout, opened, scenario, store)
            if layout == args.layouts[-1]:
                row_of_workers(layout, opened, scenarios[-1], AMPLE)
        sides = {side: slide(args.layouts[-1], side) for side in args.chunks}
        for scenario in scenarios if sides else []:
            compared = {
                (side, n): run_slide(opened, times, scenario, _platform(n, args, times, store))
                for side, opened in sides.items()
                for n in args.compared
            }
            show(by_chunk(f"{args.layouts[-1]}, {scenario.name}", compared))
    return "\n\n".join(blocks)


def _platform(workers: int, args: argparse.Namespace, times: TaskTimes, store: Store) -> Platform:
    """Workers, and what is left of driver and scheduler beside watching over them."""
    watching = workers * times.driver_worker, workers * times.heartbeat / heartbeat_interval(workers)
    driver, scheduler = (1 - min(0.95, share) for share in watching)
    return Platform(workers, args.window, times.driver / driver, times.scheduler / scheduler, store)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog=COMMAND, description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--measure", action="store_true", help="measure the task times here first (minutes), into --times")
    parser.add_argument("--times", type=Path, default=MEASURED, metavar="JSON", help="task times (default: those measured)")
    parser.add_argument("--document", type=Path, metavar="FILE", help="rewrite the tables in this document")
    parser.add_argument("--model", default="default", help="bundle whose plan it is (default: %(default)s)")
    parser.add_argument("--size", type=int, default=100_000, help="side of the slide, px (default: %(default)s)")
    parser.add_argument("--steps", type=int, help="denoising steps (default: the bundle's)")
    parser.add_argument("--levels", type=int, default=1, help="magnification levels: 2 begin with a coarse pass")
    parser.add_argument("--layouts", nargs="+", choices=LAYOUTS, default=list(LAYOUTS), metavar="LAYOUT")
    parser.add_argument("--chunk", type=int, default=512, help="side of a chunk, latent px (default: %(default)s)")
    parser.add_argument("--chunks", type=int, nargs="*", default=list(CHUNKS), help="sides that are compared")
    parser.add_argument("--workers", type=int, nargs="+", default=list(WORKERS))
    parser.add_argument("--compared", type=int, nargs="+", default=list(COMPARED), help="workers of the comparison of sides")
    parser.add_argument("--window", type=int, default=2, help="tasks in flight per worker (default: %(default)s)")
    parser.add_argument("--gpu-ms", type=float, default=5.0, help="assumed: a crop on a GPU (default: %(default)s)")
    parser.add_argument("--store-gb-s", type=float, default=2.0, help="assumed: the store, in all (default: %(default)s)")
    parser.add_argument("--worker-gb-s", type=float, default=1.0, help="assumed: the store, one worker (default: %(default)s)")
    parser.add_argument("--latency-ms", type=float, default=2.0, help="assumed: of a request (default: %(default)s)")
    return parser


if __name__ == "__main__":
    sys.exit(main())
