"""The dependency rule and the house rules, held over the syntax trees of the source files."""

import ast
import sys
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SRC = ROOT / "src"
RUN = ROOT / "run.py"
FILES = sorted((SRC / "unitune").rglob("*.py"))
MODELS = {"diffusers", "transformers", "open_clip"}

# A module imports its own layer or a lower one; a new package or file gets its layer here.
LAYERS = [
    {"types", "errors", "rng", "prompts"},
    {"storage"},
    {"images", "scenes"},
    {"diffusion"},
    {"prompt_to_prompt", "masks"},
    {"models"},
    {"tuning"},
    {"methods", "metrics", "benchmarks"},
    {"runs"},
    {"report", "launcher"},
    {"cli", "api"},
]
LAYER = {part: height for height, parts in enumerate(LAYERS) for part in parts}

# What a part may import of the libraries that hold models; other parts may import nothing of them.
ALLOWED = {
    "models": ("diffusers", "transformers"),
    "tuning": ("transformers.Adafactor", "transformers.optimization"),
    "metrics": ("transformers.T5Tokenizer", "transformers.ViTModel"),
}


def within(name: str, *roots: str) -> bool:
    return any(name == root or name.startswith(root + ".") for root in roots)


def dotted(path: Path) -> str:
    """The module name of a file under src; a package's is its folder's."""
    return ".".join(path.relative_to(SRC).with_suffix("").parts).removesuffix(".__init__")


def part(name: str) -> str:
    """`unitune.tuning.select` -> `tuning`; the package itself -> ``."""
    return [*name.split("."), ""][1]


def imports(path: Path, text: str | None = None) -> Iterator[str]:
    """Every imported name with its module, `a.b.name`, at any depth of the file.

    Relative imports are resolved.
    """
    package = dotted(path).split(".") if path.is_relative_to(SRC) else []
    package = package if path.name == "__init__.py" else package[:-1]
    for node in ast.walk(ast.parse(path.read_text() if text is None else text)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            yield from (
                ".".join([*base, *([node.module] if node.module else []), alias.name])
                for alias in node.names
            )


IMPORTS = {dotted(path): set(imports(path)) for path in FILES}


def reach(start: str) -> set[str]:
    """Every name that the modules under `start` import, through this package's own modules too."""
    todo, seen, names = [m for m in IMPORTS if within(m, start)], set(), set()
    while todo:
        module = todo.pop()
        if module not in seen:
            seen.add(module)
            names |= IMPORTS[module]
            todo += [m for m in IMPORTS if any(within(name, m) for name in IMPORTS[module])]
    return names


def test_imports_are_found_nested_and_relative():
    text = "import a.b\ndef f():\n    from c import d, e\n"
    text += "    from . import x\n    from ..types import y\n"
    assert set(imports(SRC / "unitune" / "tuning" / "select.py", text)) == {
        "a.b",
        "c.d",
        "c.e",
        "unitune.tuning.x",
        "unitune.types.y",
    }
    assert set(imports(SRC / "unitune" / "tuning" / "__init__.py", "from .select import z")) == {
        "unitune.tuning.select.z"
    }


def test_every_module_has_a_layer():
    assert {part(module) for module in IMPORTS} - {""} <= set(LAYER)


@pytest.mark.parametrize("module", sorted(IMPORTS))
def test_arrows_point_downward(module):
    here = LAYER.get(part(module), 0)
    upward = {
        name
        for name in IMPORTS[module]
        if within(name, "unitune") and LAYER.get(part(name), 0) > here
    }
    assert not upward


def test_parts_import_each_other_in_no_circle():
    graph = {}
    for module, names in IMPORTS.items():
        graph.setdefault(part(module), set()).update(
            part(name) for name in names if within(name, "unitune") and part(name) != part(module)
        )
    TopologicalSorter(graph).prepare()  # raises CycleError


def test_the_command_line_alone_knows_hydra():
    knows = {m for m in IMPORTS if any(within(name, "hydra", "omegaconf") for name in IMPORTS[m])}
    assert {part(module) for module in knows} == {"cli"}


@pytest.mark.parametrize("module", sorted(IMPORTS))
def test_few_parts_import_models(module):
    models = {name for name in IMPORTS[module] if within(name, "diffusers", "transformers")}
    assert not {name for name in models if not within(name, *ALLOWED.get(part(module), ()))}


@pytest.mark.parametrize("package", ["unitune.report", "unitune.scenes"])
def test_figures_and_scenes_reach_no_model(package):
    assert not {name for name in reach(package) if within(name, *MODELS)}


def test_scenes_do_not_import_torch():
    scenes = {
        name for module in IMPORTS if within(module, "unitune.scenes") for name in IMPORTS[module]
    }
    assert "numpy" in scenes and not {name for name in scenes if within(name, "torch")}


def test_diffusion_is_tensor_maths():
    roots = (
        "torch",
        "jaxtyping",
        "unitune.types",
        "unitune.rng",
        "unitune.prompts",
        "unitune.diffusion",
        *sys.stdlib_module_names,
    )
    diffusion = {
        name
        for module in IMPORTS
        if within(module, "unitune.diffusion")
        for name in IMPORTS[module]
    }
    assert "jaxtyping.Float" in diffusion and not {
        name for name in diffusion if not within(name, *roots)
    }


@pytest.mark.parametrize("path", FILES, ids=dotted)
def test_files_are_short(path):
    assert len(path.read_text().splitlines()) <= 250


@pytest.mark.skipif(not RUN.exists(), reason="there is no run.py")
def test_run_is_short():
    assert len(RUN.read_text().splitlines()) <= 120


def forbidden(tree: ast.AST) -> Iterator[str]:
    """What no source file may do.

    It may not run code out of a file of weights or of a hub repository, print, or probe for
    attributes (the command line may print).
    """
    for node in ast.walk(tree):
        if isinstance(node, ast.keyword) and isinstance(node.value, ast.Constant):
            if (node.arg, node.value.value) in {
                ("weights_only", False),
                ("trust_remote_code", True),
                ("allow_pickle", True),
            }:
                yield f"line {node.value.lineno}: {node.arg}={node.value.value}"
        elif (
            isinstance(node, ast.Call)
            and isinstance(node.func, ast.Name)
            and node.func.id in {"print", "hasattr"}
        ):
            yield f"line {node.lineno}: {node.func.id}()"


def test_forbidden_things_are_found():
    text = "load(f, weights_only=False)\nm(trust_remote_code=True)\n"
    text += "load(f, allow_pickle=True)\nprint(hasattr(a, 'b'))"
    assert len([*forbidden(ast.parse(text))]) == 5
    assert not [*forbidden(ast.parse("load(f, weights_only=True)"))]


@pytest.mark.parametrize("path", [*FILES, *([RUN] if RUN.exists() else [])], ids=lambda p: p.name)
def test_nothing_forbidden(path):
    found = list(forbidden(ast.parse(path.read_text())))
    assert not [what for what in found if path.parent.name != "cli" or not what.endswith("print()")]
    assert not {
        name
        for name in imports(path)
        if within(name, "pickle", "cPickle", "cloudpickle", "dill", "joblib", "shelve")
    }


def test_nothing_is_left_to_do():
    texts = [
        p
        for folder in ("src", "conf", "experiments", "notebooks", "tests")
        for p in (ROOT / folder).rglob("*")
        if p.suffix in {".py", ".yaml", ".ipynb"}
    ]
    words = ("TO" + "DO", "FIX" + "ME")
    assert not [
        p
        for p in [*texts, ROOT / "Makefile", *([RUN] if RUN.exists() else [])]
        if any(word in p.read_text() for word in words)
    ]
