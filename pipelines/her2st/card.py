"""The card of the default model: what it learned from, what it is not for, its figures."""

from __future__ import annotations

from collections.abc import Mapping

from wsigen.models.card import BundleCard

_CARD = """# {name}: the default model of wsigen

A small latent diffusion model of H&E stained breast cancer tissue. It exists so that wsigen runs on a
laptop without a download, and so that every part of wsigen can be tried and tested.

**Demonstration only.** It has seen four serial sections of one tumour of one patient: no clinical or
scientific use, no claim about any population, and its images are no evidence about any tissue.

## Data

{data} Changes made: resampled to {mpps} um/px, divided by the local colour of the glass, and
everything nearly transparent (glass, printed array spots, dust) painted with one constant colour. The
weights are given under the same licence. Section C3 was held out from both networks; the weak labels
(below) come from one classifier over the spots of all sections.

## Classes

{classes}. The class maps it learned from are **weak**: a gradient boosting classifier on local stain,
nuclear and texture features, trained on
- capture spots named after their gene-expression cluster (cancer: Tumor; immune, B/plasma cells and
  antigen-presenting or T cells: Immune cells; "B/plasma cells, endothelium", which lies on the fibrous
  bands: Stroma),
- a pathologist's spots of the neighbouring section C1, carried over by aligned coordinates to C2 and C3,
- rules where labels were few: eosin-rich with few nuclei is Stroma, mostly empty inside the tissue is
  Other.

Smoothed probabilities below 0.5 are "unknown"; glass is found by brightness. No map was checked by a
pathologist. "Other" is rare (about 1 % of the area): expect it to look loose and lacy, and to be the
weakest class.

## Model

- `vae`: AutoencoderKL, 8 times downsampling, {channels} channels, no attention. In its training noise
  was added to the latents.
- `unet`: UNet2DModel, running mean of the weights. Input: {channels} standardised latents, then one-hot
  class channels in the order {classes}, unknown; `class_labels` is the level. Output: v. A map that is
  all unknown is the null condition of guidance: v = (1 + w) v(map) - w v(unknown), w = {guidance}.
- Weights are stored in half precision.

## Figures

| what | value |
|---|---|
| autoencoder, PSNR on tissue of held-out section C3 | {psnr_db:.2f} dB |
| autoencoder, mean absolute error of a crop's mean colour | {colour_error:.2f} grey levels |
| autoencoder, shift of the mean colour over all crops (worst channel) | {colour_shift:.2f} grey levels |

More figures, with pictures: docs/default-model.md. Made by

    python -m pipelines.default_model configs/default-model.yaml --data DIR --out OUT

## Limits

One patient, one stain, one scanner, frozen tissue with cracks and holes, strongly compressed originals.
The overview level has very few images behind it. The training sections are few enough that details may
be memorised.
"""


def model_card(card: BundleCard, figures: Mapping[str, float]) -> str:
    """Fill in the card: Markdown.

    Parameters
    ----------
    figures:
        ``psnr_db``, ``colour_error`` and ``colour_shift`` of the autoencoder on held-out tissue.
    """
    return _CARD.format(
        name=card.name,
        data=" ".join(f"{d.name}. {d.attribution}. Images from <{d.url}>, licence {d.licence}." for d in card.training_data),
        mpps=" and ".join(f"{level.mpp:g}" for level in card.levels),
        classes=", ".join(c.name for c in card.classes),
        channels=card.latent.channels,
        guidance=card.guidance,
        **{name: figures[name] for name in ("psnr_db", "colour_error", "colour_shift")},
    )
