"""Faults: a slide made while its driver, workers, scheduler, disk and network fail, against an undisturbed one."""
