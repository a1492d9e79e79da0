"use strict";
const TOP = 65535;  // maps are 16-bit integers between their lowest and highest value
const BLEND = 0.55;  // opacity of the overlay
const HIT = [0, 184, 138], ALARM = [230, 159, 0], MISS = [214, 114, 176], LESION = [86, 180, 233];
const {colours, galleries} = JSON.parse(document.getElementById("data").textContent);
const PIXELS = new Uint32Array(Uint8Array.from(colours.flatMap(colour => [...colour, 255])).buffer);  // of canvases

const percent = (share, digits = 1) => `${(100 * share).toFixed(digits)} %`;
const significant = value => Number(value.toPrecision(4)).toString().replace("-", "\u2212");

/* A map's values, row by row. */
function decode(map, low, high) {
  const bytes = Uint8Array.from(atob(map.values), letter => letter.charCodeAt(0));
  const view = new DataView(bytes.buffer), values = new Float64Array(map.rows * map.columns);
  for (let i = 0; i < values.length; i++) values[i] = low + view.getUint16(2 * i, true) / TOP * (high - low);
  return values;
}

/* For each of n pixels along an axis of m values: the two values it lies between and the share of the second. */
function steps(n, m) {
  return Array.from({length: n}, (_, i) => {
    const place = Math.max(0, (i + 0.5) * m / n - 0.5), first = Math.min(Math.floor(place), m - 1);
    return [first, Math.min(first + 1, m - 1), place - first];
  });
}

/* Bilinear upsampling with pixel centres, as the anomaly maps of the metrics are made. */
function upsample(map, values, height, width) {
  const out = new Float64Array(height * width), across = steps(width, map.columns);
  steps(height, map.rows).forEach(([top, bottom, down], y) => across.forEach(([left, right, along], x) => {
    const upper = values[top * map.columns + left] * (1 - along) + values[top * map.columns + right] * along;
    const lower = values[bottom * map.columns + left] * (1 - along) + values[bottom * map.columns + right] * along;
    out[y * width + x] = upper * (1 - down) + lower * down;
  }));
  return out;
}

/* A mask from the lengths of its runs, the first of background. */
function unpack(runs, size) {
  const mask = new Uint8Array(size);
  let place = 0;
  runs.forEach((length, i) => { if (i % 2) mask.fill(1, place, place + length); place += length; });
  return mask;
}

function outlineOf(mask, height, width) {
  const border = [];
  for (let y = 0; y < height; y++) for (let x = 0; x < width; x++) {
    const i = y * width + x;
    if (mask[i] && (!x || !y || x === width - 1 || y === height - 1 || !mask[i - 1] || !mask[i + 1] || !mask[i - width] || !mask[i + width])) border.push(i);
  }
  return border;
}

/* Dice, strictly greater as in the metrics; null where there is no lesion. */
function count(values, mask, threshold) {
  let both = 0, above = 0, lesion = 0;
  for (let i = 0; i < values.length; i++) {
    const hit = values[i] > threshold;
    both += hit && mask[i]; above += hit; lesion += mask[i];
  }
  return {dice: lesion ? 2 * both / (above + lesion) : null, above: above / values.length};
}

function paint(data, i, [red, green, blue], share) {
  data[4 * i] += (red - data[4 * i]) * share;
  data[4 * i + 1] += (green - data[4 * i + 1]) * share;
  data[4 * i + 2] += (blue - data[4 * i + 2]) * share;
}

class Gallery {
  constructor(section) {
    const find = selector => section.querySelector(selector);
    const {cases, models} = galleries[section.dataset.key];
    Object.assign(this, {section, models, find, order: "group", rising: true, model: models[0], hasMasks: Boolean(find(".outline"))});
    this.slider = find(".threshold input");
    this.cards = [...section.querySelectorAll(".case")].map((figure, index) => ({
      index, figure, info: cases[index], name: figure.querySelector("strong").textContent,
      image: figure.querySelector("img"), over: figure.querySelector(".over"), heat: figure.querySelector(".heat"),
      live: figure.querySelector(".live"), tag: figure.querySelector(".tag"),
    }));
    this.listen();
  }

  async start() {
    if (this.started) return this.started;
    this.started = Promise.all(this.cards.map(card => this.load(card))).then(() => {
      this.chooseModel(0);
      this.section.dataset.ready = "yes";
    });
    return this.started;
  }

