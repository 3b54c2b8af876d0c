// The live view: four charts of the last five minutes, and the counters since the start.

import { BarChart, LineChart, smooth } from "./charts.js";
import { byId, html } from "./dom.js";

const whole = new Intl.NumberFormat("en");
const NOTHING = { requests: 0, by_status: {}, rows_answered: 0, max_in_flight: 0, disconnects: 0 };

export class LiveView {
  #inFlight = new LineChart("Requests in flight", "in-flight");
  #requests = new LineChart("Requests per second", "requests");
  #tokens = new LineChart("Tokens per second", "tokens");
  #errors = new BarChart("Errors by status", "errors");
  #last = null;
  #name = "";

  constructor() {
    byId("charts").append(...[this.#inFlight, this.#requests, this.#tokens, this.#errors].map((chart) => chart.element));
    for (const radio of document.getElementsByName("scope")) radio.addEventListener("change", () => this.#draw());
  }

  /** Shows the endpoint of this name. */
  show(name) {
    this.#name = name;
    this.#draw();
  }

  /** Takes in an event of `/stats`. */
  update(live) {
    this.#last = live;
    this.#draw();
  }

  #draw() {
    if (!this.#last || byId("view-live").hidden) return;
    const { stats, total, endpoints } = this.#last;
    const isTotal = document.querySelector("[name=scope]:checked").value === "total";
    const series = isTotal ? total : (endpoints[this.#name] ?? emptyLike(total));
    this.#inFlight.update(series.in_flight);
    this.#requests.update(smooth(series.requests));
    this.#tokens.update(smooth(series.tokens));
    const errors = Object.entries(series.by_status).filter(([status]) => Number(status) >= 400);
    if (series.disconnects.some(Boolean)) errors.push(["no answer", series.disconnects]);
    this.#errors.update(errors);
    showCounters(isTotal ? stats : (stats.endpoints[this.#name] ?? NOTHING));
  }
}

function showCounters(stats) {
  const statuses = Object.entries(stats.by_status).map(([status, count]) => [`Status ${status}`, count]);
  const counters = [
    ["Requests", stats.requests],
    ["Rows answered", stats.rows_answered],
    ["Tokens in", stats.prompt_tokens],
    ["Tokens out", stats.completion_tokens],
    ["Most in flight", stats.max_in_flight],
    ...statuses,
    ["No answer", stats.disconnects],
  ];
  byId("counters").replaceChildren(
    ...counters.map(([name, count]) => html("div", {}, html("dt", {}, name), html("dd", {}, whole.format(count ?? 0)))),
  );
}

function emptyLike({ requests }) {
  const zeros = requests.map(() => 0);
  return { in_flight: zeros, requests: zeros, tokens: zeros, disconnects: zeros, by_status: {} };
}
