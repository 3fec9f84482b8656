"""The card of a cohort (``README.md`` with Hugging Face's front matter), its ``LICENSE`` and its ``CITATION.cff``."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from importlib.util import find_spec
from typing import Any

import yaml
from jinja2 import Environment, PackageLoader, StrictUndefined

from wsigen.base.version import __version__
from wsigen.cohort.figures import read_figures
from wsigen.cohort.folder import SLIDES, THUMBNAILS, CohortFolder
from wsigen.cohort.plan import CohortPlan
from wsigen.cohort.recipe import Recipe
from wsigen.cohort.table import MadeSlide
from wsigen.run.manifest import ModelRecord
from wsigen.storage.files import write_atomic

CARD, LICENCE, CITATION = "README.md", "LICENSE", "CITATION.cff"

PICTURES = 4
"""Slides shown in the card."""

SIZES = ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M"))
"""Hugging Face's words for how many entries there are."""


def write_card(folder: CohortFolder, plan: CohortPlan, recipe: Recipe, made: list[MadeSlide], total: int) -> None:
    """Write card, licence and citation, from what the slides' manifests say."""
    models = models_of(made)
    content = {
        "front_matter": yaml.safe_dump(_front_matter(plan, made), sort_keys=False, allow_unicode=True),
        "title": title_of(plan),
        "description": plan.description
        or "Made to train and to test programs for digital pathology where real slides are scarce.",
        "slides": len(made),
        "total": total,
        "missing": total - len(made),
        "not_for": " ".join(
            dict.fromkeys(_sentence(each.manifest.statement.partition("; it shows no patient.")[2]) for each in made)
        ),
        "pictures": _pictures(made),
        "mpp": f"{made[0].manifest.slide.mpp:g}",
        "cell_px": made[0].manifest.passes[-1].cell_px,
        "parquet": find_spec("pyarrow") is not None,
        "splits": list(plan.splits),
        "counts": _counts(plan, made),
        "areas": _areas(made),
        "version": recipe.versions.get("wsigen", __version__),
        "layouts": _layouts(made),
        "modes": _shares(Counter(each.slide.mode for each in made)),
        "stains": _shares(Counter(each.slide.stain for each in made)),
        "models": models,
        "figures": read_figures(folder.root),
        "signed": all((folder.root / SLIDES / f"{each.slide.id}.c2pa").is_file() for each in made),
        "licence": licence_of(plan, models),
    }
    write_atomic(folder.root / CARD, _environment().get_template("README.md.jinja").render(content).encode())
    write_atomic(folder.root / LICENCE, _licence(plan, models).encode())
    write_atomic(folder.root / CITATION, _citation(plan, models).encode())


def models_of(made: Sequence[MadeSlide]) -> list[ModelRecord]:
    """The models of a cohort, each once."""
    return list({each.manifest.model.sha256: each.manifest.model for each in made}.values())


def licence_of(plan: CohortPlan, models: Sequence[ModelRecord]) -> str:
    """The cohort's licence: the plan's, or that of its models, which have one then."""
    return plan.licence or models[0].licence


def title_of(plan: CohortPlan) -> str:
    """What a cohort is called for people."""
    return plan.title or f"{plan.name}: synthetic whole slides"


def licence_url(licence: str) -> str:
    """Where the text of a licence stands (SPDX)."""
    return f"https://spdx.org/licenses/{licence}.html"


# -- inside ------------------------------------------------------------------------------------------------------------


def _environment() -> Environment:
    loader = PackageLoader("wsigen.cohort")
    return Environment(
        loader=loader,
        autoescape=False,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )


def _front_matter(plan: CohortPlan, made: list[MadeSlide]) -> dict[str, Any]:
    licence = licence_of(plan, models_of(made))
    known = licence.lower() in {"cc-by-4.0", "cc-by-sa-4.0", "cc-by-nc-4.0", "cc0-1.0", "apache-2.0", "mit", "cc-by-nc-sa-4.0"}
    return {
        "license": licence.lower() if known else "other",
        **({} if known else {"license_name": licence, "license_link": "LICENSE"}),
        "pretty_name": title_of(plan),
        "task_categories": ["image-segmentation", "image-classification"],
        "size_categories": [next((word for most, word in SIZES if len(made) < most), "n>1M")],
        "tags": ["synthetic", "digital-pathology", "histopathology", "whole-slide-image", "H&E", "wsigen"],
        "annotations_creators": ["machine-generated"],
        "configs": [
            {
                "config_name": "default",
                "data_files": [{"split": "slides", "path": "cohort.csv"}],
            }
        ],
    }


