"""Claims as data: table.yaml says what is asked, `python -m experiments.claims NAME` asks it."""
