// One exchange: its entries, this browser's check of their proofs, and for auditors what was said.
import { disclose, showExchange } from "./api.js";
import { found } from "./ledger.js";
import { say, unsay, word } from "./language.js";
import { isAbort, showError } from "./problems.js";
import { spoken } from "./audit-said.js";

const part = (id) => document.getElementById(id);
// What is told first of an entry, in this order; all the rest lies under "All fields".
const TOLD = [
  "time", "model", "operation", "outcome", "error", "status", "tokens_prompt", "tokens_completion", "actor", "role",
  "key", "verb", "about", "found", "bodies", "second",
];

export class View {
  // `back` is called when the view was left; `ended` gets an error and says whether the session is over by it.
  constructor(back, announce, ended) {
    this.announce = announce;
    this.ended = ended;
    this.asking = new AbortController();
    part("back").addEventListener("click", () => {
      this.#clear();
      back();
    });
    part("reason-form").addEventListener("submit", (event) => {
      event.preventDefault();
      this.#disclose();
    });
  }

  begin(key, reader) {
    this.key = key;
    this.reader = reader;
    part("said-not").hidden = reader.bodies;
    part("reason-form").hidden = !reader.bodies;
    part("second-field").hidden = !reader.four_eyes;
  }

  end() {
    this.#clear();
    this.key = "";
  }

  async show(exchange) {
    this.#clear();
    this.exchange = exchange;
    part("view").hidden = false;
    say(part("view-title"), "audit_exchange", { id: exchange });
    part("view-title").focus();
    const { signal } = this.asking;
    try {
      const trace = await showExchange(this.key, exchange, signal);
      const proof = await proved(trace, exchange);
      if (signal.aborted) return;
      part("entries").replaceChildren(...trace.entries.map((entry, at) => this.#entry(entry, trace.proofs[at])), proof);
      part("said").hidden = false;
    } catch (error) {
      if (isAbort(error) || this.ended(error)) return;
      showError(part("view-error"), error);
      if (error.code === "not_found") say(part("view-error").querySelector("strong"), "audit_gone_exchange");
    }
  }

  #clear() {
    this.asking.abort();
    this.asking = new AbortController();
    this.exchange = "";
    part("view").hidden = true;
    unsay(part("view-title"));
    for (const id of ["entries", "bodies"]) part(id).replaceChildren();
    for (const id of ["reason", "second"]) part(id).value = "";
    for (const id of ["said", "view-error", "reason-error"]) part(id).hidden = true;
  }

  #entry(entry, proof) {
    const box = document.createElement("section");
    box.className = "entry";
    const title = document.createElement("h3");
    say(title, `audit_entry_${entry.type}`, { index: entry.index });
    const save = document.createElement("button");
    save.type = "button";
    save.className = "plain small";
    say(save, "audit_save", { index: entry.index });
    save.addEventListener("click", () => {
      download(`${entry.index}.tlog-proof`, proofFile(proof));
      this.announce(word("audit_saved", { index: entry.index }));
    });
    const rest = document.createElement("details");
    const summary = document.createElement("summary");
    summary.className = "hint";
    say(summary, "audit_fields");
    const { fields } = entry;
    rest.append(summary, facts(fields, Object.keys(fields).filter((name) => !TOLD.includes(name))));
    box.append(title, facts(fields, TOLD.filter((name) => name in fields && fields[name] !== "")), rest, save);
    return box;
  }

  async #disclose() {
    const [reason, second] = ["reason", "second"].map((id) => part(id).value.trim());
    const problem = !reason ? "reason" : this.reader.four_eyes && !second ? "second" : "";
    part("reason-error").hidden = !problem;
    if (problem) {
      const title = document.createElement("strong");
      say(title, `audit_${problem}_missing`);
      part("reason-error").replaceChildren(title);
      part(problem).focus();
      return;
    }
    const button = part("reason-form").querySelector("button");
    button.disabled = true;
    const { signal } = this.asking;
    try {
      const told = await disclose(this.key, this.exchange, reason, second, signal);
      if (signal.aborted) return;
      part("second").value = "";
      part("bodies").replaceChildren(...spoken(told));
      part("bodies").focus();
    } catch (error) {
      // With four eyes it may be the second key that is refused: the session goes on.
      if (isAbort(error) || (!second && this.ended(error))) return;
      showError(part("reason-error"), error);
    } finally {
      button.disabled = false;
    }
  }
}

async function proved(trace, exchange) {
  const box = document.createElement("section");
  box.className = "entry";
  const title = document.createElement("h3");
  say(title, "audit_proof");
  const card = document.createElement("div");
  card.className = "ledger";
  card.append(await found(trace, exchange));
  box.append(title, card);
  return box;
}

function facts(fields, names) {
  const list = document.createElement("dl");
  list.className = "facts";
  for (const name of names) {
    const pair = document.createElement("div");
    const term = document.createElement("dt");
    term.textContent = name;
    const value = document.createElement("dd");
    const code = document.createElement("code");
    code.textContent = typeof fields[name] === "object" ? JSON.stringify(fields[name]) : String(fields[name]);
    value.append(code);
    pair.append(term, value);
    list.append(pair);
  }
  return list;
}

// C2SP tlog-proof: what `rempart ledger prove` writes, byte for byte.
function proofFile(proof) {
  const extra = btoa(String.fromCharCode(...new TextEncoder().encode(proof.entry)));
  const bytes = (hash) => hash.match(/../g).map((pair) => parseInt(pair, 16));
  const hashes = proof.hashes.map((hash) => btoa(String.fromCharCode(...bytes(hash))));
  const head = ["c2sp.org/tlog-proof@v1", `extra ${extra}`, `index ${proof.index}`];
  return [...head, ...hashes, "", proof.checkpoint].join("\n");
}

function download(name, text) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([text], { type: "application/octet-stream" }));
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 0);
}
