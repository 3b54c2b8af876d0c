// The answer to a request: status, time, tokens, texts, and the body as it came.

import { byId, copyButton, html } from "./dom.js";

const SHOWN = 100_000; // characters of a body; the rest is only copied

const FACTS = ["Status", "Latency", "First token", "Tokens"]; // in this order

const whole = new Intl.NumberFormat("en");

/** One answer, from sending the request to its end. When another takes its place, it changes nothing on the page. */
export class Answer {
  #root = html("div", {}, html("p", { class: "waiting" }, "Waiting for the answer…"));
  #facts = html("dl", { class: "facts" });
  #values = {}; // by the names of `FACTS`
  #texts = html("div", { class: "texts" });
  #replies = new Map(); // elements by the index of their choice

  /** Shows that a request was sent. */
  constructor() {
    byId("answer").setAttribute("aria-busy", "true");
    byId("answer").replaceChildren(this.#root);
    byId("copy-body").hidden = true;
  }

  /** Shows the status, as soon as the headers are here. */
  begin(response) {
    const name = `${response.status} ${response.statusText}`.trim();
    this.#fact("Status", html("span", { class: response.ok ? "good" : "bad" }, name));
    this.#root.replaceChildren(this.#facts, this.#texts);
  }

  /** Shows how long something took. */
  time(name, milliseconds) {
    const isLong = milliseconds >= 10_000;
    this.#fact(name, isLong ? `${(milliseconds / 1000).toFixed(1)} s` : `${milliseconds.toFixed()} ms`);
  }

  /** Shows the tokens that the answer reports. */
  tokens(usage) {
    if (!usage) return;
    const { prompt_tokens: prompt = usage.input_tokens, total_tokens: total } = usage;
    const { completion_tokens: completion = usage.output_tokens } = usage;
    const parts = completion === undefined ? "" : ` (${whole.format(prompt)} in, ${whole.format(completion)} out)`;
    this.#fact("Tokens", `${whole.format(total)}${parts}`);
  }

  /** Adds a piece to the text of one reply. */
  addText(index, text) {
    this.#reply(index).querySelector("p").append(text);
  }

  /** Shows why a reply ended, unless it ended by itself. */
  finish(index, reason) {
    if (!reason || reason === "stop") return;
    this.#reply(index).append(html("span", { class: "finish" }, `finish_reason: ${reason}`));
  }

  /** Shows what the vectors of an answer are. */
  vectors(rows) {
    const [first] = rows;
    const length = Array.isArray(first?.embedding) ? ` of ${whole.format(first.embedding.length)} numbers` : "";
    this.#count(rows, "vector", length);
  }

  /** Shows how many predictions an answer has. */
  predictions(rows) {
    this.#count(rows, "prediction", "");
  }

  /** Shows the body as it came; a long one is cut. */
  body(text) {
    if (!this.#root.isConnected) return;
    const isCut = text.length > SHOWN;
    const note = isCut ? `The first ${whole.format(SHOWN)} of ${whole.format(text.length)} characters.` : "";
    const code = html("code", {}, text.slice(0, SHOWN));
    const details = html("details", { class: "body", open: "" }, html("summary", {}, "Response body"));
    details.append(html("pre", { tabindex: 0, "aria-label": "Response body" }, code), html("p", { class: "note" }, note));
    this.#root.append(details);
    const button = copyButton("Copy body", () => text);
    button.id = "copy-body";
    byId("copy-body").replaceWith(button);
  }

  /** Shows that no whole answer came. */
  fail(message) {
    const problem = html("p", { class: "problem" }, message);
    if (this.#facts.isConnected) this.#facts.after(problem);
    else this.#root.replaceChildren(problem);
  }

  /** Ends the answer, so that screen readers read it. */
  end() {
    if (this.#root.isConnected) byId("answer").setAttribute("aria-busy", "false");
  }

  #fact(name, value) {
    this.#values[name] = value;
    const known = FACTS.filter((each) => each in this.#values);
    this.#facts.replaceChildren(
      ...known.map((each) => html("div", {}, html("dt", {}, each), html("dd", {}, this.#values[each]))),
    );
  }

  #count(rows, noun, more) {
    const text = `${whole.format(rows.length)} ${noun}${rows.length === 1 ? "" : "s"}${more}`;
    this.#texts.replaceChildren(html("div", { class: "reply" }, html("p", {}, text)));
  }

  #reply(index) {
    if (!this.#replies.has(index)) {
      this.#replies.set(index, html("div", { class: "reply" }, html("p")));
      this.#texts.append(this.#replies.get(index));
    }
    return this.#replies.get(index);
  }
}

/** Shows that no request was sent yet. */
export function showNoAnswer() {
  byId("copy-body").hidden = true;
  byId("answer").setAttribute("aria-busy", "false");
  byId("answer").replaceChildren(html("p", { class: "waiting" }, "Send the request, and its answer appears here."));
}
