"""Specifications of runs and manifests of slides that nobody generated."""

from typing import Any

from wsigen.run.config import make_config
from wsigen.run.manifest import Manifest, ModelRecord
from wsigen.run.spec import Glass, InputHashes, RunSpec, Sampling, package_versions
from wsigen.sampling.passes import PassPlan
from wsigen.sampling.schedule import Schedule
from wsigen.slide.pyramid import PyramidSpec

SAMPLING = Sampling(guidance=0.5, sampler="ddim", eta=0.0, batch=2, seed=5)
PASS = PassPlan(
    index=0,
    level=0,
    height=75,
    width=75,
    scale=1,
    factor=8,
    chunk=32,
    side=16,
    schedule=Schedule((99, 49), (0.1, 0.5, 1.0)),
    start="noise",
    strength=1.0,
    mode="shifted",
    overlap=2,
    taper="linear",
    weighted_last=0,
    seed=5,
)


def spec_of(**values: Any) -> RunSpec:
    """A specification with a pass of two steps; all else as given."""
    config = make_config({"size": (600, 600), "class_name": "Tumor", "seed": 5, "mpp": 0.5})
    return RunSpec(
        **{
            "sampling": SAMPLING,
            "passes": (PASS,),
            "slide": PyramidSpec(600, 600, 0.5, 20.0, "jpeg", 80),
            "glass": Glass(index=0, rgb=(243, 243, 245), latent=(0.5, -0.5)),
            "precision": "fp32",
            "model_sha256": "0" * 64,
            "inputs": InputHashes(layout=None, layout_classes=None, subtypes=None, reference=None, grid=None),
            "drawn_layout": None,
            "settings": config,
            "output": "a.ome.tiff",
            "keep_run": False,
            "began": "here",
            "model": "m",
            "device": "cpu",
            "layout_title": None,
            "versions": package_versions(),
            **values,
        }
    )


def manifest_of(width: int = 512, height: int = 512, **values: Any) -> Manifest:
    """A manifest of a slide of this size; all else as given, or empty."""
    nothing = dict.fromkeys(("class_name", "background", "layout_mpp", "layout_names", "nuclei", "layout", "drawn_layout"))
    words = dict.fromkeys(("statement", "created", "run_id", "precision", "device", "mixed_workers"), "")
    return Manifest(
        **{
            **nothing,
            **words,
            "sampling": SAMPLING,
            "passes": (),
            "slide": PyramidSpec(width, height, 0.5, 20.0),
            "inputs": {},
            "classes": (),
            "area_px": {},
            "model": ModelRecord(name="m", title="", licence="", sha256="", training_data=()),
            "versions": {},
            "sha256": {},
            **values,
        }
    )
