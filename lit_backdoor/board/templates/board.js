"use strict";
// Filters: hides what is not chosen and writes each cell's median, count and range from the seeds that remain.
(() => {
  const form = document.querySelector(".filters");
  if (!form.querySelector("select")) return;
  form.hidden = false;
  const written = (value, measure) => (100 * value).toFixed(1).replace("-", measure === "asr" ? "-" : "−");
  const median = (values) => {
    const sorted = [...values].sort((a, b) => a - b), half = sorted.length >> 1;
    return sorted.length % 2 ? sorted[half] : (sorted[half - 1] + sorted[half]) / 2;
  };
  const rewrite = (cell, measure) => {
    const dots = [...cell.querySelectorAll("circle:not(.control)")].filter((dot) => !dot.classList.contains("off"));
    const values = dots.map((dot) => Number(dot.dataset.value));
    const limit = Number(cell.dataset.limit), high = Number(cell.dataset.high), middle = median(values);
    const known = values.length > 0, range = cell.querySelector(".range");
    cell.className = known ? (middle <= limit ? "good" : "bad") : "";
    cell.style.setProperty("--heat", known ? Math.round(100 * Math.min(Math.max((middle - limit) / (high - limit), 0), 1)) : 0);
    cell.querySelector(".head b").textContent = known ? written(middle, measure) : "–";
    cell.querySelector(".head small").textContent = known
      ? `${dots.filter((dot) => dot.classList.contains("good")).length}/${values.length}` : "";
    if (range) range.textContent = values.length > 2
      ? `${written(Math.min(...values), measure)} to ${written(Math.max(...values), measure)}` : "";
    for (const note of cell.querySelectorAll(".note")) note.hidden = form.seed && form.seed.value !== "";
  };
  const apply = () => {
    const chosen = (name) => (form[name] ? form[name].value : "");
    for (const name of ["setup", "access", "seed"])
      for (const item of document.querySelectorAll(`main [data-${name}]`))
        item.classList.toggle(`off-${name}`, chosen(name) !== "" && item.dataset[name] !== chosen(name));
    for (const dot of document.querySelectorAll("circle[data-seed]"))
      dot.classList.toggle("off", dot.classList.contains("off-seed"));
    for (const map of document.querySelectorAll(".map"))
      for (const cell of map.querySelectorAll("td[data-limit]")) rewrite(cell, map.dataset.measure);
    form.querySelector("output").textContent = chosen("seed") === ""
      ? "" : "Dots, heat maps and runs are of this seed; ranks, detectors and medians in tables are of all seeds.";
  };
  form.addEventListener("change", apply);
  addEventListener("beforeprint", () => document.querySelectorAll("details").forEach((item) => { item.open = true; }));
  apply();
})();
