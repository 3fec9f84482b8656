"""``croissant.json``: the cohort for programs, in Croissant 1.1 with the fields of its RAI vocabulary.

What the fields mean: https://docs.mlcommons.org/croissant/docs/croissant-spec-1.1.html and croissant-rai-spec.html;
NeurIPS asks for ``rai:hasSyntheticData`` besides.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from typing import Any

from wsigen.base.version import __version__
from wsigen.cohort.card import licence_of, licence_url, models_of, title_of
from wsigen.cohort.figures import read_figures
from wsigen.cohort.folder import LABELS, SLIDES, CohortFolder
from wsigen.cohort.plan import CohortPlan
from wsigen.cohort.table import CSV, MadeSlide, Value
from wsigen.run.manifest import ModelRecord
from wsigen.storage.files import sha256, write_atomic

CROISSANT = "croissant.json"

CONTEXT: dict[str, Any] = {
    "@language": "en",
    "@vocab": "https://schema.org/",
    "arrayShape": "cr:arrayShape",
    "citeAs": "cr:citeAs",
    "column": "cr:column",
    "conformsTo": "dct:conformsTo",
    "containedIn": "cr:containedIn",
    "cr": "http://mlcommons.org/croissant/",
    "rai": "http://mlcommons.org/croissant/RAI/",
    "data": {"@id": "cr:data", "@type": "@json"},
    "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
    "dct": "http://purl.org/dc/terms/",
    "description": {"@container": "@language"},
    "equivalentProperty": "cr:equivalentProperty",
    "examples": {"@id": "cr:examples", "@type": "@json"},
    "extract": "cr:extract",
    "field": "cr:field",
    "fileProperty": "cr:fileProperty",
    "fileObject": "cr:fileObject",
    "fileSet": "cr:fileSet",
    "format": "cr:format",
    "includes": "cr:includes",
    "isArray": "cr:isArray",
    "isLiveDataset": "cr:isLiveDataset",
    "jsonPath": "cr:jsonPath",
    "key": "cr:key",
    "md5": "cr:md5",
    "name": {"@container": "@language"},
    "parentField": "cr:parentField",
    "path": "cr:path",
    "recordSet": "cr:recordSet",
    "references": "cr:references",
    "regex": "cr:regex",
    "repeated": "cr:repeated",
    "replace": "cr:replace",
    "samplingRate": "cr:samplingRate",
    "sc": "https://schema.org/",
    "separator": "cr:separator",
    "source": "cr:source",
    "subField": "cr:subField",
    "transform": "cr:transform",
}
"""The standard's own, as mlcroissant writes it."""


def write_croissant(folder: CohortFolder, plan: CohortPlan, made: list[MadeSlide], rows: list[dict[str, Value]]) -> None:
    """Write the description of a cohort's files, of the columns of its table, and of what it is fit for."""
    models = models_of(made)
    licence = licence_of(plan, models)
    content = {
        "@context": CONTEXT,
        "@type": "sc:Dataset",
        "conformsTo": ["http://mlcommons.org/croissant/1.1", "http://mlcommons.org/croissant/RAI/1.0"],
        "name": plan.name,
        "description": plan.description or f"{title_of(plan)}. {len(made)} synthetic whole slides with their class maps.",
        "url": plan.url or f"https://example.org/{plan.name}",
        "license": licence_url(licence),
        "version": "1.0.0",
        "datePublished": min(each.manifest.created for each in made)[:10],
        "creator": [{"@type": "sc:Person", "name": author.name} for author in plan.authors]
        or [{"@type": "sc:Organization", "name": f"the makers of {plan.name}"}],
        "citeAs": f"{title_of(plan)}. Made with wsigen {__version__}.",
        "keywords": ["synthetic", "digital pathology", "whole slide image", "H&E"],
        **_responsibility(folder, models, made),
        "distribution": _files(folder),
        "recordSet": [_records(rows)],
    }
    write_atomic(folder.root / CROISSANT, (json.dumps(content, indent=1, ensure_ascii=False) + "\n").encode())


