// The conversation: sends it, shows what comes, keeps what was said, in this page and through a reload of the tab.
import { ask, engineIsDown } from "./api.js";
import { say, word } from "./language.js";
import { showLedger } from "./ledger.js";
import { isAbort, wordOf } from "./problems.js";
import { forgetConversation, keepConversation, keptConversation } from "./tab.js";
import { Turn } from "./turn.js";
import { Welcome } from "./welcome.js";

const NEAR_END_PX = 80;

export class Chat {
  // `announce` reads out; `door.again` asks for another key, with which the conversation goes on (told whether there
  // is one); `door.retry` tries the key of this tab once more.
  constructor(announce, door) {
    this.announce = announce;
    this.door = door;
    this.turns = [];
    this.key = "";
    // `life` ends with the key or the conversation, `running` with one answer.
    this.life = new AbortController();
    this.running = null;
    this.parts = Object.fromEntries(
      ["talk", "turns", "composer", "prompt", "model", "send", "stop", "fresh"].map((id) => [id, document.getElementById(id)]),
    );
    this.welcome = new Welcome((question) => this.#exchange(question));
    this.ways = { again: (turn) => this.#again(turn), otherKey: (turn) => this.#otherKey(turn.prompt) };
    this.#listen();
  }

  // `same`: it is the key this tab had, so what was said before the page was loaded comes back. Nobody else sees it.
  open(key, models, same) {
    this.key = key;
    const chosen = this.parts.model.value;
    this.parts.model.replaceChildren(...models.map((model) => new Option(model, model)));
    this.#choose(chosen);
    this.parts.talk.hidden = false;
    if (!this.turns.length && same) this.#restore();
    if (!models.length) {
      this.#bar();
      return;
    }
    this.#welcome();
    this.parts.prompt.focus({ preventScroll: true });
    this.#keep();
  }

  close() {
    this.clear();
    this.key = "";
    this.parts.talk.hidden = true;
  }

  clear() {
    this.life.abort();
    this.life = new AbortController();
    this.#idle();
    this.turns = [];
    this.parts.turns.replaceChildren();
    this.parts.prompt.value = "";
    this.#fit();
    this.parts.fresh.hidden = true;
    this.#welcome();
    forgetConversation();
  }

  #listen() {
    const { composer, prompt, model, stop, fresh, talk } = this.parts;
    composer.addEventListener("submit", (event) => {
      event.preventDefault();
      this.#submit();
    });
    prompt.addEventListener("keydown", (event) => {
      // While a word is being composed (accents, East Asian scripts), Enter belongs to the input method.
      if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
      event.preventDefault();
      this.#submit();
    });
    prompt.addEventListener("input", () => this.#fit());
    model.addEventListener("change", () => this.#welcome());
    stop.addEventListener("click", () => this.#stop());
    talk.addEventListener("keydown", (event) => {
      if (event.key === "Escape") this.#stop();
    });
    fresh.addEventListener("click", () => {
      this.clear();
      prompt.focus();
    });
    document.getElementById("barred-again").addEventListener("click", () => this.door.retry());
    document.getElementById("barred-key").addEventListener("click", () => this.#otherKey());
    // A browser may throw a hidden tab away without a word.
    document.addEventListener("visibilitychange", () => document.hidden && this.#keep());
    window.addEventListener("pagehide", () => this.#keep());
    window.addEventListener("beforeunload", (event) => {
      if (this.running || !this.#keep()) event.preventDefault();
    });
  }

  #submit() {
    const text = this.parts.prompt.value.trim();
    if (!text || this.running) return;
    this.parts.prompt.value = "";
    this.#fit();
    this.#exchange(text);
  }

  #stop() {
    this.running?.abort();
  }

  async #exchange(prompt) {
    const model = this.parts.model.value;
    const life = this.life;
    const running = new AbortController();
    const signal = AbortSignal.any([life.signal, running.signal]);
    const messages = [...this.#history(), { role: "user", content: prompt }];
    const turn = new Turn(prompt, model, this.ways);
    this.turns.push(turn);
    this.parts.turns.append(turn.element);
    this.#busy(running);
    try {
      const answer = await ask({ key: this.key, model, messages, signal });
      turn.exchange = answer.exchange;
      await this.#follow(turn, answer.pieces, signal);
      this.announce(turn.text ? word("answer_done", { model, text: turn.answer.textContent }) : word("answer_empty"));
    } catch (error) {
      turn.exchange ||= error.exchange || "";
      if (life.signal.aborted) return;
      this.#broke(turn, error);
    }
    // Ends the connection where the server has not done so.
    running.abort();
    if (this.running === running) this.#idle();
    this.#keep();
    if (turn.exchange) await this.#ledger(turn, turn.card(), life.signal);
  }

  async #follow(turn, pieces, signal) {
    let finish = "";
    for await (const piece of pieces) {
      signal.throwIfAborted();
      turn.add(piece, this.#keepEnd());
      finish = piece.finish || finish;
    }
    const end = this.#keepEnd();
    turn.end(finish === "length" ? "cut_length" : turn.text ? "" : "answer_empty");
    end();
  }

  #broke(turn, error) {
    const end = this.#keepEnd();
    if (isAbort(error)) {
      turn.end("stopped");
      this.announce(word("stopped"));
    } else {
      turn.end("");
      this.announce(turn.fail(error));
    }
    end();
  }

  // The same question once more. The turn that failed stays on the page, and leaves the conversation.
  #again(turn) {
    if (this.running) return;
    this.turns = this.turns.filter((one) => one !== turn);
    this.#exchange(turn.prompt);
  }

  // The question that was refused waits in the field for the new key.
  #otherKey(question = "") {
    if (this.running) return;
    this.parts.prompt.value ||= question;
    this.#fit();
    this.parts.talk.hidden = true;
    this.key = "";
    this.#keep();
    this.door.again(this.turns.length > 0);
  }

  async #ledger(turn, card, signal) {
    const end = this.#keepEnd();
    await showLedger(card, turn.exchange, this.key, signal);
    end();
  }

  // What both sides said. A turn without an answer was not understood by the model, so it does not count.
  #history() {
    return this.turns
      .filter((turn) => turn.text)
      .flatMap((turn) => [{ role: "user", content: turn.prompt }, { role: "assistant", content: turn.text }]);
  }

  // False when a reload would lose something. Without a key, nobody could be given it back.
  #keep() {
    const draft = this.parts.prompt.value;
    const nothing = !this.turns.length && !draft;
    if (nothing || !this.key) {
      forgetConversation();
      return nothing;
    }
    const turns = this.turns.map((turn) => turn.record());
    return keepConversation({ turns, draft, model: this.parts.model.value });
  }

