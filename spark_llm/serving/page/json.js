// JSON as a person types it: where it is wrong, and numbers as they were written.

const NUMBER = /-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?/y;
const WORD = /[A-Za-z_]+/y;
const LITERALS = ["true", "false", "null"];
const ESCAPE = /\\(?:["\\/bfnrt]|u[0-9a-fA-F]{4})/y;

/** Returns the value of a JSON text; numbers stay as written (1.0, a seed of 19 digits) where the browser can. */
export function parseExactly(text) {
  if (!JSON.rawJSON) return JSON.parse(text);
  return JSON.parse(text, (_, value, context) => (typeof value === "number" ? JSON.rawJSON(context.source) : value));
}

/** Returns null for JSON, else the first mistake: its offset, line and column (from 1), and a message. */
export function findMistake(text) {
  const mistake = scan(text);
  if (mistake === null) return null;
  const before = text.slice(0, mistake.offset);
  const lineStart = before.lastIndexOf("\n") + 1;
  return { ...mistake, line: before.split("\n").length, column: mistake.offset - lineStart + 1 };
}

// `JSON.parse` tells no place in most browsers, and builds a value of megabytes. This keeps only the closing brackets that
// are due, so depth costs little. `next` is what may stand at the place that it has reached.
function scan(text) {
  const open = [];
  let next = "value";
  let at = 0;
  const mistake = (message, offset = at) => ({ offset, message });
  const inside = () => open[open.length - 1];
  for (;;) {
    while (" \t\n\r".includes(text[at] ?? "x")) at += 1;
    if (at >= text.length) {
      if (next === "end of value" && open.length === 0) return null;
      if (text.trim() === "") return mistake("The body is empty.");
      return mistake(open.length ? `The text ends before a closing ${inside()}.` : "The text ends before a value.");
    }
    const char = text[at];
    if (next === "end of value") {
      if (open.length === 0) return mistake("Nothing may follow the value.");
      if (char === ",") next = inside() === "}" ? "key" : "value";
      else if (char === inside()) open.pop();
      else return mistake(`A comma or ${inside()} is missing here.`);
      at += 1;
    } else if (next === "colon") {
      if (char !== ":") return mistake("A colon is missing after the name.");
      next = "value";
      at += 1;
    } else if (char === inside() && next.startsWith("first")) {
      open.pop();
      next = "end of value";
      at += 1;
    } else if (char === inside() && (next === "key" || text.slice(0, at).trimEnd().endsWith(","))) {
      return mistake(`No comma may stand before ${char}.`);
    } else if (char === '"') {
      const end = endOfString(text, at);
      if (end.message) return mistake(end.message, end.offset);
      at = end.offset;
      next = next.endsWith("key") ? "colon" : "end of value";
    } else if (next.endsWith("key")) {
      return mistake("A name in double quotes is missing here.");
    } else if (char === "{" || char === "[") {
      open.push(char === "{" ? "}" : "]");
      next = char === "{" ? "first key" : "first value";
      at += 1;
    } else {
      const end = endOfWord(text, at);
      if (end.message) return mistake(end.message);
      at = end.offset;
      next = "end of value";
    }
  }
}

function endOfString(text, start) {
  for (let at = start + 1; at < text.length; at += 1) {
    const char = text[at];
    if (char === '"') return { offset: at + 1 };
    if (char === "\n") return { offset: at, message: "The string does not end on its line." };
    if (char < " ") return { offset: at, message: "A control character in a string is written as \\u and four digits." };
    if (char === "\\") {
      ESCAPE.lastIndex = at;
      if (!ESCAPE.test(text)) return { offset: at, message: "No such escape: a backslash is written \\\\." };
      at = ESCAPE.lastIndex - 1;
    }
  }
  return { offset: text.length, message: "The string does not end." };
}

function endOfWord(text, at) {
  NUMBER.lastIndex = at;
  if (NUMBER.test(text)) return { offset: NUMBER.lastIndex };
  WORD.lastIndex = at;
  const word = WORD.exec(text)?.[0];
  if (LITERALS.includes(word)) return { offset: at + word.length };
  if (text[at] === "'") return { message: "Strings have double quotes." };
  if (word) return { message: `${word.slice(0, 20)} is no value: strings have quotes; true, false and null are small.` };
  return { message: "A value is missing here." };
}

/** Returns whether a value is an object with names, and neither a list nor a number as it was written. */
export function isObject(value) {
  return typeof value === "object" && value !== null && !Array.isArray(value) && !JSON.isRawJSON?.(value);
}
