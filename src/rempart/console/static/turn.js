// One turn of the conversation on the page: what was asked, what is answered, and the ledger's card.
import { copyButton } from "./clipboard.js";
import { label, say } from "./language.js";
import { showError } from "./problems.js";
import { render } from "./render.js";

// Markdown is rendered anew at most this often: a long answer would cost more the longer it grows.
const RENDER_MS = 80;

export class Turn {
  constructor(prompt, model) {
    this.prompt = prompt;
    this.text = "";
    this.element = part("article", "turn");
    const you = part("h3", "who");
    say(you, "you");
    const asked = part("div", "asked");
    asked.textContent = prompt;
    const who = part("h3", "who");
    who.textContent = model;
    this.state = part("p", "state");
    say(this.state, "working");
    this.answer = part("div", "answer");
    this.answer.setAttribute("aria-busy", "true");
    this.foot = part("div", "foot");
    this.element.append(you, asked, who, this.answer, this.state, this.foot);
    this.timer = 0;
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
    this.#draw(() => {});
    this.answer.removeAttribute("aria-busy");
    this.state.hidden = !key;
    if (key) say(this.state, key);
    if (this.text) this.foot.append(copyButton("copy_answer", () => this.text));
  }

  fail(error, again) {
    const box = part("p", "error");
    showError(box, error);
    const button = part("button", "plain small");
    button.type = "button";
    say(button, "again");
    button.addEventListener("click", again);
    this.foot.before(box);
    this.foot.append(button);
    return box.textContent;
  }

  // A place for the ledger's card.
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
    this.thoughts.append(thought);
  }
}

function part(tag, name) {
  const element = document.createElement(tag);
  element.className = name;
  return element;
}
