"""A table, and how it is written: as Markdown, as LaTeX and for a terminal."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

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

    def with_notes(self, *notes: str) -> "Table":
        """Add sentences below it."""
        return replace(self, notes=(*self.notes, *notes))

    def markdown(self) -> str:
        """Write it as Markdown."""
        rows = [self.head, ["---"] * len(self.head), *self.rows]
        cells = [[said.replace("|", "\\|").replace("\n", " ") for said in row] for row in rows]
        text = [f"| {' | '.join(row)} |" for row in cells]
        return "\n".join([*text, "", *(f"{note}\n" for note in self.notes)])

    def latex(self) -> str:
        """Write it as LaTeX with booktabs' rules; the notes stand above it as comments."""
        escape = str.maketrans(LATEX)
        head, *rows = (
            " & ".join(said.translate(escape) for said in row) + r" \\"
            for row in (self.head, *self.rows)
        )
        notes = [f"% {note}" for note in self.notes]
        begin = rf"\begin{{tabular}}{{l{'r' * (len(self.head) - 1)}}}"
        end = [r"\bottomrule", r"\end{tabular}", ""]
        return "\n".join([*notes, begin, r"\toprule", head, r"\midrule", *rows, *end])

    def plain(self) -> str:
        """Write it for a terminal: names on the left, numbers below each other, then the notes."""
        names = 1 + self.head.index("prompt") if "prompt" in self.head else 1
        return "\n".join([*aligned([self.head, *self.rows], left=names), *self.notes])


def aligned(rows: Sequence[Sequence[str]], *, left: int) -> list[str]:
    """Write rows as lines with columns of one width, the first `left` of them from the left."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    signs = ["<" if k < left else ">" for k in range(len(widths))]
    form = "  ".join(f"{{:{sign}{width}}}" for sign, width in zip(signs, widths, strict=True))
    return [form.format(*row).rstrip() for row in rows]
