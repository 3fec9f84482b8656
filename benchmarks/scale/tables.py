"""What was simulated, as Markdown."""

from __future__ import annotations

from collections.abc import Mapping

from benchmarks.scale.events import Store
from benchmarks.scale.run import Found
from benchmarks.scale.times import TaskTimes


def header(size: int, times: TaskTimes, store: Store) -> str:
    """What the tables rest on."""
    return (
        f"{size:,} px a side. Measured on {times.machine}: a task costs the driver {1000 * times.driver:.1f} ms, dask's "
        f"scheduler {1000 * times.scheduler:.1f} ms and its worker {1000 * times.task:.1f} ms beside its work (CPU time); "
        f"a crop on one core {1000 * times.call:.0f} ms. Assumed: a store of {store.total / 1e9:g} GB/s in all, "
        f"{store.worker / 1e9:g} GB/s a worker, {1000 * store.latency:g} ms a request."
    )


def by_workers(title: str, found: Mapping[int, Found]) -> str:
    """A row for every number of workers; the speed-up is over the fewest of them."""
    first = min(found)
    alone = found[first].seconds * first
    lines = [
        f"**{title}** ({found[first].tasks:,} tasks, {found[first].moved_gb:,.0f} GB moved)",
        "",
        "| workers | hours | speed-up | efficiency | class map and file | binds |",
        "|---:|---:|---:|---:|---:|---|",
    ]
    for workers, one in found.items():
        faster = alone / one.seconds
        serial = one.share("class map", "file")
        lines.append(
            f"| {workers:,} | {one.seconds / 3600:.2f} | {faster:.1f} | {faster / workers:.0%} | {serial:.0%} | {one.binds} |"
        )
    return "\n".join(lines)


def by_chunk(title: str, found: Mapping[tuple[int, int], Found]) -> str:
    """A row for every side of chunks, hours for every number of workers."""
    workers = sorted({n for _, n in found})
    lines = [
        f"**{title}: hours by the side of a chunk**",
        "",
        f"| chunk, latent px | tasks | GB moved | {' | '.join(f'{n:,} workers' for n in workers)} |",
        f"|---:|---:|---:|{'---|' * len(workers)}",
    ]
    for side in sorted({side for side, _ in found}):
        row = [found[side, n] for n in workers]
        cells = " | ".join(f"{one.seconds / 3600:.2f}, {one.binds}" for one in row)
        lines.append(f"| {side} | {row[0].tasks:,} | {row[0].moved_gb:,.0f} | {cells} |")
    return "\n".join(lines)
