// One turn of the conversation on the page: what was asked, what is answered, and the ledger's line.
import { ApiError } from "./api.js";
import { copyButton } from "./clipboard.js";
import { label, say, word } from "./language.js";
import { isOfKey, showError, wordOf } from "./problems.js";
import { render } from "./render.js";

// Markdown is rendered anew at most this often: a long answer would cost more the longer it grows.
const RENDER_MS = 80;
export const DEMONSTRATION = "guide";

export class Turn {
  // `ways` are what its buttons do: `again` sends the question once more, `otherKey` asks for another key.
  constructor(prompt, model, ways) {
    this.prompt = prompt;
    this.model = model;
    this.ways = ways;
    this.text = "";
    this.thought = "";
    this.how = "left";
    this.error = null;
    this.exchange = "";
    this.element = part("article", "turn");
    const you = part("h3", "who");
    say(you, "you");
    const asked = part("div", "asked");
    asked.textContent = prompt;
    const who = part("h3", "who");
    if (model === DEMONSTRATION) say(who, "who_demo", { model });
    else who.textContent = model;
    this.state = part("p", "state");
    say(this.state, "working");
    this.answer = part("div", "answer");
    this.answer.setAttribute("aria-busy", "true");
    this.foot = part("div", "foot");
    this.element.append(you, asked, who, this.answer, this.state, this.foot);
    this.timer = 0;
  }

  // What is kept of it through a reload.
  record() {
    const { prompt, model, text, thought, how, exchange } = this;
    const error = this.error && { message: this.error.message, code: this.error.code };
    return { prompt, model, text, thought, how, exchange, error };
  }

  // The turn that `record` was of.
  static of(record, ways) {
    const turn = new Turn(record.prompt, record.model, ways);
    turn.exchange = record.exchange;
    if (record.thought) turn.#think(record.thought);
    turn.text = record.text;
    turn.end(record.how);
    if (record.error) turn.fail(new ApiError(record.error.message, record.error.code));
    return turn;
  }

  // One piece of the stream.
  add(piece, shown) {
    if (piece.thought) this.#think(piece.thought);
    if (!piece.text) return;
    this.text += piece.text;
    this.timer ||= setTimeout(() => this.#draw(shown), RENDER_MS);
  }

  // No more pieces come. `key` names words about how it ended, or is empty.
  end(key) {
    clearTimeout(this.timer);
    this.how = key;
    this.#draw(() => {});
    this.answer.removeAttribute("aria-busy");
    this.state.hidden = !key;
    if (key) say(this.state, key);
    if (this.text) this.foot.append(copyButton("copy_answer", () => this.text));
  }

  // Gives what to read out.
  fail(error) {
    this.error = error;
    const box = part("div", "error");
    showError(box, error);
    this.foot.before(box);
    if (isOfKey(error)) this.foot.append(button("other_key", () => this.ways.otherKey(this)));
    else this.foot.append(button("again", () => this.ways.again(this)));
    return word(wordOf(error));
  }

  // A place for what the ledger holds of it.
  card() {
    const card = part("div", "ledger");
    card.setAttribute("role", "group");
    label(card, "ledger");
    this.element.append(card);
    return card;
  }

  #draw(shown) {
    this.timer = 0;
    this.answer.replaceChildren(render(this.text));
    if (this.text) say(this.state, "working");
    shown();
  }

  // Models that reason aloud: shown apart, closed, and never sent back.
  #think(thought) {
    if (!this.thoughts) {
      const box = part("details", "thoughts");
      const summary = document.createElement("summary");
      say(summary, "thoughts");
      this.thoughts = part("div", "thought");
      box.append(summary, this.thoughts);
      this.answer.before(box);
      say(this.state, "thinking");
    }
    this.thought += thought;
    this.thoughts.append(thought);
  }
}

function part(tag, name) {
  const element = document.createElement(tag);
  element.className = name;
  return element;
}

function button(key, press) {
  const made = part("button", "plain small");
  made.type = "button";
  say(made, key);
  made.addEventListener("click", press);
  return made;
}
