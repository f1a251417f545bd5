"use strict";
const tiles = [...document.querySelectorAll(".tile")];
const chosen = ["method", "prompt"].map((name) => [name, document.getElementById("by-" + name)]);

function filter() {
  let shown = 0;
  for (const tile of tiles) {
    tile.hidden = chosen.some(([name, box]) => box.value && tile.dataset[name] !== box.value);
    shown += tile.hidden ? 0 : 1;
  }
  document.getElementById("shown").textContent = shown + " of " + tiles.length + " shown";
}
for (const [, box] of chosen) box.addEventListener("change", filter);
document.getElementById("filter").addEventListener("submit", (event) => event.preventDefault());

for (const slider of document.querySelectorAll("input[type=range]")) {
  const before = slider.parentElement.querySelector(".before");
  const cut = () => before.style.setProperty("--cut", slider.value + "%");
  slider.addEventListener("input", cut);
  cut(); // a browser may keep the place of a slider when a page is loaded again
}

// A cell sorts by the number that it begins with; what has none stands last.
const numberOf = (text) => parseFloat(text.replace(/^[^\d.-]+/, ""));
function sort(head) {
  const up = head.getAttribute("aria-sort") !== "ascending";
  for (const other of head.parentElement.children) other.removeAttribute("aria-sort");
  head.setAttribute("aria-sort", up ? "ascending" : "descending");
  const body = head.closest("table").tBodies[0];
  const rows = [...body.rows].map((row) => [row, row.cells[head.cellIndex].textContent.trim()]);
  rows.sort(([, a], [, b]) => {
    const [x, y] = head.cellIndex === 0 ? [NaN, NaN] : [numberOf(a), numberOf(b)];
    if (isNaN(x) && isNaN(y)) return (up ? 1 : -1) * a.localeCompare(b);
    if (isNaN(x) || isNaN(y)) return isNaN(x) ? 1 : -1;
    return up ? x - y : y - x;
  });
  body.append(...rows.map(([row]) => row));
}
for (const head of document.querySelectorAll("thead th")) head.firstElementChild.addEventListener("click", () => sort(head));
