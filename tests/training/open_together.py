"""Opens a dataset as one of the processes of a launch: ``python open_together.py DATASET.yaml``; prints who built its index."""

from __future__ import annotations

import sys
from functools import partial
from typing import Any

from wsigen.base.errors import WsigenError
from wsigen.dataset import dataset as dataset_module
from wsigen.dataset.dataset import open_dataset
from wsigen.training import processes as processes_module
from wsigen.training.processes import main_first, processes

if __name__ == "__main__":
    processes_module.TELL_S = 0.05
    built, build = [], dataset_module.build_index

    def counted(*given: Any) -> Any:
        built.append(1)
        return build(*given)

    dataset_module.build_index = counted
    opened = main_first("the index", partial(open_dataset, sys.argv[1]))
    try:
        main_first("the index", partial(open_dataset, "nowhere.yaml"))
    except WsigenError as error:
        print(processes().process_index, len(built), opened.key, len(opened.members), error, sep=" | ")
