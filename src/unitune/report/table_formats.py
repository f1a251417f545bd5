"""A table, and how it is written: as Markdown, as LaTeX and for a terminal."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

# What Markdown would take for a cell's end, for HTML, code or emphasis.
MARKDOWN = {letter: "\\" + letter for letter in "\\|`*<&"}
JOINERS = "\u200c\u200d"  # of letters and emoji; not printable by themselves
LATEX = {letter: "\\" + letter for letter in "&%$#_{}"} | {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "↑": r"$\uparrow$",
    "↓": r"$\downarrow$",
}


@dataclass(frozen=True)
class Table:
    """Text by rows, and the sentences below it."""

    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    notes: tuple[str, ...] = ()

    @property
    def lines(self) -> list[tuple[str, ...]]:
        """The head and the rows."""
        return [self.head, *self.rows]

    def with_notes(self, *notes: str) -> "Table":
        """Add sentences below it."""
        return replace(self, notes=(*self.notes, *notes))

    def markdown(self) -> str:
        """Write it as Markdown."""
        escape = str.maketrans(MARKDOWN)
        head, *rows = ([in_one_line(said).translate(escape) for said in row] for row in self.lines)
        text = [f"| {' | '.join(row)} |" for row in (head, ["---"] * len(head), *rows)]
        return "\n".join([*text, "", *(f"{in_one_line(note)}\n" for note in self.notes)])

    def latex(self) -> str:
        """Write it as LaTeX with booktabs' rules; the notes stand above it as comments."""
        escape = str.maketrans(LATEX)
        head, *rows = (
            " & ".join(in_one_line(said).translate(escape) for said in row) + r" \\"
            for row in self.lines
        )
        notes = [f"% {in_one_line(note)}" for note in self.notes]
        begin = rf"\begin{{tabular}}{{l{'r' * (len(self.head) - 1)}}}"
        end = [r"\bottomrule", r"\end{tabular}", ""]
        return "\n".join([*notes, begin, r"\toprule", head, r"\midrule", *rows, *end])

    def plain(self) -> str:
        """Write it for a terminal: names on the left, numbers below each other, then the notes."""
        names = 1 + self.head.index("prompt") if "prompt" in self.head else 1
        return "\n".join([*aligned(self.lines, left=names), *map(in_one_line, self.notes)])


def in_one_line(text: str) -> str:
    """Write a text in one line: a space for each gap, an escape for what cannot be printed."""
    words = " ".join(text.split())
    return "".join(c if c.isprintable() or c in JOINERS else ascii(c)[1:-1] for c in words)


def aligned(rows: Sequence[Sequence[str]], *, left: int) -> list[str]:
    """Write rows as lines with columns of one width, the first `left` of them from the left."""
    rows = [[in_one_line(said) for said in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    signs = ["<" if k < left else ">" for k in range(len(widths))]
    form = "  ".join(f"{{:{sign}{width}}}" for sign, width in zip(signs, widths, strict=True))
    return [form.format(*row).rstrip() for row in rows]
