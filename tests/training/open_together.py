"""Opens a dataset as one of the processes of a launch: ``python open_together.py DATASET.yaml``; prints who built its index."""

from __future__ import annotations

import sys
from functools import partial
from unittest.mock import patch

from wsigen.base.errors import WsigenError
from wsigen.dataset.dataset import open_dataset
from wsigen.dataset.index import build_index
from wsigen.training import processes as processes_module
from wsigen.training.processes import main_first, processes

if __name__ == "__main__":
    processes_module.TELL_S = 0.05
    with patch("wsigen.dataset.dataset.build_index", wraps=build_index) as built:
        opened = main_first("the index", partial(open_dataset, sys.argv[1]))
    try:
        main_first("the index", partial(open_dataset, "nowhere.yaml"))
    except WsigenError as error:
        print(processes().process_index, built.call_count, opened.key, len(opened.members), error, sep=" | ")
