"""What makes a folder of slides a data set that others can use: tables, card, licence, checksums, descriptions for programs."""

from __future__ import annotations

from pathlib import Path

from wsigen.base.classes import ClassTable
from wsigen.base.errors import OutputError, refusing
from wsigen.cohort.as_data import DATASET, write_dataset
from wsigen.cohort.card import title_of, write_card
from wsigen.cohort.croissant import write_croissant
from wsigen.cohort.folder import INPUTS, LABELS, SLIDES, THUMBNAILS, CohortFolder
from wsigen.cohort.labels import CLASS_TABLE, write_class_table
from wsigen.cohort.made import MadeCohort
from wsigen.cohort.plan import CohortPlan
from wsigen.cohort.table import CSV, MadeSlide, made_slides, row_of, write_tables
from wsigen.dataset.settings import CELL_PX
from wsigen.slide.sidecars import write_edit_script
from wsigen.storage.files import sha256, write_atomic
from wsigen.viewing.find import slides_of_folder
from wsigen.viewing.page import FOLDER, write_page

SUMS, QUPATH = "SHA256SUMS", "open-in-qupath.groovy"

NOT_SUMMED = (SUMS,)
"""Files of the cohort that its checksums leave out."""

OVERVIEW = 4
"""The coarser level of a dataset is so many times the finer one's um/px, as PathUp's overview is."""

PATCH_PX, OVERLAP_PX = 512, 64
"""Of a patch of a dataset; of small slides it is as large as they are."""


def write_cohort_files(folder: CohortFolder, cohort: MadeCohort) -> None:
    """Write all that lies beside the slides of a cohort, from the plan, the recipe and the slides' manifests."""
    plan, made = cohort.plan, made_slides(folder, cohort.slides)
    rows = [row_of(folder, each) for each in made]
    table = ClassTable(made[0].manifest.classes)
    with refusing(OutputError, f"{folder.root}: the files of the cohort cannot be written", "make room, then make it again"):
        write_class_table(folder.root / LABELS / CLASS_TABLE, table)
        write_tables(folder, rows)
        _write_dataset(folder.root / DATASET, plan, made, table)
        write_card(folder, plan, cohort.recipe, made, cohort.total)
        script = (Path(__file__).parent / "open_in_qupath.groovy").read_bytes()
        write_atomic(folder.root / QUPATH, script)
        write_edit_script(folder.root)
        write_croissant(folder, plan, made, rows)
        write_page(folder.root, slides_of_folder(folder.root), title_of(plan))
        write_sums(folder, made)


def write_sums(folder: CohortFolder, made: list[MadeSlide]) -> None:
    """Write ``SHA256SUMS``, in the form of ``sha256sum``; what belongs to a slide is known from its manifest."""
    known: dict[Path, str] = {}
    for each in made:
        files = folder.files(each.slide.id)
        of_slide = each.manifest.sha256
        known |= {files.slide: of_slide[files.slide.name], files.annotations: of_slide[files.annotations.name]}
        known[files.labels] = of_slide[LABELS]
    lines = []
    for path in summed_files(folder):
        digest = known.get(path) or sha256(path)
        lines.append(f"{digest}  {path.relative_to(folder.root).as_posix()}\n")
    write_atomic(folder.root / SUMS, "".join(lines).encode())


def summed_files(folder: CohortFolder) -> list[Path]:
    """All files of a cohort that its checksums speak of, sorted; not what others put beside them."""
    top = [path for path in folder.root.iterdir() if path.is_file()]
    below = [
        path
        for name in (SLIDES, LABELS, THUMBNAILS, INPUTS, FOLDER)
        for path in (folder.root / name).rglob("*")
        if path.is_file()
    ]
    return sorted(path for path in (*top, *below) if path.name not in NOT_SUMMED and not path.name.startswith("."))


def _write_dataset(path: Path, plan: CohortPlan, made: list[MadeSlide], table: ClassTable) -> None:
    """The slides with their class maps."""
    slides = [each.manifest.slide for each in made]
    mpp, shortest = slides[0].mpp, min(min(slide.width, slide.height) for slide in slides)
    levels = [{"name": "patch", "mpp": mpp}]
    if shortest >= OVERVIEW * PATCH_PX:
        levels.append({"name": "overview", "mpp": round(OVERVIEW * mpp, 6)})
    training = next(iter(plan.splits))
    groups: dict[str, set[str]] = {}
    for each in made:
        groups.setdefault(each.slide.split, set()).add(each.slide.group)
    learned = [each for each in made if each.slide.split == training] or made
    write_dataset(
        path,
        "This cohort",
        table,
        {name for each in learned for name, area in each.manifest.area_px.items() if area},
        groups,
        training,
        CSV,
        "slide",
        {
            "kind": "masks",
            "images": f"{SLIDES}/*.ome.tiff",
            "masks": f"{LABELS}/*.png",
            "mask_mpp": round(mpp * made[0].manifest.passes[-1].cell_px, 9),
        },
        {"levels": levels, "patch_px": min(PATCH_PX, shortest // CELL_PX * CELL_PX), "overlap_px": OVERLAP_PX},
    )
