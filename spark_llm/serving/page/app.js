// The page: its token, its endpoints, the one that is shown, and the stream of counts.

import { TokenRefused, hasToken, invocations, listEndpoints, liveStats, setToken } from "./api.js";
import { showCode } from "./code.js";
import { byId, html } from "./dom.js";
import { LiveView } from "./live.js";
import { QueryView } from "./query.js";
import { makeTabs } from "./tabs.js";
import { taskLabel } from "./tasks.js";
import { makeSignIn, takeTokenFromAddress } from "./token.js";

const RETRY_MS = [500, 1000, 2000, 4000];

let endpoints = [];
let shown = null; // the endpoint in view
let view = "tab-query";
let stream = null; // the AbortController of the stream of counts

const query = new QueryView(refresh);
const live = new LiveView();
const askForToken = makeSignIn(start);
const showTab = makeTabs(document.querySelector("#endpoint > .tabs"), (id) => {
  view = id;
  if (shown) showView();
});

/** Begins with the token of the moment, or asks for one. */
async function start() {
  if (!hasToken()) {
    showEmpty("Enter the token that spark-llm serve printed.", true);
    askForToken("Enter the token");
    return;
  }
  if (!(await refresh())) return;
  byId("sign-in").close();
  follow();
}

/** Reads the list of endpoints; returns false, and asks for another token, if the server refuses this one. */
async function refresh() {
  try {
    endpoints = await listEndpoints();
  } catch (error) {
    if (error instanceof TokenRefused) endToken();
    else showConnection("lost", "Not connected");
    return !(error instanceof TokenRefused);
  }
  const wanted = shown?.name ?? new URLSearchParams(location.search).get("endpoint");
  const endpoint = endpoints.find(({ name }) => name === wanted) ?? endpoints[0];
  if (endpoint) showEndpoint(endpoint);
  else showEmpty("This server has no endpoints.", false);
  return true;
}

function endToken() {
  stream?.abort();
  stream = null;
  setToken("");
  showConnection("lost", "No valid token");
  if (!shown) showEmpty("Enter the token that spark-llm serve printed.", true);
  askForToken("Enter another token", "The server refuses the token: it is wrong, or it has ended.");
}

/** Reads the counts until the token ends; begins again when the connection was lost. A hidden page reads nothing. */
async function follow() {
  stream?.abort();
  const mine = new AbortController();
  stream = mine;
  for (let tries = 0; stream === mine && !document.hidden; ) {
    try {
      for await (const event of liveStats(mine.signal)) {
        if (tries > 0 || !isListed(event.ready)) await refresh();
        tries = 0;
        showConnection("live", "Connected");
        showReadiness(event.ready);
        live.update(event);
      }
    } catch (error) {
      if (error instanceof TokenRefused) endToken();
      if (error instanceof TokenRefused || error.name === "AbortError") return;
    }
    if (stream !== mine) return;
    if (tries > 0) showConnection("lost", "Not connected");
    await new Promise((resolve) => setTimeout(resolve, RETRY_MS[Math.min(tries, RETRY_MS.length - 1)]));
    tries += 1;
  }
}

const isListed = (ready) => Object.keys(ready).join("\n") === endpoints.map(({ name }) => name).join("\n");

function showReadiness(ready) {
  let isChanged = false;
  for (const endpoint of endpoints) {
    const state = ready[endpoint.name] ? "READY" : "NOT_READY";
    isChanged ||= endpoint.state.ready !== state;
    endpoint.state.ready = state;
  }
  if (isChanged) showEndpoint(shown);
}

function showConnection(state, text) {
  const place = byId("connection");
  place.className = `connection ${state}`;
  if (place.textContent !== text) place.textContent = text;
}

function showEmpty(text, needsToken) {
  byId("empty-text").textContent = text;
  byId("enter-token").hidden = !needsToken;
  byId("empty").hidden = false;
  byId("endpoint").hidden = true;
  byId("change-token").hidden = needsToken;
}

function showEndpoint(endpoint) {
  shown = endpoint;
  history.replaceState(null, "", `?endpoint=${encodeURIComponent(endpoint.name)}`);
  document.title = `${endpoint.name} · Serving · spark_llm`;
  byId("empty").hidden = true;
  byId("endpoint").hidden = false;
  byId("change-token").hidden = false;
  byId("endpoint-name").textContent = endpoint.name;
  const models = endpoint.config.served_entities.map((entity) => entity.entity_name).join(", ");
  byId("endpoint-facts").replaceChildren(badge(endpoint), state(endpoint), html("span", { class: "muted" }, models));
  byId("endpoint-url").textContent = location.origin + invocations(endpoint.name);
  showList();
  query.show(endpoint);
  showTab(view);
}

function showView() {
  if (view === "tab-code") showCode(shown, query.text);
  if (view === "tab-live") live.show(shown.name);
}

function showList() {
  const focused = document.activeElement?.dataset?.endpoint;
  const items = endpoints.map((endpoint) => {
    const name = html("span", { class: "name" }, endpoint.name);
    const button = html("button", { type: "button", "data-endpoint": endpoint.name }, name, badge(endpoint), state(endpoint));
    if (endpoint.name === shown.name) button.setAttribute("aria-current", "true");
    button.addEventListener("click", () => showEndpoint(endpoint));
    return html("li", {}, button);
  });
  byId("endpoints").replaceChildren(...items);
  if (focused !== undefined) items.find((item) => item.firstChild.dataset.endpoint === focused)?.firstChild.focus();
}

const badge = ({ task }) => html("span", { class: "badge" }, taskLabel(task));

function state(endpoint) {
  const isReady = endpoint.state.ready === "READY";
  return html("span", { class: isReady ? "state ready" : "state" }, isReady ? "Ready" : "Stopped");
}

byId("change-token").addEventListener("click", () => askForToken("Enter another token"));
byId("enter-token").addEventListener("click", () => askForToken("Enter the token"));
addEventListener("hashchange", () => takeTokenFromAddress() && start());
document.addEventListener("visibilitychange", () => {
  if (document.hidden) stream?.abort();
  else if (hasToken()) follow();
});

takeTokenFromAddress();
start();
