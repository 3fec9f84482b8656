"""Strange input through every reader: each must take it or refuse it in one line, soon, and in little memory.

    python -m benchmarks.fuzz --cases 100000 --seed 0 [--reader NAME ...]

`seeds` writes one good file a reader, `mutations` spoil it as a function of (seed, case), `readers` read it, `child` does so in
a process of its own, and `campaign` watches that process.
"""