def plain_names(columns: Iterable[str]) -> list[str]:
    """Names of columns that identifiers can hold, each once: mlcroissant takes no white space, and classes have any name."""
    names: list[str] = []
    for column in columns:
        plain = re.sub(r"\W+", "_", column)
        free = (plain, *(f"{plain}_{k}" for k in range(2, len(names) + 3)))
        names.append(next(name for name in free if name not in names))
    return names


def _responsibility(folder: CohortFolder, models: list[ModelRecord], made: list[MadeSlide]) -> dict[str, Any]:
    trained = "; ".join(dict.fromkeys(data.name for model in models for data in model.training_data)) or "unknown data"
    figures = read_figures(folder.root)
    measured = "; ".join(f"{figure.name} {figure.value}" for figure in figures.evaluation) or "not measured"
    privacy = "; ".join(f"{figure.name} {figure.value}" for figure in figures.privacy) or "not measured"
    return {
        "rai:hasSyntheticData": True,
        "rai:dataCollectionType": ["Synthetic"],
        "rai:dataCollection": f"Generated with wsigen by latent diffusion; the model was trained on: {trained}.",
        "rai:dataAnnotationProtocol": "The class map that the model was given is the annotation; nobody looked at the slides. "
        "Whether a picture shows what its class map says is the label fidelity.",
        "rai:machineAnnotationTools": [f"wsigen {__version__}"],
        "rai:dataBiases": [
            f"Colours, textures and classes are those of what the model was trained on ({trained}), whatever the layouts are.",
            "Layouts that are sampled by rule have shares and shapes, but no anatomy.",
        ],
        "rai:dataLimitations": [
            *dict.fromkeys(each.manifest.statement for each in made[:1]),
            f"Evaluation: {measured}.",
        ],
        "rai:dataUseCases": ["Development and tests of software for whole slides", "Augmentation of training data"],
        "rai:dataSocialImpact": "Eases research where real slides cannot be shared; taken for real slides it misleads.",
        "rai:personalSensitiveInformation": [
            f"No person is shown. A model may repeat parts of what it was trained on; privacy figures: {privacy}.",
        ],
    }


def _files(folder: CohortFolder) -> list[dict[str, Any]]:
    sets = (
        ("slides", f"{SLIDES}/*.ome.tiff", "image/tiff", "Slides, pyramidal OME-TIFF"),
        ("annotations", f"{SLIDES}/*.geojson", "application/geo+json", "Class maps as polygons, for QuPath"),
        ("manifests", f"{SLIDES}/*.json", "application/json", "How each slide was made"),
        ("labels", f"{LABELS}/*.png", "image/png", "Class maps as label images"),
    )
    table = {
        "@type": "cr:FileObject",
        "@id": CSV,
        "name": CSV,
        "description": "One line a slide",
        "contentUrl": CSV,
        "encodingFormat": "text/csv",
        "sha256": sha256(folder.root / CSV),
    }
    return [
        table,
        *(
            {"@type": "cr:FileSet", "@id": name, "name": name, "description": text, "includes": files, "encodingFormat": kind}
            for name, files, kind, text in sets
        ),
    ]


def _records(rows: list[dict[str, Value]]) -> dict[str, Any]:
    kinds = {str: "sc:Text", int: "sc:Integer", float: "sc:Float"}
    fields = [
        {
            "@type": "cr:Field",
            "@id": f"slides_table/{name}",
            "name": column,
            "dataType": kinds[type(value)],
            "source": {"fileObject": {"@id": CSV}, "extract": {"column": column}},
        }
        for (column, value), name in zip(rows[0].items(), plain_names(rows[0]), strict=True)
    ]
    return {
        "@type": "cr:RecordSet",
        "@id": "slides_table",
        "name": "slides_table",
        "description": "The slides with their splits, subtypes, sizes, areas of classes, checksums and files.",
        "key": {"@id": "slides_table/id"},
        "field": fields,
    }
