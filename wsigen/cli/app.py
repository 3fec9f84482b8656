"""The commands, in the order and the groups in which ``wsigen --help`` shows them."""

from __future__ import annotations

from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from wsigen.base.version import __version__
from wsigen.cli import cohort_export, cohort_report, evaluate, models, slides
from wsigen.cli.cohort import cohort
from wsigen.cli.compress import compress
from wsigen.cli.edit import EditCommand, edit
from wsigen.cli.info import info
from wsigen.cli.options import DecompressCommand, EstimateCommand, ResumeCommand, SettingsCommand, examples
from wsigen.cli.train import train
from wsigen.cli.view import view


class _Commands(TyperGroup):
    """Knows commands of two words, such as ``evaluate downstream`` beside ``evaluate REAL SYNTHETIC``."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Take two words for a command where there is one of that name."""
        both = " ".join(args[:2])
        return super().resolve_command(ctx, [both, *args[2:]] if both in self.commands else args)


app = typer.Typer(
    name="wsigen",
    cls=_Commands,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _print_version(wanted: bool) -> None:
    if wanted:
        print(__version__)
        raise typer.Exit


@app.callback(epilog=examples("wsigen generate slide.ome.tiff --layout regions.geojson --seed 1"))
def root(
    version: Annotated[
        bool, typer.Option("--version", help="print the version", callback=_print_version, is_eager=True)
    ] = False,
    debug: Annotated[bool, typer.Option("--debug", help="show the traceback of an error; may stand anywhere")] = False,
) -> None:
    """Synthetic whole slides for digital pathology: draw regions in QuPath, generate a slide, open it in QuPath."""


def _add(function: Any, group: str, *lines: str, name: str | None = None, **more: Any) -> None:
    """Add a command, its heading on the help page and examples."""
    app.command(name, rich_help_panel=group, epilog=examples(*lines), no_args_is_help=name != "models", **more)(function)


_add(
    slides.generate, "Slides",
    "wsigen generate slide.ome.tiff --layout regions.geojson --seed 1",
    "wsigen generate slide.ome.tiff --class Tumor --size 4096x4096 --mode pathup",
    "wsigen generate slide.ome.tiff --layout sample --subtype infiltrating --size 20000x14000",
    cls=SettingsCommand,
)  # fmt: skip
_add(slides.estimate, "Slides", "wsigen estimate --layout regions.geojson --mode pathup", cls=EstimateCommand)
_add(slides.resume, "Slides", "wsigen resume slide.run --workers 4", cls=ResumeCommand)
_add(
    edit, "Slides",
    "wsigen edit slide.ome.tiff --regions drawn.geojson --output edited.ome.tiff",
    "wsigen edit --undo edited.ome.tiff",
    cls=EditCommand,
)  # fmt: skip
_add(info, "Slides", "wsigen info slide.svs --thumbnail slide.png", "wsigen info slide.run --picture timesteps.png")
_add(view, "Slides", "wsigen view slide.ome.tiff --real scanned.svs", "wsigen view slide.run", "wsigen view cohort/")
_add(compress, "Slides", "wsigen compress slide.svs slide.wsz")
_add(
    slides.decompress, "Slides",
    "wsigen decompress slide.wsz again.ome.tiff --original slide.svs --region 8000,4000,4096,4096",
    cls=DecompressCommand,
)  # fmt: skip
cohort.command(no_args_is_help=True, epilog=examples(*cohort_export.EXAMPLES))(cohort_export.export)
cohort.command(no_args_is_help=True, epilog=examples(*cohort_report.EXAMPLES))(cohort_report.report)
cohort.command(no_args_is_help=True, epilog=examples("wsigen cohort sign cohort --certificate chain.pem --key key.pem"))(
    cohort_export.sign
)
app.add_typer(cohort, name="cohort", rich_help_panel="Slides")
_add(models.models, "Models", "wsigen models", name="models")
_add(
    models.card, "Models",
    "wsigen models card sd-histology --classes Glass,Tumor,Stroma --mpp 0.5 --licence CC-BY-4.0",
    name="models card",
)  # fmt: skip
_add(models.import_, "Models", "wsigen models import zoomldm weights.ckpt zoomldm-brca", name="models import")
_add(models.tiles, "Models", "wsigen models tiles zoomldm-brca tiles --level 5x --count 16", name="models tiles")
app.add_typer(train, name="train", rich_help_panel="Models")
_add(
    evaluate.evaluate, "Evaluation",
    "wsigen evaluate real/ slide.ome.tiff --report report",
    "wsigen evaluate downstream real/ synthetic/",
)  # fmt: skip
_add(
    evaluate.downstream, "Evaluation",
    "wsigen evaluate downstream real/ synthetic/ --task segmentation --out downstream",
    name="evaluate downstream",
)  # fmt: skip
_add(evaluate.labels, "Evaluation", "wsigen evaluate labels real.yaml cohort/slides --out labels", name="evaluate labels")
_add(slides.worker_check, "Clusters", "wsigen worker-check tcp://10.0.0.1:8786", name="worker-check")
