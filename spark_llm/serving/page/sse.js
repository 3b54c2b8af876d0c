// Server-sent events, read from a response's text. `EventSource` sends no Authorization header, so `fetch` reads them.

/** Yields the data of each event in pieces of text; an event ends with an empty line. */
export async function* events(pieces) {
  let rest = "";
  for await (const piece of pieces) {
    const blocks = (rest + piece).replace(/\r\n/g, "\n").split("\n\n");
    rest = blocks.pop();
    for (const block of blocks) {
      const lines = block.split("\n").filter((line) => line.startsWith("data:"));
      if (lines.length) yield lines.map((line) => line.slice(5).replace(/^ /, "")).join("\n");
    }
  }
}
