"""The benchmark of label fidelity makes its cohort and its table."""

import sys

from evaluation.downstream.downstream_making import dataset_of_slides

from benchmarks import label_fidelity


def test_a_table_of_a_small_cohort(bundle, tmp_path, monkeypatch, capsys):
    given = f"--real {dataset_of_slides(tmp_path)} --out {tmp_path}/out --model {bundle} --slides 1 --slide-px 512 --steps 1"
    small = "--crops 60 --size 64 --folds 2 --epochs 1 --workers 1"
    monkeypatch.setattr(sys, "argv", ["label_fidelity", *given.split(), *small.split()])
    assert label_fidelity.main() == 0
    said = capsys.readouterr().out
    assert "| Tumor |" in said
    assert "| mean of the classes |" in said
    assert (tmp_path / "out/labels/labels.html").is_file()
    monkeypatch.setattr(sys, "argv", ["label_fidelity", *given.replace("--steps 1", "--steps 2").split()])
    assert label_fidelity.main() == 1  # the folder holds another cohort
