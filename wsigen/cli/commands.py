"""What the commands do, on the public API."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wsigen.base.errors import ConfigError
from wsigen.cli.lines import belongs_to, tell

if TYPE_CHECKING:
    from wsigen.run.engine.stage import Stage, Watcher


def run_generate(output: Path, settings: dict[str, Any], file: Path | None, log: str | None) -> None:
    """``wsigen generate``."""
    from wsigen.cli.display import check_format, progress
    from wsigen.run.config import make_config
    from wsigen.run.generate import generate
    from wsigen.run.rundir import run_dir_of

    check_format(log)
    config = make_config(settings, file)
    with _resumable(run_dir_of(config, output)), progress(log) as watch:
        result = generate(output, config, watch=_stoppable(watch))
    _announce(result)


def run_resume(run_dir: str, settings: dict[str, Any], log: str | None) -> None:
    """``wsigen resume``."""
    from wsigen.cli.display import check_format, progress
    from wsigen.run.generate import resume

    check_format(log)
    with _resumable(run_dir), progress(log) as watch:
        result = resume(run_dir, watch=_stoppable(watch), **settings)
    _announce(result)


def run_inspect(run_dir: str, picture: Path | None) -> None:
    """``wsigen inspect``."""
    from wsigen.run.inspect import inspect_run

    report = inspect_run(run_dir, picture)
    print("\n".join(report.lines))


def run_estimate(settings: dict[str, Any], file: Path | None) -> None:
    """``wsigen estimate``."""
    from wsigen.run.config import make_config
    from wsigen.run.estimate.estimate import estimate

    print("\n".join(estimate(make_config(settings, file)).lines))


def run_models() -> None:
    """``wsigen models``."""
    from wsigen.models.bundle import DEFAULT_FOLDER, list_bundles
    from wsigen.run.choose_layout import subtypes_of

    cards = list_bundles()
    if not cards:
        raise ConfigError("no bundle is embedded in this installation: give one with --model DIR or --model HUB_ID")
    for card in cards:
        names = ", ".join(f"{c.name}{' (background)' if c.background else ''}" for c in card.table)
        levels = ", ".join(f"{level.name} {level.mpp} um/px" for level in card.levels)
        print(f"default  {card.name}: {card.title}\n  classes: {names}\n  levels:  {levels}\n  licence: {card.licence}")
        print(f"  layouts: {', '.join(subtypes_of(DEFAULT_FOLDER, card.table))}  (--layout sample --subtype NAME)")
        print(f"  note:    {card.not_for}")


def run_worker_check(address: str, model: str, run_dir: str | None) -> None:
    """``wsigen worker-check``."""
    from wsigen.run.check_workers import check_workers

    report = check_workers(address, model, run_dir)
    for worker, said in sorted(report.workers.items()):
        versions = ", ".join(f"{name} {version}" for name, version in said.versions.items())
        print(f"{worker}  on {said.host}, {said.memory_gib} GiB, python {said.python}, {versions}")
        print(f"  devices: {', '.join(said.devices)};  model: {said.model[:12]};  run directory: {said.run_dir or 'not asked'}")
    for hint in report.hints:
        print(f"hint: {hint}", file=sys.stderr)
    for problem in report.problems:
        print(f"problem: {problem}", file=sys.stderr)
    if report.problems:
        raise SystemExit(1)
    print(f"{len(report.workers)} worker(s) can do a run together")


def _stoppable(watch: Watcher) -> Watcher:
    """Stop at the next task even if Ctrl-C arrived where Python drops exceptions (a finaliser, a callback)."""
    import signal

    stop = False

    def note(number: int, frame: object) -> None:
        nonlocal stop
        stop = True
        raise KeyboardInterrupt

    def look(stage: Stage) -> None:
        if stop:
            raise KeyboardInterrupt
        belongs_to(stage.run)
        watch(stage)

    signal.signal(signal.SIGINT, note)
    return look


class _resumable:  # noqa: N801  (a context manager, used like a function)
    """Say how to go on when a run is interrupted or fails."""

    def __init__(self, run_dir: str | Path) -> None:
        self._run_dir = run_dir

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        if kind is not None and issubclass(kind, KeyboardInterrupt) and self._begun():
            go_on = f"wsigen resume {self._run_dir}"
            tell(
                f"\nStopped; nothing is lost, and '{go_on}' goes on with it",
                message=f"stopped; nothing is lost; go on with: {go_on}",
            )

    def _begun(self) -> bool:
        from wsigen.run.manifest import FILE
        from wsigen.storage.opening import open_folder

        try:
            return open_folder(self._run_dir).has(FILE)
        except OSError:  # an object store that is away: the run may well be there
            return True


def _announce(result: Any) -> None:
    if result.layout:
        print(f"{'layout:':15}{result.layout}")
    for label, path in (
        ("slide", result.slide),
        ("annotations", result.annotations),
        ("thumbnail", result.thumbnail),
        ("manifest", result.manifest),
        ("QuPath script", result.script),
    ):
        print(f"{label + ':':15}{path}")
    print(f"{'level 0:':15}sha256 {result.level0_sha256}")
