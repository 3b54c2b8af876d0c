// The token: from the address's fragment, which is removed at once, or from the user. It is kept in memory only.

import { canBeToken, setToken } from "./api.js";
import { byId } from "./dom.js";

/** Takes the token out of the address, if it has one, and returns whether it had. */
export function takeTokenFromAddress() {
  const fragment = new URLSearchParams(location.hash.slice(1));
  const token = fragment.get("token");
  if (token === null) return false;
  history.replaceState(null, "", location.pathname + location.search);
  setToken(canBeToken(token) ? token : "");
  return true;
}

/** Makes the dialog work; calls `onToken` when the user has entered a token, and returns the function that asks. */
export function makeSignIn(onToken) {
  const dialog = byId("sign-in");
  const input = byId("token");
  byId("cancel").addEventListener("click", () => dialog.close());
  dialog.addEventListener("close", () => (input.value = ""));
  byId("sign-in-form").addEventListener("submit", (event) => {
    event.preventDefault();
    const token = input.value.trim();
    if (!canBeToken(token)) {
      byId("token-error").textContent = token ? "A token has no blanks and only ASCII characters." : "Paste the token.";
      input.focus();
      return;
    }
    setToken(token);
    dialog.close();
    onToken();
  });
  return (title, problem = "") => {
    byId("sign-in-title").textContent = title;
    byId("token-error").textContent = problem;
    if (!dialog.open) dialog.showModal();
    input.focus();
  };
}
