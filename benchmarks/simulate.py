"""A slide of 100,000 px on 1 to 1,000 workers: a discrete-event simulation on the engine's own wavefront.

The tasks, their order and their dependencies are the real ones (``wsigen.engine.wavefront``); only their seconds are given. The
driver is a serial resource: sending a task and taking its result costs it ``--driver-ms``. Where workers wait for chunks the
wavefront binds; where they wait for the driver, scheduling does.

    python -m benchmarks.simulate [--size PX] [--steps S] [--denoise-s D] [--assemble-s A] [--driver-ms M] [--workers N ...]
"""

from __future__ import annotations

import argparse
import heapq
from dataclasses import dataclass

from wsigen.engine.wavefront import Wavefront
from wsigen.geometry import ChunkGrid


@dataclass(frozen=True, slots=True)
class Costs:
    """Seconds of a denoise and of an assemble task on a worker, and of any task in the driver."""

    denoise: float
    assemble: float
    driver: float

    def of(self, half_step: int) -> float:
        """Seconds of a half-step on its worker; the start counts as an assemble."""
        return self.denoise if half_step % 2 else self.assemble


@dataclass(frozen=True, slots=True)
class Outcome:
    """Wall seconds, the share of the workers' time that was work, and the share of the driver's."""

    seconds: float
    efficiency: float
    driver: float


def simulate(grid: ChunkGrid, steps: int, workers: int, window: int, costs: Costs) -> Outcome:
    """Run all tasks of one pass, all chunks being tissue.

    Parameters
    ----------
    workers, window:
        Worker slots, and tasks in flight per slot (those above one wait at their worker).
    """
    wave = Wavefront(grid, list(grid), steps)
    free = [0.0] * workers  # when each worker is free again
    events: list[tuple[float, int, tuple[int, int]]] = []  # results that will come
    driver = work = driver_work = 0.0
    while not wave.finished:
        while len(events) < workers * window and (ready := wave.next()):
            driver += costs.driver / 2
            driver_work += costs.driver / 2
            begin = max(driver, heapq.heappop(free))
            seconds = costs.of(ready[0])
            work += seconds
            heapq.heappush(free, begin + seconds)
            heapq.heappush(events, (begin + seconds, *ready))
        done, h, ij = heapq.heappop(events)
        driver = max(driver, done) + costs.driver / 2
        driver_work += costs.driver / 2
        wave.finish(h, ij)
    return Outcome(driver, work / (workers * driver), driver_work / driver)


def main() -> None:
    """Print the table."""
    args = _parser().parse_args()
    extent = -(-args.size // 8)
    grid = ChunkGrid(extent, extent, args.chunk)
    costs = Costs(args.denoise_s, args.assemble_s, args.driver_ms / 1000)
    print(
        f"{args.size} px, {len(grid)} chunks of {args.chunk} latent px, {args.steps} steps; denoise {costs.denoise} s, "
        f"assemble {costs.assemble} s, driver {args.driver_ms} ms a task"
    )
    print(f"{'workers':>8} {'hours':>8} {'speed-up':>9} {'efficiency':>11} {'driver busy':>12}  bound by")
    alone = None
    for workers in args.workers:
        found = simulate(grid, args.steps, workers, args.window, costs)
        alone = alone or found.seconds * found.efficiency * workers
        bound = "work" if found.efficiency > 0.9 else "driver" if found.driver > 0.9 else "wavefront"
        print(
            f"{workers:8d} {found.seconds / 3600:8.2f} {alone / found.seconds:9.1f} {found.efficiency:11.0%} "
            f"{found.driver:12.0%}  {bound}",
            flush=True,
        )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.simulate", description=__doc__)
    parser.add_argument("--size", type=int, default=100_000, help="side of the slide, px (default: %(default)s)")
    parser.add_argument("--chunk", type=int, default=512, help="side of a chunk, latent px (default: %(default)s)")
    parser.add_argument("--steps", type=int, default=50, help="denoising steps (default: %(default)s)")
    parser.add_argument("--denoise-s", type=float, default=20.0, help="seconds of a denoise task (default: %(default)s)")
    parser.add_argument("--assemble-s", type=float, default=0.2, help="seconds of an assemble task (default: %(default)s)")
    parser.add_argument("--driver-ms", type=float, default=4.0, help="driver's time per task, ms (default: %(default)s)")
    parser.add_argument("--window", type=int, default=2, help="tasks in flight per worker (default: %(default)s)")
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2, 8, 32, 64, 128, 256, 512, 1000])
    return parser


if __name__ == "__main__":
    main()
