// The view that sends a request: the editor, its buttons, and one request at a time.

import { Unreachable, chunks, query } from "./api.js";
import { Answer, showNoAnswer } from "./answer.js";
import { byId } from "./dom.js";
import { Editor } from "./editor.js";
import { findMistake, isObject, parseExactly } from "./json.js";
import { events } from "./sse.js";
import { canStream, exampleOf } from "./tasks.js";

const whole = new Intl.NumberFormat("en");

export class QueryView {
  #editor;
  #endpoint = null;
  #texts = new Map(); // what the user typed, by endpoint
  #request = null; // the AbortController of the request that runs
  #onTokenDoubt;

  /** Makes the view work; calls `onTokenDoubt` after a 401 or 403, which may mean that the token has ended. */
  constructor(onTokenDoubt) {
    this.#onTokenDoubt = onTokenDoubt;
    this.#editor = new Editor(byId("editor"), () => this.#changed());
    byId("show-example").addEventListener("click", () => this.#write(exampleOf(this.#endpoint.task)));
    byId("format").addEventListener("click", () => this.#rewrite((body) => body));
    byId("stream").addEventListener("change", (event) => this.#setStream(event.target.checked));
    byId("stop").addEventListener("click", () => this.#request?.abort());
    byId("send").addEventListener("click", () => this.#send());
    byId("body").addEventListener("keydown", (event) => {
      if (event.key !== "Enter" || !(event.ctrlKey || event.metaKey)) return;
      event.preventDefault();
      this.#send();
    });
  }

  /** The text in the editor. */
  get text() {
    return this.#editor.text;
  }

  /** Shows an endpoint, with the text that was last in its editor, or with an example. */
  show(endpoint) {
    if (this.#endpoint?.name === endpoint.name) return;
    this.#request?.abort();
    this.#endpoint = endpoint;
    byId("stream-option").hidden = !canStream(endpoint.task);
    this.#write(this.#texts.get(endpoint.name) ?? exampleOf(endpoint.task));
    showNoAnswer();
  }

  #write(text) {
    this.#editor.text = text;
    this.#changed();
  }

  #changed() {
    const text = this.#editor.text;
    this.#texts.set(this.#endpoint.name, text);
    byId("body-error").textContent = "";
    byId("body-note").textContent = this.#editor.isLong
      ? `${whole.format(text.length)} characters: only the beginning is shown, and all are sent. Show example, or paste another text, replaces them.`
      : "";
    byId("format").disabled = byId("stream").disabled = this.#editor.isLong;
    if (this.#editor.isLong) return;
    try {
      byId("stream").checked = JSON.parse(text)?.stream === true;
    } catch {
      // The user is typing; the next button shows the mistake.
    }
  }

  /** Returns whether the text is JSON; marks its first mistake otherwise, and goes there. */
  #check() {
    const mistake = findMistake(this.#editor.text);
    byId("body-error").textContent = mistake ? `Line ${mistake.line}, column ${mistake.column}: ${mistake.message}` : "";
    if (mistake) this.#editor.showMistake(mistake);
    return mistake === null;
  }

  #rewrite(change) {
    if (!this.#check()) return;
    try {
      this.#write(JSON.stringify(change(parseExactly(this.#editor.text)), null, 2));
    } catch {
      byId("body-error").textContent = "The text is nested too deeply to be changed here.";
    }
  }

  #setStream(isOn) {
    this.#rewrite((body) => {
      if (!isObject(body)) return body;
      const { stream, ...others } = body;
      return isOn ? { ...others, stream: true } : others;
    });
  }

  async #send() {
    if (this.#request || !this.#check()) return;
    const request = new AbortController();
    this.#setBusy(request);
    const answer = new Answer();
    try {
      await this.#ask(answer, request.signal);
    } catch (error) {
      if (error instanceof Unreachable) answer.fail("No whole answer came: the connection to the server broke.");
      else if (error.name === "AbortError") answer.fail("Stopped.");
      else throw error;
    } finally {
      answer.end();
      this.#setBusy(null);
    }
  }

  async #ask(answer, signal) {
    const began = performance.now();
    const elapsed = () => performance.now() - began;
    const response = await query(this.#endpoint.name, this.#editor.text, signal);
    answer.begin(response);
    const isStream = response.headers.get("Content-Type")?.startsWith("text/event-stream");
    let text = "";
    const pieces = (async function* () {
      for await (const piece of chunks(response)) {
        text += piece;
        yield piece;
      }
    })();
    try {
      if (isStream) await showStream(answer, pieces, elapsed);
      else for await (const _ of pieces);
    } finally {
      answer.time("Latency", elapsed());
      answer.body(isStream || !response.ok ? text : prettyJson(text));
    }
    if (!isStream) showWhole(answer, text);
    if (response.status === 401 || response.status === 403) this.#onTokenDoubt();
  }

  #setBusy(request) {
    this.#request = request;
    byId("send").disabled = request !== null;
    byId("stop").hidden = request === null;
  }
}

async function showStream(answer, pieces, elapsed) {
  let isFirst = true;
  for await (const data of events(pieces)) {
    const chunk = readJson(data);
    for (const { index, delta, text = delta?.content, finish_reason: reason } of chunk?.choices ?? []) {
      if (text && isFirst) answer.time("First token", elapsed());
      if (text) isFirst = false;
      if (text) answer.addText(index, text);
      answer.finish(index, reason);
    }
    answer.tokens(chunk?.usage);
    if (chunk?.error) answer.fail(`The stream ended with an error: ${chunk.error.message}`);
  }
}

function showWhole(answer, text) {
  const body = readJson(text);
  for (const { index, message, text: completion = message?.content, finish_reason: reason } of body?.choices ?? []) {
    answer.addText(index, completion ?? "");
    for (const { function: called } of message?.tool_calls ?? []) answer.addText(index, `${called.name}(${called.arguments})`);
    answer.finish(index, reason);
  }
  for (const item of body?.output ?? []) {
    for (const part of item.content ?? []) answer.addText(0, part.text ?? "");
    if (item.type === "function_call") answer.addText(0, `${item.name}(${item.arguments})`);
  }
  answer.finish(0, body?.incomplete_details?.reason);
  if (Array.isArray(body?.data)) answer.vectors(body.data);
  const predictions = body?.predictions ?? body?.outputs;
  if (Array.isArray(predictions)) answer.predictions(predictions);
  answer.tokens(body?.usage);
}

function readJson(text) {
  try {
    return JSON.parse(text);
  } catch {
    return null;
  }
}

function prettyJson(text) {
  try {
    return JSON.stringify(parseExactly(text), null, 2);
  } catch {
    return text;
  }
}
