"""``python -m wsigen``."""

from wsigen.cli import main

if __name__ == "__main__":
    main()