  // What stands in the ledger is looked up and checked anew, one after the other: the server is not to be stormed.
  async #restore() {
    const kept = keptConversation();
    if (!kept) return;
    this.#choose(kept.model);
    this.parts.prompt.value = kept.draft;
    this.#fit();
    this.turns = kept.turns.map((record) => Turn.of(record, this.ways));
    this.parts.turns.replaceChildren(...this.turns.map((turn) => turn.element));
    this.parts.fresh.hidden = !this.turns.length;
    const { signal } = this.life;
    const recorded = this.turns.filter((turn) => turn.exchange).map((turn) => [turn, turn.card()]);
    this.#toEnd();
    for (const [turn, card] of recorded) await this.#ledger(turn, card, signal);
  }

  #choose(model) {
    const options = [...this.parts.model.options];
    if (options.some((option) => option.value === model)) this.parts.model.value = model;
  }

  // A key may be for no model at all, or for one whose engine has not come up.
  async #bar() {
    try {
      this.welcome.bar((await engineIsDown(this.life.signal)) ? "no_engine" : "no_model");
    } catch (error) {
      if (!isAbort(error)) this.welcome.bar(wordOf(error));
    }
  }

  #welcome() {
    if (this.turns.length) this.welcome.hide();
    else this.welcome.show(this.parts.model.value);
  }

  #busy(running) {
    this.running = running;
    const { send, stop, fresh } = this.parts;
    const held = document.activeElement === send || this.welcome.holds(document.activeElement);
    send.hidden = true;
    stop.hidden = false;
    if (held) stop.focus();
    fresh.hidden = false;
    this.#welcome();
    this.announce(word("working"));
    this.#toEnd();
  }

  #idle() {
    this.running = null;
    const { send, stop, prompt } = this.parts;
    const held = document.activeElement === stop;
    stop.hidden = true;
    send.hidden = false;
    if (held) prompt.focus();
  }

  #toEnd() {
    this.parts.turns.lastElementChild?.scrollIntoView({ block: "end" });
    window.scrollTo(0, document.documentElement.scrollHeight);
  }

  // Whoever reads at the end stays there as the page grows; whoever scrolled up is left in peace.
  #keepEnd() {
    const page = document.documentElement;
    const near = page.scrollHeight - window.scrollY - window.innerHeight < NEAR_END_PX;
    return () => near && window.scrollTo(0, page.scrollHeight);
  }

  // The field grows with its text, up to the height the style sheet allows; `field-sizing` is not everywhere yet.
  #fit() {
    const { prompt } = this.parts;
    prompt.rows = Math.min(8, Math.max(1, prompt.value.split("\n").length));
  }
}
