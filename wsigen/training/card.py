"""The model card that goes with a bundle."""

from __future__ import annotations

from collections.abc import Mapping

DATA = {
    "name": "HER2-ST sections C2-C6 (HER2-positive breast cancer, one patient)",
    "doi": "10.5281/zenodo.4751624",
    "url": "https://github.com/almaan/her2st",
    "licence": "CC-BY-4.0",
    "attribution": (
        "Andersson et al. 2021, Spatial deconvolution of HER2-positive breast cancer delineates "
        "tumor-associated cell type interactions, Zenodo 4751624 / 3957257"
    ),
}

NOT_FOR = "demonstration only; one patient; no clinical or scientific use"

_CARD = """# her2st-demo: the default model of wsigen

A small latent diffusion model of H&E stained breast cancer tissue. It exists so that wsigen runs on a
laptop without a download, and so that every part of wsigen can be tried and tested.

**Demonstration only.** It has seen five serial sections of one tumour of one patient: no clinical or
scientific use, no claim about any population, and its images are no evidence about any tissue.

## Data

{name}. {attribution}. Images from <{url}>, licence {licence}. Changes made: resampled to {patch_mpp}
um/px and {overview_mpp} um/px, divided by the local colour of the glass, and everything nearly
transparent (glass, printed array spots, dust) painted with one constant colour. The weights are given
under the same licence.

## Classes

Glass, Tumor, Stroma, Immune cells, Other. The class maps it learned from are **weak**: a gradient
boosting classifier on local stain, nuclear and texture features, trained on
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

- `vae`: AutoencoderKL, {ae_parameters:.1f} M parameters, 8 times downsampling, 8 channels, no attention.
- `unet`: UNet2DModel, {unet_parameters:.1f} M parameters, running mean of the weights. Input: 8
  standardised latents, then 6 one-hot class channels in the order Glass, Tumor, Stroma, Immune cells,
  Other, unknown; `class_labels` is the level (0 = patch, {patch_mpp} um/px; 1 = overview, {overview_mpp}
  um/px). Output: v. A map that is all unknown is the null condition of guidance: v = (1 + w) v(map) - w
  v(unknown), w = {guidance}.
- Weights are stored in half precision.

## Figures

| what | value |
|---|---|
| autoencoder, steps | {ae_steps:.0f}, then {decoder_steps:.0f} of its decoder alone (without {held_out}) |
| autoencoder, PSNR on held-out section {held_out} | {psnr_db:.2f} dB |
| autoencoder, mean absolute error of a crop's mean colour | {colour_error:.2f} grey levels |
| autoencoder, shift of the mean colour over all crops (worst channel) | {colour_shift:.2f} grey levels |
| denoiser, steps | {unet_steps:.0f} (all sections, {held_out} too) |
| denoiser, running mean of the training loss (mean squared error of v) | {unet_loss:.4f} |

Training took {ae_minutes:.0f} + {decoder_minutes:.0f} + {unet_minutes:.0f} minutes on 2 CPU cores:

    python pipelines/default_model.py all --data DIR --work WORK --bundle wsigen/models/default

## Limits

One patient, one stain, one scanner, frozen tissue with cracks and holes, strongly compressed originals.
The overview level has very few images behind it. The training sections are few enough that details may
be memorised.
"""


def model_card(facts: Mapping[str, float | str]) -> str:
    """Fill the card with the figures of a training run."""
    return _CARD.format(**{**DATA, **facts})