  async load(card) {
    const {height, width, mask} = card.info;
    await card.image.decode();
    const context = card.over.getContext("2d", {willReadFrequently: true});
    context.drawImage(card.image, 0, 0, width, height);
    card.pixels = context.getImageData(0, 0, width, height).data;
    card.mask = unpack(mask, height * width);
    card.lesion = card.mask.reduce((sum, value) => sum + value, 0);
    card.border = outlineOf(card.mask, height, width);
  }

  listen() {
    const {section} = this;
    section.querySelectorAll("[type=radio]").forEach(radio => radio.addEventListener("change", () => this.chooseModel(Number(radio.value))));
    section.querySelectorAll("[type=checkbox]").forEach(box => box.addEventListener("change", () => {
      this.find(".cards").classList.toggle("enlarged", this.find(".large").checked);
      this.draw();
    }));
    section.querySelectorAll("[data-point]").forEach(button => button.addEventListener("click", () => {
      this.slider.value = this.model.named[button.dataset.point];
      this.draw();
    }));
    section.querySelectorAll("[data-order]").forEach(button => button.addEventListener("click", () => {
      this.rising = this.order === button.dataset.order ? !this.rising : ["group", "name"].includes(button.dataset.order);
      this.order = button.dataset.order;
      this.sort();
    }));
    this.slider.addEventListener("input", () => this.draw());
  }

  /* Another model keeps the named threshold if one is chosen, else the slider's place. */
  chooseModel(number) {
    const point = this.point() ?? (this.shown ? null : "FPR 5 %");
    this.model = this.models[number];
    this.slider.max = this.model.levels.length - 1;
    if (point) this.slider.value = this.model.named[point];
    this.shown = true;
    for (const card of this.cards) {
      const map = this.model.maps[card.index];
      card.values = upsample(map, decode(map, this.model.low, this.model.high), card.info.height, card.info.width);
      this.drawHeat(card);
    }
    this.showScale();
    this.draw();
    this.sort();
  }

  point() {
    const found = Object.entries(this.model.named).find(([, level]) => level === Number(this.slider.value));
    return this.shown && found ? found[0] : null;
  }

  draw() {
    const level = this.model.levels[this.slider.value];
    this.cards.forEach(card => this.drawOver(card, level.threshold));
    this.section.querySelectorAll("[data-point]").forEach(button => button.setAttribute("aria-pressed", button.dataset.point === this.point()));
    this.read(level);
    this.mark(level);
  }

  drawOver(card, threshold) {
    const {height, width} = card.info, context = card.over.getContext("2d"), out = context.createImageData(width, height);
    out.data.set(card.pixels);
    if (this.find(".overlay").checked) {
      const above = this.hasMasks ? ALARM : HIT;
      for (let i = 0; i < card.values.length; i++) {
        const hit = card.values[i] > threshold;
        if (card.mask[i]) paint(out.data, i, hit ? HIT : MISS, BLEND);
        else if (hit) paint(out.data, i, above, BLEND);
      }
    }
    if (this.hasMasks && this.find(".outline").checked) card.border.forEach(i => paint(out.data, i, LESION, 1));
    context.putImageData(out, 0, 0);
    this.describe(card, threshold);
  }

  describe(card, threshold) {
    const {dice, above} = count(card.values, card.mask, threshold);
    card.dice = dice;
    card.score = this.model.image_scores[card.index];
    card.group = this.model.groups[card.index];
    card.live.textContent = `${dice === null ? "" : `Dice ${dice.toFixed(3)}, `}${percent(above)} of the picture above, image score ${significant(card.score)}`;
    card.tag.textContent = card.group || "chosen for another model";
    card.over.setAttribute("aria-label", `Overlay of ${card.name}: ${card.live.textContent}`);
  }

  drawHeat(card) {
    const {height, width} = card.info, context = card.heat.getContext("2d"), out = context.createImageData(width, height);
    const {colours_from: from, colours_to: to} = this.model, pixels = new Uint32Array(out.data.buffer);
    card.values.forEach((value, i) => {
      pixels[i] = PIXELS[Math.round(255 * Math.min(1, Math.max(0, (value - from) / (to - from || 1))))];
    });
    context.putImageData(out, 0, 0);
    card.heat.setAttribute("aria-label", `Anomaly map of ${card.name} by ${this.model.name}`);
  }

  showScale() {
    const stops = Array.from({length: 17}, (_, i) => `rgb(${colours[Math.round(255 * i / 16)]})`);
    this.find(".bar").style.background = `linear-gradient(to right, ${stops})`;
    this.find(".bar-text").textContent = `${this.model.score_label}, ${significant(this.model.colours_from)} to ${significant(this.model.colours_to)}`;
  }

