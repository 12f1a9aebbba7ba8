// Server-sent events out of a byte stream: yields the data of each event that is whole.
// Source: WHATWG HTML, section 9.2.6 "Interpreting an event stream".

export async function* events(body) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  let data = [];
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    rest += value;
    // A carriage return at the end may be half of a line's end: it waits for the next read.
    const lines = rest.split(/\r\n|\n|\r(?!$)/);
    rest = lines.pop();
    for (const line of lines) {
      if (line.startsWith("data:")) {
        data.push(line.slice(line[5] === " " ? 6 : 5));
      } else if (!line && data.length) {
        yield data.join("\n");
        data = [];
      }
    }
  }
}
