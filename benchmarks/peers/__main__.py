"""``python -m benchmarks.peers JOB``: what one process of the comparison does."""

from benchmarks.peers.rows import main

if __name__ == "__main__":
    main()
