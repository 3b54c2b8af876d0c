// A text area with line numbers, and a mark on the line of a mistake. It draws only the numbers in view. Browsers take
// seconds to lay out megabytes in a text area, so of a long text it has only the beginning, and cannot be edited.

import { svg } from "./dom.js";

const LONG = 1_000_000; // characters
const SHOWN = 20_000;

export class Editor {
  #area;
  #gutter;
  #marks;
  #line = null; // of the mistake, from 1
  #lines = 1;
  #long = null; // the whole text, if it is long

  /** Takes over the text area and the drawings inside `root`; calls `onInput` after each change by the user. */
  constructor(root, onInput) {
    this.#area = root.querySelector("textarea");
    this.#gutter = root.querySelector(".gutter");
    this.#marks = root.querySelector(".marks");
    this.#area.addEventListener("input", () => {
      if (this.#area.value.length > LONG) this.text = this.#area.value;
      this.clearMistake();
      onInput();
    });
    this.#area.addEventListener("paste", (event) => {
      const pasted = event.clipboardData.getData("text/plain");
      const { value, selectionStart, selectionEnd } = this.#area;
      const [before, after] = this.isLong ? ["", ""] : [value.slice(0, selectionStart), value.slice(selectionEnd)];
      if (!this.isLong && before.length + pasted.length + after.length <= LONG) return;
      event.preventDefault();
      this.text = before + pasted + after;
      onInput();
    });
    this.#area.addEventListener("scroll", () => this.#draw());
    new ResizeObserver(() => this.#draw()).observe(this.#area);
  }

  /** Whether the text is too long to be edited here. */
  get isLong() {
    return this.#long !== null;
  }

  get text() {
    return this.#long ?? this.#area.value;
  }

  set text(text) {
    this.#long = text.length > LONG ? text : null;
    this.#area.value = this.isLong ? text.slice(0, SHOWN) : text;
    this.#area.readOnly = this.isLong;
    this.#area.scrollTop = 0;
    this.clearMistake();
  }

  /** Marks the line of a mistake, and puts the cursor there. */
  showMistake({ line, offset }) {
    this.#line = line;
    this.#area.setAttribute("aria-invalid", "true");
    this.#area.focus();
    this.#area.setSelectionRange(offset, offset);
    this.#area.scrollTop = Math.max(0, (line - 4) * this.#lineHeight);
    this.#draw();
  }

  /** Takes the mark away. */
  clearMistake() {
    this.#line = null;
    this.#area.removeAttribute("aria-invalid");
    this.#lines = this.#area.value.split("\n").length;
    this.#draw();
  }

  get #lineHeight() {
    return Number.parseFloat(getComputedStyle(this.#area).lineHeight);
  }

  #draw() {
    const height = this.#lineHeight;
    const top = Number.parseFloat(getComputedStyle(this.#area).paddingTop) - this.#area.scrollTop;
    const first = Math.max(1, Math.floor(-top / height) + 1);
    const last = Math.min(this.#lines, first + Math.ceil(this.#area.clientHeight / height));
    const numbers = [];
    for (let line = first; line <= last; line += 1) {
      const y = top + (line - 0.5) * height;
      const name = line === this.#line ? "number mistaken" : "number";
      numbers.push(svg("text", { x: "100%", y, dx: -10, class: name }, String(line)));
    }
    this.#gutter.replaceChildren(...numbers);
    const mark = { x: 0, y: top + (this.#line - 1) * height, width: "100%", height, class: "mistake" };
    this.#marks.replaceChildren(...(this.#line ? [svg("rect", mark)] : []));
  }
}
