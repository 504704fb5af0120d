"use strict";
const data = JSON.parse(document.getElementById("data").textContent);
const at = (id) => document.getElementById(id);
const make = (name, text, kind) => {
  const element = document.createElement(name);
  if (text !== undefined) element.textContent = text;
  if (kind) element.className = kind;
  return element;
};
const press = (on, ...off) => {
  on.setAttribute("aria-pressed", "true");
  for (const other of off) other.setAttribute("aria-pressed", "false");
};

/* Images: text is always set as text, never as markup. */
function figure(row) {
  const [id, label, said, confidence] = data.rows[row];
  const whole = make("figure");
  if (data.images[row]) {
    const image = make("img");
    image.src = "data:image/jpeg;base64," + data.images[row];
    image.alt = `${id}: ${data.classes[label]}, predicted ${data.classes[said]}`;
    whole.append(image);
  }
  const caption = make("figcaption");
  caption.append(make("bdi", data.classes[label]));
  if (label !== said) caption.append(" → ", make("bdi", data.classes[said], "said"));
  caption.append(` ${(100 * confidence).toFixed(1)}%`, make("bdi", id, "id"));
  whole.append(caption);
  return whole;
}
function images(rows) {
  const all = make("div", undefined, "images");
  all.append(...rows.map(figure));
  return all;
}

at("worst").append(...data.worst.map(figure));

/* Confusion: a cell or a pair shows its images. */
function showCell(key, n) {
  const [label, said] = key.split(",").map((place) => data.classes[place]);
  const rows = data.cells[key] || [];
  const less = rows.length < n ? `, ${rows.length} shown` : "";
  at("cell").replaceChildren(make("p", `${label} predicted as ${said}: ${n.toLocaleString("en")} ${n === 1 ? "image" : "images"}${less}`), images(rows));
}
const cells = [...document.querySelectorAll("[data-cell]")];
for (const cell of cells) cell.addEventListener("click", () => {
  for (const other of cells) other.removeAttribute("aria-current");
  cell.setAttribute("aria-current", "true");
  showCell(cell.dataset.cell, Number(cell.dataset.n));
});
const matrix = at("matrix");
if (matrix) {
  const side = data.classes.length;
  matrix.addEventListener("keydown", (event) => {
    const step = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -side, ArrowDown: side }[event.key];
    const now = cells.indexOf(document.activeElement);
    if (step === undefined || now < 0) return;
    event.preventDefault();
    const sideways = Math.abs(step) === 1 && Math.floor((now + step) / side) !== Math.floor(now / side);
    const next = cells[now + step];
    if (!next || (sideways && side > 1)) return;
    cells[now].tabIndex = -1;
    next.tabIndex = 0;
    next.focus();
  });
  const show = (key) => cells.forEach((cell) => { cell.textContent = Number(cell.dataset.n) ? cell.dataset[key] : "·"; });
  at("counts").addEventListener("click", () => { press(at("counts"), at("shares")); show("n"); });
  at("shares").addEventListener("click", () => { press(at("shares"), at("counts")); show("share"); });
}
for (const button of document.querySelectorAll("[data-pair]")) button.addEventListener("click", () => {
  showCell(button.dataset.pair, Number(button.closest("tr").cells[2].dataset.value));
  at("cell").scrollIntoView({ block: "nearest" });
});

/* Tables: a head's button sorts; numbers by value, names as text. */
for (const table of document.querySelectorAll(".sortable")) [...table.tHead.rows[0].cells].forEach((head, column) => {
  if (head.querySelector(".hidden")) return;
  const button = make("button", head.textContent, "sort");
  button.type = "button";
  head.replaceChildren(button);
  const numeric = head.classList.contains("number");
  const value = (row) => { const cell = row.cells[column]; return numeric ? parseFloat(cell.dataset.value ?? cell.textContent) : cell.textContent; };
  button.addEventListener("click", () => {
    const down = head.getAttribute("aria-sort") === "descending" ? false : numeric || head.getAttribute("aria-sort") === "ascending";
    for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
    head.setAttribute("aria-sort", down ? "descending" : "ascending");
    const rows = [...table.tBodies[0].rows];
    rows.sort((a, b) => (numeric ? value(a) - value(b) : value(a).localeCompare(value(b))) * (down ? -1 : 1));
    table.tBodies[0].append(...rows);
  });
});
at("filter").addEventListener("input", (event) => {
  const asked = event.target.value.toLowerCase();
  const rows = [...at("per-class").tBodies[0].rows];
  for (const row of rows) row.hidden = !row.cells[0].textContent.toLowerCase().includes(asked);
  at("found").textContent = asked ? `${rows.filter((row) => !row.hidden).length} of ${rows.length}` : "";
});

