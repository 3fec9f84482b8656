import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from wsigen.base.errors import ConfigError
from wsigen.run.config import RunConfig
from wsigen.slide.stain import EOSIN, HAEMATOXYLIN, Stain, known_stains, mixing_matrix, parse_stain

GLASS = (243, 241, 244)
pixels = arrays(np.uint8, (7, 9, 3))
intensities = st.floats(0.3, 3)


def density(rgb, glass=GLASS):
    return -np.log(np.maximum(np.asarray(rgb, float), 1) / glass)


@given(pixels)
def test_the_default_leaves_pixels_alone(rgb):
    assert Stain().apply(rgb, GLASS) is rgb
    assert Stain(eosin_intensity=1.0).changes_nothing


@given(pixels, intensities, intensities)
def test_a_pixel_is_stained_alone(rgb, haematoxylin, eosin):
    stain = Stain(haematoxylin_intensity=haematoxylin, eosin_intensity=eosin, glass=(250, 240, 230))
    whole = stain.apply(rgb, GLASS)
    assert np.array_equal(whole[2:5, 3:], stain.apply(np.ascontiguousarray(rgb[2:5, 3:]), GLASS))


@pytest.mark.parametrize("name", known_stains())
def test_glass_becomes_the_stains_glass(name):
    stain = known_stains()[name]
    assert stain.apply(np.full((1, 1, 3), GLASS, np.uint8), GLASS)[0, 0].tolist() == list(stain.glass or GLASS)


@given(intensities, intensities, st.floats(0.05, 0.6), st.floats(0.05, 0.6))
def test_each_stain_is_turned_and_scaled(factor_h, factor_e, amount_h, amount_e):
    """Beer and Lambert: a pixel of so much of both stains becomes one of so many times as much of the new ones."""
    unit = [np.asarray(v) / np.linalg.norm(v) for v in (HAEMATOXYLIN, EOSIN, (0.7, 0.6, 0.3), (0.2, 0.9, 0.2))]
    rgb = np.asarray(GLASS) * np.exp(-(amount_h * unit[0] + amount_e * unit[1]))
    stain = Stain(
        haematoxylin=(0.7, 0.6, 0.3), eosin=(0.2, 0.9, 0.2), haematoxylin_intensity=factor_h, eosin_intensity=factor_e
    )
    expected = np.asarray(GLASS) * np.exp(-(factor_h * amount_h * unit[2] + factor_e * amount_e * unit[3]))
    got = stain.apply(np.rint(rgb).astype(np.uint8)[None, None], GLASS)[0, 0]
    assert np.abs(got - expected).max() <= 1 + 2 * max(factor_h, factor_e)  # whole grey values, scaled with the stain


def test_what_neither_stain_explains_stays():
    rest = np.cross(HAEMATOXYLIN, EOSIN)
    assert np.allclose(mixing_matrix(Stain(eosin_intensity=0.5)) @ rest, rest)


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ("pael", "did you mean 'pale'"),
        ({"eosin_intensity": 9}, "eosin_intensity"),
        ({"eosin": list(HAEMATOXYLIN)}, "cannot be told apart"),
        ({"eosin": [0, 0, 0]}, "takes no light away"),
        ({"colour": 1}, "unknown setting 'stain.colour'"),
        ("missing.yaml", "no such file"),
    ],
)
def test_what_is_wrong_with_a_stain_is_said_in_one_line(value, words):
    with pytest.raises(ConfigError, match=words):
        RunConfig(size=(512, 512), stain=value)


def test_a_file_becomes_part_of_the_recipe(tmp_path):
    (tmp_path / "mine.yaml").write_text("eosin_intensity: 0.5\n")
    (tmp_path / "recipe.yaml").write_text("size: 512x512\nstain: mine.yaml\n")
    config = RunConfig.read(tmp_path / "recipe.yaml")
    assert config.stain == Stain(eosin_intensity=0.5)
    assert RunConfig(**config.identity()).stain == config.stain
    assert parse_stain("Pale") == known_stains()["pale"]