def _sentence(text: str) -> str:
    text = text.strip()
    return text and text[0].upper() + text[1:] + ("" if text.endswith(".") else ".")


def _pictures(made: list[MadeSlide]) -> list[dict[str, str]]:
    """The first slide of each subtype, then others, up to a few."""
    firsts = {each.slide.subtype: each for each in reversed(made)}
    chosen = list(dict.fromkeys([each.slide.id for each in firsts.values()] + [each.slide.id for each in made]))[:PICTURES]
    return [{"alt": f"Synthetic slide {name}", "file": f"{THUMBNAILS}/{name}.jpg"} for name in sorted(chosen)]


def _counts(plan: CohortPlan, made: list[MadeSlide]) -> list[dict[str, Any]]:
    counted = Counter((each.slide.subtype, each.slide.split) for each in made)
    rows = []
    for name in [*sorted({each.slide.subtype for each in made}), None]:
        counts = [
            sum(n for (subtype, of), n in counted.items() if of == split and name in (subtype, None)) for split in plan.splits
        ]
        rows.append({"name": name or "**all**", "counts": counts, "all": sum(counts)})
    return rows


def _areas(made: list[MadeSlide]) -> list[tuple[str, str]]:
    total: Counter[str] = Counter()
    for each in made:
        total.update(each.manifest.area_px)
    whole = sum(total.values()) or 1.0
    return [(name, f"{100 * area / whole:.1f} %") for name, area in total.items()]


def _layouts(made: list[MadeSlide]) -> str:
    def source(each: MadeSlide) -> str:
        drawn = each.manifest.drawn_layout
        if drawn is not None:
            return f"drawn by the {drawn['by']}"
        return "from references" if each.slide.config.reference is not None else "from files"

    return _shares(Counter(source(each) for each in made))


def _shares(counted: Counter[str]) -> str:
    return ", ".join(f"{name} ({count})" for name, count in counted.most_common())


def _licence(plan: CohortPlan, models: Sequence[ModelRecord]) -> str:
    licence = licence_of(plan, models)
    lines = [
        f"{title_of(plan)}",
        f"SPDX-License-Identifier: {licence}",
        f"The text of this licence: {licence_url(licence)}",
        "",
    ]
    for model in models:
        lines.append(f"Made by the model {model.name} ({model.licence}), which was trained on:")
        lines += [f"  {data.name}, {data.licence}. {data.attribution}" for data in model.training_data] or [
            "  (its card does not say)"
        ]
    return "\n".join(lines) + "\n"


def _citation(plan: CohortPlan, models: Sequence[ModelRecord]) -> str:
    """Citation File Format 1.2.0."""
    authors = [
        {
            "name": author.name,
            **({"affiliation": author.affiliation} if author.affiliation else {}),
            **({"orcid": f"https://orcid.org/{author.orcid}"} if author.orcid else {}),
        }
        for author in plan.authors
    ]
    content = {
        "cff-version": "1.2.0",
        "message": "If you use these synthetic slides, please cite them and what their model was trained on.",
        "type": "dataset",
        "title": title_of(plan),
        "authors": authors or [{"name": f"the makers of {plan.name}"}],
        "license": licence_of(plan, models),
        **({"url": plan.url} if plan.url else {}),
        "keywords": ["synthetic data", "digital pathology", "whole slide image"],
        "references": [
            {
                "type": "data",
                "title": data.name,
                "authors": [{"name": data.attribution}],
                **({"doi": data.doi} if data.doi else {}),
                **({"url": data.url} if data.url else {}),
            }
            for model in models
            for data in model.training_data
        ],
    }
    return yaml.safe_dump({k: v for k, v in content.items() if v}, sort_keys=False, allow_unicode=True, width=120)