/* The map: one circle a row; the nearest in the direction of an arrow key is next. */
if (data.map) {
  const svg = at("points"), space = "http://www.w3.org/2000/svg";
  const few = ["#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00", "#8c8c8c", "#b8a800", "#7b4fb5", "#8a5a2b"];
  const hue = (label) => (data.classes.length <= few.length ? few[label] : `hsl(${(label * 137.508) % 360} 60% 50%)`);
  let kind = "tsne", byClass = true, chosen = -1;
  const circle = (size) => { const c = document.createElementNS(space, "circle"); c.setAttribute("r", size); return c; };
  const points = data.map.rows.map(() => circle(0.7));
  svg.append(...points);
  const wrong = (row) => data.rows[row][1] !== data.rows[row][2];
  const colour = (row) => (byClass ? hue(data.rows[row][1]) : wrong(row) ? "#d55e00" : "#7f9bb3");
  const place = (k) => data.map[kind][k].map((v, axis) => 100 * (axis ? 1 - v : v));
  function key(name, fill) {
    const line = make("li"), box = document.createElementNS(space, "svg"), dot = circle(6);
    box.setAttribute("viewBox", "-6 -6 12 12"); box.setAttribute("aria-hidden", "true"); dot.setAttribute("fill", fill); box.append(dot);
    line.append(box, make("bdi", name));
    return line;
  }
  function draw() {
    points.forEach((point, k) => {
      const [x, y] = place(k), row = data.map.rows[k];
      point.setAttribute("cx", x); point.setAttribute("cy", y); point.setAttribute("fill", colour(row));
      point.setAttribute("fill-opacity", byClass || wrong(row) ? 0.85 : 0.45);
    });
    const keys = byClass ? data.classes.slice(0, 40).map((name, label) => key(name, hue(label))) : [key("right", "#7f9bb3"), key("wrong", "#d55e00")];
    if (byClass && data.classes.length > 40) keys.push(make("li", `and ${data.classes.length - 40} more`));
    at("legend").replaceChildren(...keys);
  }
  function choose(k) {
    if (k === chosen) return;
    if (chosen >= 0) { points[chosen].classList.remove("on"); points[chosen].setAttribute("r", 0.7); }
    chosen = k;
    points[k].classList.add("on"); points[k].setAttribute("r", 1.4);
    at("point").replaceChildren(images([data.map.rows[k]]));
  }
  points.forEach((point, k) => point.addEventListener("mouseenter", () => choose(k)));
  svg.addEventListener("keydown", (event) => {
    const way = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key];
    if (!way) return;
    event.preventDefault();
    if (chosen < 0) return choose(0);
    const [x, y] = place(chosen);
    let best = -1, least = Infinity;
    points.forEach((_, k) => {
      const [u, v] = place(k), along = (u - x) * way[0] + (v - y) * way[1], aside = Math.abs((u - x) * way[1]) + Math.abs((v - y) * way[0]);
      if (k !== chosen && along > 0 && along + 2 * aside < least) { least = along + 2 * aside; best = k; }
    });
    if (best >= 0) choose(best);
  });
  at("tsne").addEventListener("click", () => { kind = "tsne"; press(at("tsne"), at("pca")); draw(); });
  at("pca").addEventListener("click", () => { kind = "pca"; press(at("pca"), at("tsne")); draw(); });
  at("by-class").addEventListener("click", () => { byClass = true; press(at("by-class"), at("by-right")); draw(); });
  at("by-right").addEventListener("click", () => { byClass = false; press(at("by-right"), at("by-class")); draw(); });
  draw();
}

/* Theme: the reader's choice wins over the system's. */
const root = document.documentElement, theme = at("theme");
let dark = matchMedia("(prefers-color-scheme: dark)").matches;
theme.setAttribute("aria-pressed", String(dark));
theme.addEventListener("click", () => {
  dark = !dark;
  root.dataset.theme = dark ? "dark" : "light";
  theme.setAttribute("aria-pressed", String(dark));
});
