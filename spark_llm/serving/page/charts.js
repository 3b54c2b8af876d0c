// Small charts of the last five minutes, in SVG: by attributes and classes only.

import { html, svg } from "./dom.js";

const WIDTH = 300; // one unit a second
const HEIGHT = 64;
const number = new Intl.NumberFormat("en", { maximumFractionDigits: 1 });

/** Returns the mean of each value and the four before it; the second that still runs is left out. */
export function smooth(values, span = 5) {
  const whole = values.slice(0, -1);
  return whole.map((_, at) => {
    const part = whole.slice(Math.max(0, at - span + 1), at + 1);
    return part.reduce((sum, value) => sum + value, 0) / part.length;
  });
}

class Chart {
  #now = html("p", { class: "now" });
  #scale = html("p", { class: "scale" });
  #plot = svg("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, preserveAspectRatio: "none", role: "img" });
  #below = html("p", { class: "times" }, html("span", {}, "5 min ago"), html("span", {}, "now"));

  constructor(title, kind) {
    this.title = title;
    this.element = html("section", { class: `card chart ${kind}` });
    const head = html("header", {}, html("h2", {}, title), this.#now);
    this.element.append(head, html("div", { class: "plot" }, this.#scale, this.#plot), this.#below);
  }

  show(now, highest, shapes, description) {
    this.#now.textContent = number.format(now);
    this.#scale.textContent = number.format(highest);
    this.#plot.setAttribute("aria-label", `${this.title}, the last five minutes: ${description}`);
    this.#plot.replaceChildren(...shapes);
  }
}

/** A line over five minutes. */
export class LineChart extends Chart {
  constructor(title, kind) {
    super(title, kind);
  }

  /** Draws values, oldest first; the last one is now. */
  update(values) {
    const highest = Math.max(...values);
    const top = Math.max(1, highest);
    const points = values.map((value, at) => {
      const x = (WIDTH * (at + 1)) / values.length;
      return `${x.toFixed(1)},${(HEIGHT - (value / top) * (HEIGHT - 4)).toFixed(1)}`;
    });
    const line = svg("polyline", { points: points.join(" "), class: "line" });
    const area = svg("polygon", { points: `0,${HEIGHT} ${points.join(" ")} ${WIDTH},${HEIGHT}`, class: "area" });
    const now = values.at(-1);
    this.show(now, highest, [area, line], `now ${number.format(now)}, at most ${number.format(highest)}`);
  }
}

/** Bars over five minutes, one for five seconds, stacked by the series they come from. */
export class BarChart extends Chart {
  #legend = html("ul", { class: "legend" });

  constructor(title, kind) {
    super(title, kind);
    this.element.append(this.#legend);
  }

  /** Draws series, as pairs of a name and values, oldest first. */
  update(series) {
    const bars = series.map(([name, values]) => [name, binned(values, 5)]);
    const sums = bars.map(([name, values]) => [name, values.reduce((sum, value) => sum + value, 0)]);
    const total = sums.reduce((sum, [, each]) => sum + each, 0);
    const heights = Array.from({ length: WIDTH / 5 }, (_, at) => bars.reduce((sum, [, values]) => sum + values[at], 0));
    const highest = Math.max(...heights);
    const floors = heights.map(() => HEIGHT);
    const shapes = bars.flatMap(([, values], series) =>
      values.flatMap((value, at) => {
        if (!value) return [];
        const height = (value / highest) * (HEIGHT - 4);
        floors[at] -= height;
        return [svg("rect", { x: at * 5, y: floors[at], width: 4, height, class: `bar part-${series % 6}` })];
      }),
    );
    const parts = sums.map(([name, sum]) => `${number.format(sum)} × ${name}`);
    this.show(total, highest, shapes, parts.join(", ") || "none");
    const entries = sums.map(([name, sum], at) =>
      html("li", {}, html("span", { class: `key part-${at % 6}` }), `${name}`, html("b", {}, number.format(sum))),
    );
    this.#legend.replaceChildren(...(entries.length ? entries : [html("li", {}, "No errors in the last five minutes.")]));
  }
}

function binned(values, size) {
  const bins = [];
  for (let at = 0; at < values.length; at += size) {
    bins.push(values.slice(at, at + size).reduce((sum, value) => sum + value, 0));
  }
  return bins;
}
