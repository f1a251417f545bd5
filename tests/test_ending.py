"""What is said when a run cannot go on, the exit code, and which folders are left."""

import os
import subprocess
import sys
from io import StringIO
from pathlib import Path

import pytest

from unitune.cli import ending
from unitune.cli.ending import Ending
from unitune.errors import Diverged, Refused


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("first\nsecond", "first"),
        (
            "\n  In 'config': Could not find 'sampler/foo'\n\nAvailable options in 'sampler':"
            "\n\tbase\n\tcfg\nConfig search path:\n\tprovider=x, path=y",
            "In 'config': Could not find 'sampler/foo'; available: base, cfg",
        ),
        (
            "Error in call to target 'a.B':\nTypeError('no foo')\nfull_key: sampler",
            "Error in call to target 'a.B': TypeError('no foo') (sampler)",
        ),
        (
            "Missing mandatory value: path\n    full_key: benchmark.path\n    object_type=dict",
            "Missing mandatory value: path (benchmark.path)",
        ),
        ("", "ValueError"),
    ],
)
def test_errors_become_one_line(text, line):
    assert ending.one_line(ValueError(text)) == line


@pytest.mark.parametrize(
    ("said", "line"),
    [
        (
            "Could not override 'adapter.rank'.",
            "adapter.rank, or what is given in it, is no field of the chosen adapter=; choose",
        ),
        ("Could not override 'stepz'.", "no key 'stepz'; did you mean 'steps'?"),
        ("Could not override 'experimen'.", "no key 'experimen'; did you mean 'experiment'?"),
        ("Error parsing override 'seed'", "'seed' is no setting; write FIELD=VALUE"),
    ],
)
def test_what_hydra_says_of_a_key_is_told_plainly(said, line):
    assert ending.nearest(said, Path(__file__).parent.parent / "conf").startswith(line)


def test_a_refusal_is_one_line_whatever_it_quotes():
    assert ending.one_line(Refused("a\nb\x1b[2J.png: no such file")) == (
        r"a b\x1b[2J.png: no such file"
    )


def told(ended: Ending) -> tuple[int, list[str]]:
    stream = StringIO()
    return ended.tell(stream), stream.getvalue().splitlines()


def test_exit_codes_and_what_is_said():
    ended = Ending()
    assert told(ended) == (0, [])
    ended.failed(Refused("no cat"), refused=True)
    assert told(ended) == (2, ["unitune: no cat"])
    ended.failed(Diverged("nan"), refused=False)
    assert told(ended)[0] == 1
    stopped = Ending(signal=15)
    assert told(stopped)[0] == 143 and told(stopped)[1][0].startswith("unitune: stopped")


def test_a_sweep_lists_its_failed_cells():
    ended = Ending()
    ended.failed(
        Refused("no cat"), refused=True, cell="1-unitune-cfg", overrides=["sampler=cfg", "seeds=0"]
    )
    ended.failed(
        RuntimeError("broken\nmore"),
        refused=False,
        cell="12-unitune-cfg",
        overrides=["sampler=cfg"],
    )
    code, lines = told(ended)
    assert code == 1
    assert lines == [
        "unitune: 2 runs of the sweep failed:",
        "  1-unitune-cfg   no cat  sampler=cfg seeds=0",
        "  12-unitune-cfg  broken  sampler=cfg",
    ]


def test_refusals_leave_no_folder_and_results_stay(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    ended = Ending()
    for name in ("outputs/sweep", "outputs/sweep/0", "outputs/sweep/1"):
        Path(ended.noted(name)).mkdir(parents=True)
    Path("outputs/sweep/multirun.yaml").touch()
    Path("outputs/sweep/0/config.yaml").touch()
    Path("outputs/sweep/1/scores.jsonl").touch()
    ended.failed(RuntimeError("a bug"), refused=False)
    told(ended)
    assert Path("outputs/sweep/0/config.yaml").exists()  # what failed may be looked at
    ended.failures[:] = []
    ended.failed(Refused("no"), refused=True)
    told(ended)
    assert (
        not Path("outputs/sweep/0").exists()
        and Path("outputs/sweep/1/scores.jsonl").exists()
        and Path("outputs/sweep/multirun.yaml").exists()
    )
    os.remove("outputs/sweep/1/scores.jsonl")
    told(ended)
    assert list(tmp_path.iterdir()) == []


def test_folders_above_keep_what_is_in_them(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("mine/run").mkdir(parents=True)
    for file in ("mine/config.yaml", "mine/run/config.yaml"):
        Path(file).touch()
    ending.remove_leftovers(Path("mine/run"))
    assert not Path("mine/run").exists() and Path("mine/config.yaml").exists()


def test_the_working_directory_is_never_removed(tmp_path, monkeypatch):
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    for folder in (".", "..", tmp_path, tmp_path / "absent"):
        ending.remove_leftovers(Path(folder))
    assert (tmp_path / "here").is_dir()


@pytest.mark.parametrize(
    "job",
    [
        "",
        "main.JOBS['config'] = lambda cfg, folder: print('a line\\n' * 100_000)",
        "main.JOBS['config'] = lambda cfg, folder: print('less than Python holds back')",
    ],
)
def test_a_pipe_that_nobody_reads_ends_the_program_quietly(tmp_path, job):
    command = [] if job else ["--help"]
    code = f"import sys; from unitune.cli import main; {job}\nsys.exit(main.main())"
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run(
        [sys.executable, "-c", code, *command],
        stdout=write, stderr=subprocess.PIPE, text=True, cwd=tmp_path, check=False,
    )  # fmt: skip
    os.close(write)
    assert (done.returncode, done.stderr) == (128 + 13, "")


def test_a_connection_that_breaks_is_no_folder():
    ended = Ending()
    ended.failed(ConnectionResetError(104, "Connection reset by peer"), refused=False)
    assert told(ended) == (1, ["unitune: [Errno 104] Connection reset by peer"])