  read(level) {
    const output = this.find(".reading"), bold = text => Object.assign(document.createElement("b"), {textContent: text});
    const score = `score > ${significant(level.threshold)}`;
    const flags = `; above it: ${percent(level.flagged, 2)} of test patches, ${percent(level.fpr_valid, 2)} of normal validation patches`;
    const test = "dice" in level ? [". Test pixels: ", bold(`Dice ${level.dice.toFixed(3)}`), `, recall ${level.recall.toFixed(3)}, precision ${level.precision?.toFixed(3) ?? "\u2013"}, FPR ${percent(level.fpr, 2)}`] : [];
    output.replaceChildren(bold(score), flags, ...test);
    this.slider.setAttribute("aria-valuetext", score);
  }

  mark(level) {
    this.section.querySelectorAll(".panel .marker").forEach(marker => {
      const side = Number(marker.dataset.side), [x, y] = marker.dataset.kind === "roc" ? [level.fpr, level.recall] : [level.recall, level.precision];
      if (Number.isFinite(x) && Number.isFinite(y)) marker.removeAttribute("hidden"); else marker.setAttribute("hidden", "");
      marker.setAttribute("cx", side * (x ?? 0));
      marker.setAttribute("cy", side * (1 - Math.min(1, (y ?? 0) / marker.dataset.top)));
    });
  }

  sort() {
    const key = {
      group: card => this.model.ranks[card.index], dice: card => card.dice ?? -1, lesion: card => card.lesion / card.mask.length,
      score: card => card.score, name: card => card.name,
    }[this.order];
    const compare = (a, b) => (key(a) < key(b) ? -1 : key(a) > key(b) ? 1 : 0) * (this.rising ? 1 : -1) || a.index - b.index;
    this.find(".cards").append(...[...this.cards].sort(compare).map(card => card.figure));
    this.section.querySelectorAll("[data-order]").forEach(button => {
      button.setAttribute("aria-pressed", button.dataset.order === this.order);
      if (button.dataset.order === this.order) button.dataset.direction = this.rising ? "up" : "down";
      else delete button.dataset.direction;
    });
  }
}

/* Click a heading: rising, again: falling. Cells without a number come last. */
function sortable(table) {
  table.querySelectorAll("th button").forEach(button => button.addEventListener("click", () => {
    const head = button.parentElement, rising = head.getAttribute("aria-sort") !== "ascending", body = table.tBodies[0];
    table.querySelectorAll("th").forEach(other => other.removeAttribute("aria-sort"));
    head.setAttribute("aria-sort", rising ? "ascending" : "descending");
    const numbers = head.classList.contains("number");
    const value = row => {
      const cell = row.cells[head.cellIndex], text = cell.dataset.value ?? cell.textContent.trim().replace("\u2212", "-");
      return numbers ? parseFloat(text) : text;
    };
    const compare = (a, b) => numbers ? (isNaN(a) - isNaN(b)) || (rising ? a - b : b - a) : a.localeCompare(b, "en", {numeric: true}) * (rising ? 1 : -1);
    body.append(...[...body.rows].map(row => [value(row), row]).sort((a, b) => compare(a[0], b[0])).map(([, row]) => row));
  }));
}

function filterable(input, table, output) {
  input.addEventListener("input", () => {
    const words = input.value.toLowerCase().split(/\s+/).filter(Boolean);
    let shown = 0;
    for (const row of table.tBodies[0].rows) {
      const text = row.textContent.toLowerCase();
      row.hidden = !words.every(word => text.includes(word));
      shown += !row.hidden;
    }
    output.textContent = words.length ? `${shown} rows` : "";
  });
}

document.querySelectorAll("table.sortable").forEach(sortable);
filterable(document.getElementById("filter"), document.getElementById("all-table"), document.getElementById("filter-count"));
const shown = new Map([...document.querySelectorAll(".gallery")].map(section => [section, new Gallery(section)]));
const watch = new IntersectionObserver(entries => entries.filter(entry => entry.isIntersecting).forEach(entry => shown.get(entry.target).start()), {rootMargin: "600px"});
shown.forEach((_, section) => watch.observe(section));
/* Those out of sight are drawn later, so that a printed page shows everything. */
addEventListener("load", async () => { for (const gallery of shown.values()) await gallery.start(); });
addEventListener("beforeprint", () => document.querySelectorAll("details.figures").forEach(details => { details.open = true; }));
