"""`python run.py`: the program from a checkout. `python run.py --help` lists everything."""

import sys

from unitune.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
