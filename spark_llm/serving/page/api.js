// What the page asks of its server. The token lives here, in memory, and leaves only in the Authorization header.

import { events } from "./sse.js";

/** The server refuses the token: it is wrong, expired or revoked. */
export class TokenRefused extends Error {}

/** The server does not answer. */
export class Unreachable extends Error {}

let token = "";

/** Keeps a token for all further requests, or forgets it: "". */
export function setToken(value) {
  token = value;
}

/** Returns whether the page has a token. */
export const hasToken = () => token !== "";

/** Returns whether a text can be a token: printable ASCII without blanks, as a header carries it. */
export const canBeToken = (text) => /^[!-~]+$/.test(text);

/** Returns the endpoints, as the workspace's list describes them. */
export async function listEndpoints() {
  const response = await ask("/api/2.0/serving-endpoints");
  return (await response.json()).endpoints;
}

/** Yields what the server counts, once a second, until it ends the stream. */
export async function* liveStats(signal) {
  const response = await ask("/stats", { headers: { Accept: "text/event-stream" }, signal });
  for await (const data of events(chunks(response))) yield JSON.parse(data);
}

/** Posts a request body to an endpoint as it is, and returns the response, whatever its status. */
export function query(name, body, signal) {
  const headers = { "Content-Type": "application/json" };
  return send(invocations(name), { method: "POST", headers, body, signal });
}

/** Returns the path of an endpoint's invocations. */
export const invocations = (name) => `/serving-endpoints/${encodeURIComponent(name)}/invocations`;

/** Yields the pieces of a response's text as they come; throws `Unreachable` if it breaks off. */
export async function* chunks(response) {
  const decoder = new TextDecoder();
  const reader = response.body.getReader();
  try {
    for (let read = await reader.read(); !read.done; read = await reader.read()) {
      yield decoder.decode(read.value, { stream: true });
    }
  } catch (error) {
    throw error.name === "AbortError" ? error : new Unreachable(error.message);
  }
  yield decoder.decode();
}

async function ask(path, options) {
  const response = await send(path, options);
  if (response.status === 401 || response.status === 403) throw new TokenRefused(await response.text());
  if (!response.ok) throw new Unreachable(`${path} answers ${response.status}`);
  return response;
}

async function send(path, options = {}) {
  const headers = { ...options.headers, Authorization: `Bearer ${token}` };
  try {
    return await fetch(path, { ...options, headers, cache: "no-store", credentials: "omit", redirect: "error" });
  } catch (error) {
    throw error.name === "AbortError" ? error : new Unreachable(error.message);
  }
}
