// Python expressions, from JSON values. An expression is a text, or a group of expressions between two brackets; `write`
// puts a group on one line if it fits.

import { isObject } from "./json.js";

const WIDTH = 88;
const STEP = "    ";

/** Returns a JSON value as an expression; JSON's escapes in strings are Python's too. */
export function literal(value) {
  if (value === null) return "None";
  if (value === true) return "True";
  if (value === false) return "False";
  if (Array.isArray(value)) return list(value.map(literal));
  if (isObject(value)) {
    const items = Object.entries(value).map(([name, each]) => prefixed(`${JSON.stringify(name)}: `, literal(each)));
    return { open: "{", items, close: "}" };
  }
  return value.rawJSON ?? JSON.stringify(value);
}

/** Returns a list of expressions. */
export const list = (items) => ({ open: "[", items, close: "]" });

/** Returns a tuple of one expression. */
export const tuple = (item) => ({ open: "(", items: [item], close: ")", comma: "," });

/** Returns a call with these arguments. */
export const call = (name, parameters) => ({ open: `${name}(`, items: parameters, close: ")" });

/** Returns the fields of an object as arguments by name. */
export const keywords = (fields) => Object.entries(fields).map(([name, value]) => keyword(name, literal(value)));

/** Returns an argument by name. */
export const keyword = (name, expression) => prefixed(`${name}=`, expression);

/** Returns an expression as text; lines after the first begin with `indent`. */
export function write(expression, indent = "") {
  const line = inline(expression, WIDTH - indent.length);
  if (line !== null) return line;
  if (typeof expression === "string") return expression;
  const { open, items, close } = expression;
  const inner = indent + STEP;
  return `${open}\n${items.map((item) => `${inner}${write(item, inner)},\n`).join("")}${indent}${close}`;
}

// Returns null if there is no room for it.
function inline(expression, room) {
  if (typeof expression === "string") return expression.length <= room ? expression : null;
  const { open, items, close, comma = "" } = expression;
  let line = open;
  for (const [at, item] of items.entries()) {
    const part = inline(item, room - line.length);
    if (part === null) return null;
    line += (at ? ", " : "") + part;
  }
  line += comma + close;
  return line.length <= room ? line : null;
}

function prefixed(prefix, expression) {
  return typeof expression === "string" ? prefix + expression : { ...expression, open: prefix + expression.open };
}
