"""Where a run lies: a folder of a file system, or a prefix of an object store, behind one small interface."""
