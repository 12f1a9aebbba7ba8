// The card beneath an answer: what the exchange became in the ledger.
import { lookUp } from "./api.js";
import { copyButton } from "./clipboard.js";
import { say } from "./language.js";
import { isAbort, wordOf } from "./problems.js";
import { check, keyIsTheSame } from "./proof.js";

// A signed checkpoint follows an exchange within about a second.
const PAUSES_MS = [150, 250, 400, 600, 800, 1000, 1000, 1000];
const SHORT = 8;

// Fill `card` with what the ledger holds of `exchange`; asks until a checkpoint covers it, for about five seconds.
export async function showLedger(card, exchange, key, signal) {
  card.replaceChildren(line("ledger_wait", "waiting"));
  try {
    const trace = await settled(exchange, key, signal);
    if (covered(trace)) card.replaceChildren(await judged(trace), facts(trace), details(trace));
    else card.replaceChildren(line("ledger_late", "waiting"), again(card, exchange, key, signal));
  } catch (error) {
    if (isAbort(error)) return;
    card.replaceChildren(line("ledger_failed", "failed"), line(wordOf(error), ""), again(card, exchange, key, signal));
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

// The server is not taken at its word: this browser checks the proofs, and that the key is the one it saw first.
async function judged(trace) {
  try {
    const signed = await check(trace);
    if (!keyIsTheSame(trace.vkey)) return line("ledger_other_key", "failed");
    return line(signed === "signed" ? "ledger_done" : "ledger_unsigned", "done");
  } catch (error) {
    console.info("The proof does not hold.", error);
    return line("ledger_broken", "failed");
  }
}

function line(key, state) {
  const element = document.createElement("p");
  element.className = state && `ledger-line ${state}`;
  say(element, key);
  return element;
}

function again(card, exchange, key, signal) {
  const button = document.createElement("button");
  button.type = "button";
  button.className = "plain small";
  say(button, "ledger_check");
  button.addEventListener("click", () => showLedger(card, exchange, key, signal));
  return button;
}

function facts(trace) {
  const { origin, size, root } = trace.checkpoint;
  const list = document.createElement("dl");
  list.className = "facts";
  for (const type of ["request", "response"]) {
    const entry = trace.entries.find((one) => one.type === type);
    if (entry) list.append(fact(`ledger_${type}`, type, String(entry.index)));
  }
  list.append(fact("ledger_size", "size", String(size)));
  list.append(fact("ledger_origin", "origin", origin));
  const shown = fact("ledger_root", "root", `${root.slice(0, SHORT)}…${root.slice(-SHORT)}`);
  shown.lastChild.title = root;
  shown.lastChild.append(" ", copyButton("ledger_copy_root", () => root));
  list.append(shown);
  return list;
}

function details(trace) {
  const box = document.createElement("details");
  const summary = document.createElement("summary");
  say(summary, "ledger_details");
  const list = document.createElement("dl");
  list.className = "whole";
  list.append(fact("ledger_exchange", "exchange", trace.exchange), fact("ledger_root", "whole-root", trace.checkpoint.root));
  for (const entry of trace.entries) {
    list.append(fact(`ledger_leaf_${entry.type}`, `leaf-${entry.type}`, entry.leaf_hash));
  }
  box.append(summary, list);
  return box;
}

function fact(key, field, text) {
  const pair = document.createElement("div");
  const name = document.createElement("dt");
  say(name, key);
  const value = document.createElement("dd");
  const code = document.createElement("code");
  code.dataset.field = field;
  code.textContent = text;
  value.append(code);
  pair.append(name, value);
  return pair;
}
