"""`python -m experiments.claims NAME`; --help lists the names, NAME --help tells of one."""

from .answer import main

main()
