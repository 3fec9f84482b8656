"""Run by test_processes: the second process dies before the two meet; the first says what it hears of that."""

import os

from wsigen.base.errors import TrainingError
from wsigen.training.processes import meet, processes

state = processes()
meet()
if not state.is_main_process:
    os._exit(9)
try:
    meet()
except TrainingError as error:
    print(error, flush=True)
os._exit(0)  # the others are gone: there is nobody to take leave of
