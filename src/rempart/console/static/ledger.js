// The line beneath an answer: what the exchange became in the ledger, and what this browser's own check of it found.
import { lookUp } from "./api.js";
import { copyButton } from "./clipboard.js";
import { hasWord, say } from "./language.js";
import { isAbort, showError } from "./problems.js";
import { check, keyIsKnown } from "./proof.js";

// A signed checkpoint follows an exchange within about a second.
const PAUSES_MS = [150, 250, 400, 600, 800, 1000, 1000, 1000];
// How each finding looks; the words are `ledger_<finding>`, and those that say more are `ledger_<finding>_why`.
const LOOKS = { done: "done", unsigned: "done", unchecked: "waiting", broken: "failed", other_key: "failed" };

// Fill `card` with what the ledger holds of `exchange`; asks until a checkpoint covers it, for about five seconds.
export async function showLedger(card, exchange, key, signal) {
  card.replaceChildren(line("ledger_wait", "waiting"));
  const again = () => button("ledger_check", () => showLedger(card, exchange, key, signal));
  try {
    const trace = await settled(exchange, key, signal);
    if (covered(trace)) card.replaceChildren(await found(trace, exchange));
    else card.replaceChildren(receipt(line("ledger_late", "waiting"), [idOf(exchange)]), again());
  } catch (error) {
    if (isAbort(error)) return;
    if (error.code === "not_found") {
      card.replaceChildren(receipt(line("ledger_gone", "waiting"), [why("ledger_gone_why"), idOf(exchange)]));
      return;
    }
    const box = document.createElement("div");
    box.className = "error";
    showError(box, error);
    card.replaceChildren(receipt(line("ledger_failed", "failed"), [box, idOf(exchange)]), again());
  }
}

// A request that was stopped gets its response entry a moment later.
function covered(trace) {
  return trace.integrated && trace.entries.some((entry) => entry.type === "response");
}

async function settled(exchange, key, signal) {
  let trace = await lookUp(exchange, key, signal);
  for (const pause of PAUSES_MS) {
    if (covered(trace)) break;
    await new Promise((resolve) => setTimeout(resolve, pause));
    trace = await lookUp(exchange, key, signal);
  }
  return trace;
}

// The line and its details for a trace that a checkpoint covers, after this browser has checked it.
export async function found(trace, exchange) {
  const { finding, checkpoint } = await judged(trace, exchange);
  const alone = trace.entries.length === 1 && hasWord(`ledger_${finding}_one`) ? "_one" : "";
  const head = line(`ledger_${finding}${alone}`, LOOKS[finding], { entries: numbers(trace.entries.map((one) => one.index)) });
  const box = receipt(head, [why(`ledger_${finding}_why`), facts(exchange, trace, checkpoint)]);
  if (LOOKS[finding] === "failed") head.setAttribute("role", "alert");
  return box;
}

// The server is not taken at its word: this browser checks the proofs, and that the key is the one it saw first.
// `checkpoint` is the one that was checked; only where nothing could be, it is what the server says.
async function judged(trace, exchange) {
  const told = trace.checkpoint;
  if (!globalThis.crypto.subtle) return { finding: "unchecked", checkpoint: told };
  try {
    const { signed, checkpoint } = await check(trace, exchange);
    if (!(await keyIsKnown(trace))) return { finding: "other_key", checkpoint };
    return { finding: signed ? "done" : "unsigned", checkpoint };
  } catch (error) {
    console.info("The proof does not hold.", error);
    return { finding: "broken", checkpoint: told };
  }
}

// "100–101" where nothing lies between, else "100, 105".
function numbers(indexes) {
  const run = indexes.every((index, at) => index === indexes[0] + at);
  return run && indexes.length > 1 ? `${indexes[0]}–${indexes.at(-1)}` : indexes.join(", ");
}

function line(key, look, values) {
  const element = document.createElement("span");
  element.className = `ledger-line ${look}`;
  say(element, key, values);
  return element;
}

// One line, and the rest under it.
function receipt(head, rest) {
  const box = document.createElement("details");
  const summary = document.createElement("summary");
  const more = document.createElement("span");
  more.className = "ledger-more";
  say(more, "ledger_details");
  summary.append(head, " ", more);
  const inside = document.createElement("div");
  inside.className = "ledger-inside";
  inside.append(...rest);
  box.append(summary, inside);
  return box;
}

function why(key) {
  const element = document.createElement("p");
  say(element, key);
  return element;
}

function button(key, press) {
  const made = document.createElement("button");
  made.type = "button";
  made.className = "plain small";
  say(made, key);
  made.addEventListener("click", press);
  return made;
}

function facts(exchange, trace, { origin, size, root }) {
  const list = idOf(exchange);
  for (const type of ["request", "response"]) {
    const entry = trace.entries.find((one) => one.type === type);
    if (entry) list.append(fact(`ledger_${type}`, type, String(entry.index)));
  }
  list.append(fact("ledger_size", "size", String(size)), fact("ledger_origin", "origin", origin));
  list.append(wide(fact("ledger_root", "root", root, copyButton("ledger_copy_root", () => root))));
  for (const entry of trace.entries) {
    list.append(wide(fact(`ledger_leaf_${entry.type}`, `leaf-${entry.type}`, entry.leaf_hash)));
  }
  return list;
}

// A list of facts that begins with the id: what `rempart ledger show` takes.
function idOf(exchange) {
  const list = document.createElement("dl");
  list.className = "facts";
  list.append(wide(fact("ledger_exchange", "exchange", exchange, copyButton("ledger_copy_exchange", () => exchange))));
  return list;
}

function wide(pair) {
  pair.className = "wide";
  return pair;
}

function fact(key, field, text, ...more) {
  const pair = document.createElement("div");
  const name = document.createElement("dt");
  say(name, key);
  const value = document.createElement("dd");
  const code = document.createElement("code");
  code.dataset.field = field;
  code.textContent = text;
  value.append(code, ...more);
  pair.append(name, value);
  return pair;
}
