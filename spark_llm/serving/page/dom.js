// Elements. Text is always set as text, so nothing that a model answers is ever read as markup.

const SVG = "http://www.w3.org/2000/svg";

/** Returns the element with this id. */
export const byId = (id) => document.getElementById(id);

/** Returns a new HTML element with attributes, and with elements and texts as its children. */
export function html(name, attributes = {}, ...children) {
  return fill(document.createElement(name), attributes, children);
}

/** Returns a new SVG element with attributes and children. */
export function svg(name, attributes = {}, ...children) {
  return fill(document.createElementNS(SVG, name), attributes, children);
}

function fill(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...children);
  return element;
}

/** Returns a button that copies the text which `read` returns, and says so. */
export function copyButton(label, read) {
  const button = html("button", { type: "button", class: "quiet" }, label);
  button.addEventListener("click", () => copy(button, read()));
  return button;
}

/** Copies a text, and says it on the button for two seconds and to screen readers. */
export async function copy(button, text) {
  const label = button.dataset.label ?? button.textContent;
  button.dataset.label = label;
  try {
    await navigator.clipboard.writeText(text);
    button.textContent = "Copied";
  } catch {
    button.textContent = "Not allowed";
  }
  announce(button.textContent);
  setTimeout(() => (button.textContent = label), 2000);
}

/** Says a text to screen readers. */
export function announce(text) {
  byId("announcement").textContent = text;
}
