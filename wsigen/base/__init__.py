"""What everything else stands on: errors, boxes and chunk grids, classes, noise, YAML settings, the machine, the version."""
