// The conversation: sends it, shows what comes, keeps what was said. It lives in this page only.
import { ask } from "./api.js";
import { say, word } from "./language.js";
import { showLedger } from "./ledger.js";
import { isAbort } from "./problems.js";
import { Turn } from "./turn.js";

const NEAR_END_PX = 80;

export class Chat {
  constructor(announce) {
    this.announce = announce;
    this.turns = [];
    this.key = "";
    // `life` ends with the key or the conversation, `running` with one answer.
    this.life = new AbortController();
    this.running = null;
    this.parts = Object.fromEntries(
      ["talk", "turns", "empty", "composer", "prompt", "model", "send", "stop", "fresh"].map((id) => [id, document.getElementById(id)]),
    );
    this.#listen();
  }

  open(key, models) {
    this.key = key;
    const options = models.map((model) => new Option(model, model));
    if (!options.length) {
      options.push(new Option("", ""));
      say(options[0], "no_model");
    }
    this.parts.model.replaceChildren(...options);
    this.parts.send.disabled = !models.length;
    this.parts.talk.hidden = false;
    this.parts.prompt.focus();
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
    this.parts.empty.hidden = false;
    this.parts.fresh.hidden = true;
  }

  #listen() {
    const { composer, prompt, stop, fresh, talk } = this.parts;
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
    stop.addEventListener("click", () => this.#stop());
    talk.addEventListener("keydown", (event) => {
      if (event.key === "Escape") this.#stop();
    });
    fresh.addEventListener("click", () => {
      this.clear();
      prompt.focus();
    });
  }

  #submit() {
    const text = this.parts.prompt.value.trim();
    if (!text || this.running || this.parts.send.disabled) return;
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
    const turn = new Turn(prompt, model);
    this.turns.push(turn);
    this.parts.turns.append(turn.element);
    this.#busy(running);
    let exchange = "";
    try {
      const answer = await ask({ key: this.key, model, messages, signal });
      exchange = answer.exchange;
      await this.#follow(turn, answer.pieces, signal);
      this.announce(turn.text ? word("answer_done", { model, text: turn.answer.textContent }) : word("answer_empty"));
    } catch (error) {
      exchange ||= error.exchange || "";
      if (life.signal.aborted) return;
      this.#broke(turn, error);
    }
    // Ends the connection where the server has not done so.
    running.abort();
    if (this.running === running) this.#idle();
    if (exchange) await this.#ledger(turn, exchange, life.signal);
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
      this.announce(turn.fail(error, () => this.#again(turn)));
    }
    end();
  }

  // The same question once more. The turn that failed stays on the page, and leaves the conversation.
  #again(turn) {
    if (this.running) return;
    this.turns = this.turns.filter((one) => one !== turn);
    this.#exchange(turn.prompt);
  }

  async #ledger(turn, exchange, signal) {
    const card = turn.card();
    const end = this.#keepEnd();
    await showLedger(card, exchange, this.key, signal);
    end();
  }

  // What both sides said. A turn without an answer was not understood by the model, so it does not count.
  #history() {
    return this.turns
      .filter((turn) => turn.text)
      .flatMap((turn) => [{ role: "user", content: turn.prompt }, { role: "assistant", content: turn.text }]);
  }

  #busy(running) {
    this.running = running;
    const { send, stop, empty, fresh, turns } = this.parts;
    const held = document.activeElement === send;
    send.hidden = true;
    stop.hidden = false;
    if (held) stop.focus();
    empty.hidden = true;
    fresh.hidden = false;
    this.announce(word("working"));
    turns.lastElementChild.scrollIntoView({ block: "end" });
    window.scrollTo(0, document.documentElement.scrollHeight);
  }

  #idle() {
    this.running = null;
    const { send, stop, prompt } = this.parts;
    const held = document.activeElement === stop;
    stop.hidden = true;
    send.hidden = false;
    if (held) prompt.focus();
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
