// "Use in code": the request in the editor as code for each client, in tabs, each with a copy button.

import { copyButton, html, byId } from "./dom.js";
import { isObject, parseExactly } from "./json.js";
import { inputFields, snippets } from "./snippets.js";
import { makeTabs } from "./tabs.js";

const SHOWN = 100_000; // characters of a request that is shown as code

let chosen = "snippet-curl"; // the client's tab that was last shown

/** Shows a request to an endpoint as code, or why it cannot be shown. */
export function showCode(endpoint, text) {
  byId("variables").textContent = `export DATABRICKS_HOST=${location.origin}\nexport DATABRICKS_TOKEN=…`;
  const made = make(endpoint, text);
  if (made.problem) {
    byId("snippets").replaceChildren(html("p", { class: "problem" }, made.problem));
    return;
  }
  const list = html("div", { class: "tabs small", role: "tablist", "aria-label": "Clients" });
  const panels = made.snippets.map(({ id, label, language, code }) => {
    const names = { tab: `snippet-${id}`, panel: `snippet-${id}-code` };
    list.append(html("button", { type: "button", role: "tab", id: names.tab, "aria-controls": names.panel }, label));
    const head = html("header", { class: "card-head" }, html("p", { class: "muted" }, language));
    head.append(copyButton("Copy", () => code));
    const block = html("pre", { tabindex: 0, "aria-label": `${label}, code` }, html("code", {}, code));
    return html(
      "div",
      { role: "tabpanel", id: names.panel, "aria-labelledby": names.tab, class: "card snippet", "data-client": id },
      head,
      block,
    );
  });
  byId("snippets").replaceChildren(list, ...panels);
  makeTabs(list, (id) => (chosen = id))(chosen);
}

function make(endpoint, text) {
  if (text.length > SHOWN) return { problem: "The request is too long to be shown as code." };
  const fields = inputFields(endpoint.task);
  try {
    const body = parseExactly(text);
    if (!isObject(body) || !fields.some((field) => field in body)) {
      return { problem: `The request needs the field ${fields.join(" or ")}.` };
    }
    return { snippets: snippets(endpoint, body) };
  } catch {
    return { problem: "The request in the editor cannot be read as JSON of this task. Correct it in the tab Query." };
  }
}
