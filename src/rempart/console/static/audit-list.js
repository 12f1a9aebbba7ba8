// The list: a search, its filters, and the exchanges that were found.
import { searchLedger } from "./api.js";
import { say, unsay } from "./language.js";
import { isAbort, showError } from "./problems.js";

const part = (id) => document.getElementById(id);
const FILTERS = ["query", "from", "to", "model", "outcome"];
const PLACES = ["places-reason", "places-second"];

export class List {
  // `open` gets the id of an exchange; `ended` gets an error and says whether the session is over by it.
  constructor(open, ended) {
    this.open = open;
    this.ended = ended;
    this.key = "";
    this.asking = new AbortController();
    part("search-form").addEventListener("submit", (event) => {
      event.preventDefault();
      this.#begin();
    });
    part("more").addEventListener("click", () => this.#ask(this.next));
  }

  begin(key, reader) {
    this.key = key;
    this.reader = reader;
    part("places").hidden = !reader.bodies;
    part("places-second-field").hidden = !reader.four_eyes;
    part("list").hidden = false;
    part("query").focus();
  }

  end() {
    this.asking.abort();
    this.key = "";
    part("list").hidden = true;
    this.wanted = null;
    for (const id of [...FILTERS, ...PLACES]) part(id).value = "";
    part("search-error").hidden = true;
    this.#clear();
    say(part("state"), "audit_start");
  }

  // Back from an exchange: to the row that led there.
  focus() {
    (this.opened?.isConnected ? this.opened : part("query")).focus();
  }

  #begin() {
    const { query, problem: wrong } = asked();
    const [reason, second] = this.reader.bodies ? PLACES.map((id) => part(id).value.trim()) : ["", ""];
    const problem = wrong || (reason && this.reader.four_eyes && !second ? "audit_second_missing" : "");
    part("search-error").hidden = !problem;
    if (problem) {
      const title = document.createElement("strong");
      say(title, problem);
      part("search-error").replaceChildren(title);
      part(problem === "audit_second_missing" ? "places-second" : "query").focus();
      return;
    }
    this.wanted = { query, reason, second };
    this.#clear();
    this.#ask(null);
  }

  #clear() {
    this.count = 0;
    this.next = null;
    this.opened = null;
    part("results").replaceChildren();
    part("warnings").replaceChildren();
    part("scroll").hidden = true;
    part("more").hidden = true;
  }

  async #ask(below) {
    this.asking.abort();
    this.asking = new AbortController();
    const { signal } = this.asking;
    part("search-error").hidden = true;
    say(part("state"), "gate_wait");
    try {
      const found = await searchLedger(this.key, this.wanted, below, signal);
      if (!signal.aborted) this.#show(found);
    } catch (error) {
      // With four eyes it may be the second key that is refused: the session goes on.
      if (isAbort(error) || (!this.wanted?.second && this.ended(error))) return;
      unsay(part("state"));
      showProblem(part("search-error"), error);
    }
  }

  #show(found) {
    const first = this.count;
    part("results").append(...found.results.map((hit) => this.#row(hit)));
    this.count += found.results.length;
    this.next = found.next;
    part("scroll").hidden = !this.count;
    part("more").hidden = found.next === null;
    say(part("state"), stateOf(this.count, found.next), { count: this.count });
    part("warnings").replaceChildren(...warnings(found));
    if (first && found.results.length) part("results").children[first].querySelector("button").focus();
  }

  #row(hit) {
    const row = document.createElement("tr");
    const opener = document.createElement("button");
    opener.type = "button";
    opener.className = "link";
    opener.textContent = hit.exchange;
    opener.addEventListener("click", () => {
      this.opened = opener;
      this.open(hit.exchange);
    });
    const time = document.createElement("time");
    time.dateTime = hit.time;
    time.textContent = hit.time.slice(0, 19).replace("T", " ");
    const read = document.createElement("span");
    if (hit.type === "read") say(read, "audit_type_read");
    else read.textContent = hit.outcome;
    const who = document.createElement("code");
    who.textContent = hit.actor || hit.role;
    for (const content of [[time], [opener, ...told(hit.snippet)], [hit.model], [read], [who, ...told(hit.identity)]]) {
      const cell = document.createElement("td");
      cell.append(...content);
      row.append(cell);
    }
    return row;
  }
}

// What only a stated reason shows of a result.
function told(text) {
  if (!text) return [];
  const line = document.createElement("p");
  line.className = "told";
  line.textContent = text;
  return [line];
}

function stateOf(count, next) {
  if (!count) return "audit_nothing";
  if (next !== null) return "audit_found_more";
  return count === 1 ? "audit_found_one" : "audit_found";
}

// The query with its filters as the server takes it, or what is wrong with it.
function asked() {
  const [words, from, to, model, outcome] = FILTERS.map((id) => part(id).value.trim());
  if (from && to && from > to) return { problem: "audit_dates_wrong" };
  const parts = [words];
  if (from) parts.push(`after:${from}`);
  if (to) parts.push(`before:${dayAfter(to)}`);
  if (model) parts.push(`model:"${model.replaceAll('"', "")}"`);
  if (outcome) parts.push(`outcome:${outcome}`);
  const query = parts.filter(Boolean).join(" ");
  return query ? { query } : { problem: "audit_query_missing" };
}

function dayAfter(day) {
  const date = new Date(`${day}T00:00:00Z`);
  date.setUTCDate(date.getUTCDate() + 1);
  return date.toISOString().slice(0, 10);
}

// What a reader must know to judge the list.
function warnings(found) {
  const told = [];
  if (found.behind) told.push(["audit_behind", { count: found.behind }]);
  if (found.missing) told.push(["audit_incomplete", {}]);
  if (found.unreadable) told.push(["audit_unreadable", { count: found.unreadable }]);
  return told.map(([key, values]) => {
    const line = document.createElement("p");
    say(line, key, values);
    return line;
  });
}

// Of a query that is not one the server says where it is wrong: that is shown at once.
function showProblem(box, error) {
  showError(box, error);
  if (error.code !== "invalid_request") return;
  say(box.querySelector("strong"), "audit_query_wrong");
  box.querySelector("details").open = true;
}
