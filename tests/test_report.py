"""The HTML page: self-contained, safe with any text, working in a browser if one is installed."""

import html
import json
import re
import shutil
import struct
import subprocess
import zlib
from html.parser import HTMLParser
from pathlib import Path

import finished
import pytest
from PIL import Image

from unitune.models import tiny
from unitune.report import page as pages
from unitune.report import saved_runs
from unitune.types import Refused

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
HOSTILE = (
    "<script>document.title='hacked'</script> \"><img src=x onerror=\"document.title='hacked'\"> "
    "'a' & `b` ${c} {{ d }} </style>"
)


@pytest.fixture
def sweep(tmp_path) -> Path:
    prompts = ("a dog", HOSTILE)
    finished.run(tmp_path / "0-unitune", prompts=prompts)
    other = {"method": "untuned", "sampler": "sdedit", "shift": 0.2}
    finished.run(tmp_path / "1-untuned", prompts=prompts, **other)
    return tmp_path


class Seen(HTMLParser):
    """Tags with their attributes, and the text of the page."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.text += data

    def all(self, tag: str, **attributes: str) -> list[dict[str, str | None]]:
        return [
            found
            for name, found in self.tags
            if name == tag and all(found.get(k) == v for k, v in attributes.items())
        ]


def test_the_plot_names_published_edits_without_a_sampler(tmp_path, monkeypatch):
    finished.run(tmp_path / "0-published", method="published", sampler="")
    drawn = {}
    monkeypatch.setattr(pages.plots, "draw_tradeoff", lambda _, lines, **__: drawn.update(lines))
    pages.page(saved_runs.load(tmp_path))
    assert list(drawn) == ["published"]


def test_the_page_holds_everything(sweep):
    seen = Seen(pages.page(saved_runs.load(sweep)))
    tiles = [found for found in seen.all("figure") if found.get("class") == "tile"]
    # Runs x images x prompts x seeds, and each exact target once.
    assert len(tiles) == 2 * 2 * 2 * 2 + 2 * 2
    methods = {"unitune + unitune", "untuned + sdedit", "exact target"}
    assert {tile["data-method"] for tile in tiles} == methods
    assert {tile["data-prompt"] for tile in tiles} == {"a dog", HOSTILE}
    assert len(seen.all("input", type="range")) == len(tiles)
    assert len(seen.all("div", role="img")) == len(tiles)
    assert "0.05 (" not in seen.text
    for said in (
        "lr: 0.0001",
        "cosine",
        "too few for a verdict",
        "Equal budgets: 4 edits of 2 images",
        "alignment against stlpips",
        "tuning s",
    ):
        assert said in seen.text


def test_the_page_loads_nothing_and_runs_its_own_script_only(sweep):
    page = pages.page(saved_runs.load(sweep))
    seen = Seen(page)
    assert len(seen.all("script")) == 1 and not seen.all("link") and not seen.all("iframe")
    sources = [found["src"] for tag, found in seen.tags if "src" in found]
    assert sources and all(str(uri).startswith("data:image/") for uri in sources)
    assert not [name for _, found in seen.tags for name in found if name.startswith("on")]
    assert all(str(found["href"]).startswith("#") for found in seen.all("a"))
    without = re.sub(r"data:[\w/+;,=-]+", "", page)
    assert not re.search(r"url\((?!\))|@import|https?://", re.sub(r"url\(\)", "", without))
    assert "script-src 'sha256-" in page and "default-src 'none'" in page
    assert page.count(HOSTILE) == 0 and html.escape("<script>document.title=", quote=True) in page


def test_the_same_records_give_the_same_page(sweep):
    assert pages.page(saved_runs.load(sweep)) == pages.page(saved_runs.load(sweep))


def test_a_base_image_is_embedded_once(sweep):
    page = pages.page(saved_runs.load(sweep))
    assert page.count("{background-image:url(data:image/jpeg;base64,") == 2


def test_a_damaged_picture_is_said_to_be_missing(sweep):
    file = sweep / "0-unitune" / "i0-0-0.png"
    half = b"IDAT" + zlib.compress(bytes(100))[:8]
    damaged = struct.pack(">I", 8) + half + struct.pack(">I", zlib.crc32(half)) + b"\xff" * 20
    file.write_bytes(file.read_bytes()[:33] + damaged)  # 33: the signature and the size
    with pytest.raises(SyntaxError), Image.open(file) as picture:
        picture.load()
    seen = Seen(pages.page(saved_runs.load(sweep)))
    assert "The picture 0-unitune/i0-0-0.png is not there." in seen.text


@pytest.mark.parametrize(
    ("name", "damaged", "said"),
    [
        ("config.yaml", b"\xff", "the settings .*config.yaml cannot be read"),
        ("cards.json", b'{"psnr": ', "the metric cards .*cards.json cannot be read"),
        ("cards.json", b'{"psnr": {"what": "dB"}}', "the metric cards .* cannot be read.*better"),
    ],
)
def test_damaged_settings_and_cards_are_refused_in_one_line(
    sweep, name: str, damaged: bytes, said: str
):
    next(sweep.rglob(name)).write_bytes(damaged)
    with pytest.raises(Refused, match=said):
        saved_runs.load(sweep)


def test_missing_pictures_settings_and_cards_are_said(sweep):
    for file in [*sweep.rglob("*.png"), *sweep.rglob("config.yaml"), *sweep.rglob("cards.json")]:
        file.unlink()
    seen = Seen(pages.page(saved_runs.load(sweep)))
    assert "The picture 0-unitune/i0-0-0.png is not there." in seen.text
    assert not seen.all("input", type="range")
    assert "No config.yaml" in seen.text and "No cards.json" in seen.text


def test_many_pictures_are_smaller_and_what_is_left_out_is_said(sweep, monkeypatch):
    whole = Seen(pages.page(saved_runs.load(sweep)))
    monkeypatch.setattr(pages, "MANY", 3)
    monkeypatch.setattr(pages, "MOST", 5)
    seen = Seen(pages.page(saved_runs.load(sweep)))
    assert [len(page.all("figure", **{"class": "tile"})) for page in (whole, seen)] == [20, 5]
    assert "The first 5 of 20 pictures are shown" in seen.text
    assert {found["width"] for found in seen.all("img") if "width" in found} == {"160"}


def test_the_job_writes_it_again(sweep, typed):
    (sweep / "report.html").write_text("old")
    answer = typed("--config-name", "report", f"runs={sweep}")
    assert answer.code == 0 and f"report: {sweep}/report.html" in answer.out
    assert "<!doctype html>" in (sweep / "report.html").read_text()
    before = sorted(sweep.rglob("*"))
    answer = typed("--config-name", "report", f"runs={sweep}/nothing")
    assert answer.code == 2 and answer.count("\n") == 1
    assert "nothing holds no scores.jsonl" in answer.err
    assert sorted(sweep.rglob("*")) == before


def test_a_sweep_ends_with_a_comparison_and_a_page(typed, here):
    """Also of runs without scores, whose pictures and costs are what there is."""
    model = f"model.path={tiny.floyd(here / 'tiny')}"
    small = [
        "model.resolution=32",
        "sampler.steps=2",
        "sampler.sr.steps=2",
        "seeds=1",
        "metrics=none",
        "edit=a dog",
        "hydra.sweep.dir=sweep",
    ]
    answer = typed("-m", model, "method=untuned", "sampler=cfg,sdedit", *small)
    assert answer.code == 0, answer.err
    took, *files = answer.out.splitlines()[-3:]
    assert took.startswith("The sweep took ")
    assert files == ["comparison: sweep/comparison.md", "report: sweep/report.html"]
    for said in ("untuned + cfg", "untuned + sdedit", "sampling s"):
        assert said in answer.out
    assert answer.out.count("report: ") == 3
    assert "| untuned + sdedit | no | 1 | 1 |" in (here / "sweep/comparison.md").read_text()
    written = {file.name for file in (here / "sweep").iterdir()}
    assert {"comparison.csv", "comparison.tex", "report.html"} <= written


def test_no_records_no_page(tmp_path):
    with pytest.raises(Refused, match=r"holds no scores\.jsonl"):
        pages.run(runs=str(tmp_path))
    assert not list(tmp_path.iterdir())


def shown(page: Path, profile: Path, *, width: int = 1280) -> Seen:
    """The page as a browser has it after its script ran."""
    flags = [
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-background-networking",
        "--disable-sync",
        "--no-first-run",
        "--virtual-time-budget=2000",
    ]
    command = [
        str(CHROMIUM),
        *flags,
        f"--user-data-dir={profile}",
        f"--window-size={width},900",
        "--dump-dom",
        page.as_uri(),
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr[-1000:]
    return Seen(done.stdout)


ACT = """
const said = {};
const pick = (id, value) => {
  const box = document.getElementById(id);
  box.value = value;
  box.dispatchEvent(new Event("change"));
};
const rows = () => [...document.querySelector("tbody").rows];
const heads = [...document.querySelector("table").tHead.rows[0].cells];
const column = (k) => rows().map((row) => row.cells[k].textContent);
const alignment = heads.findIndex((head) => head.textContent.startsWith("alignment"));
heads[alignment].firstElementChild.click();
said.up = column(0).join("; ");
heads[alignment].firstElementChild.click();
said.down = column(0).join("; ");
said.sorted = heads[alignment].getAttribute("aria-sort");
const slider = document.querySelector("input[type=range]");
slider.value = 40;
slider.dispatchEvent(new Event("input"));
said.cut = getComputedStyle(slider.parentElement.querySelector(".before")).clipPath;
pick("by-method", "untuned + sdedit");
said.method = document.getElementById("shown").textContent;
pick("by-prompt", "a dog");
said.both = document.getElementById("shown").textContent;
const tiles = [...document.querySelectorAll(".tile")];
said.visible = tiles.filter((tile) => tile.offsetHeight > 0).length;
said.unreachable = document.querySelectorAll("[tabindex='-1']").length;
said.wide = document.documentElement.scrollWidth - window.innerWidth;
document.body.setAttribute("data-said", JSON.stringify(said));
"""


@pytest.mark.skipif(CHROMIUM is None, reason="there is no chromium")
def test_in_a_browser(sweep, tmp_path):
    page = pages.write(saved_runs.load(sweep))
    untouched = shown(page, tmp_path / "p1")
    assert "20 of 20 shown" in untouched.text and "Edits in " in untouched.text
    assert "hacked" not in untouched.text.partition("Scores and costs")[0]
    # The page's policy runs its own script only: the copy that acts for a person goes without.
    acting = page.with_name("acting.html")
    text = re.sub(r"<meta http-equiv=.*?>", "", page.read_text())
    acting.write_text(text.replace("</body>", f"<script>{ACT}</script></body>"))
    sorted_by = ["copy of the base", "unitune + unitune", "untuned + sdedit", "exact target"]
    for width in (1280, 500):
        (body,) = shown(acting, tmp_path / f"p{width}", width=width).all("body")
        said = json.loads(str(body["data-said"]))
        assert said["up"] == "; ".join(sorted_by)
        assert said["down"] == "; ".join(reversed(sorted_by))
        assert said["sorted"] == "descending" and said["cut"] == "inset(0px 60% 0px 0px)"
        assert (said["method"], said["both"]) == ("8 of 20 shown", "4 of 20 shown")
        assert said["visible"] == 4 and said["wide"] <= 0 and said["unreachable"] == 0


@pytest.mark.skipif(CHROMIUM is None, reason="there is no chromium")
def test_a_script_that_slipped_in_would_not_run(sweep, tmp_path):
    page = pages.write(saved_runs.load(sweep))
    hack = "document.body.dataset.hacked = 1"
    slipped = f"<script>{hack}</script><img src=x onerror='{hack}'></main>"
    page.write_text(page.read_text().replace("</main>", slipped))
    (body,) = shown(page, tmp_path / "p").all("body")
    assert "data-hacked" not in body
