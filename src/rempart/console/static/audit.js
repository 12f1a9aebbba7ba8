// The page for auditors: signs in, and joins the list and the view. The key is held here and nowhere else.
import { whoReads } from "./api.js";
import { List } from "./audit-list.js";
import { View } from "./audit-view.js";
import { say, word } from "./language.js";
import { makeAnnouncer, startPage } from "./page.js";
import { isOfKey, showError } from "./problems.js";

const part = (id) => document.getElementById(id);

class Page {
  constructor() {
    this.announce = makeAnnouncer();
    const refused = (error) => this.#ended(error);
    this.list = new List((exchange) => this.#open(exchange), refused);
    this.view = new View(() => this.#back(), this.announce, refused);
    part("gate-form").addEventListener("submit", (event) => {
      event.preventDefault();
      this.#signIn(part("key").value.trim());
    });
    part("sign-out").addEventListener("click", () => {
      this.#lock();
      this.announce(word("audit_signed_out"));
    });
    // A page that a browser keeps whole for "back" would keep what was shown.
    window.addEventListener("pagehide", () => this.#lock());
  }

  async #signIn(key) {
    const box = part("gate-error");
    const button = part("gate-form").querySelector("button");
    box.hidden = true;
    if (!key) {
      refuse(box, "key_missing");
      part("key").focus();
      return;
    }
    button.disabled = true;
    say(button, "gate_wait");
    try {
      this.#unlock(key, await whoReads(key));
    } catch (error) {
      if (error.code === "forbidden") refuse(box, "audit_not_allowed");
      else showError(box, error);
      part("key").setAttribute("aria-invalid", "true");
      part("key").focus();
    } finally {
      button.disabled = false;
      say(button, "gate_open");
    }
  }

  #unlock(key, reader) {
    part("key").value = "";
    part("key").removeAttribute("aria-invalid");
    part("gate").hidden = true;
    part("sign-out").hidden = false;
    say(part("role"), reader.bodies ? "audit_role_auditor" : "audit_role_admin");
    this.view.begin(key, reader);
    this.list.begin(key, reader);
  }

  #lock() {
    this.list.end();
    this.view.end();
    part("key").value = "";
    part("gate").hidden = false;
    part("sign-out").hidden = true;
    part("gate-error").hidden = true;
    part("key").focus();
  }

  // The key was revoked, or has expired.
  #ended(error) {
    if (!isOfKey(error) || error.code === "forbidden") return false;
    this.#lock();
    showError(part("gate-error"), error);
    return true;
  }

  #open(exchange) {
    part("list").hidden = true;
    this.view.show(exchange);
  }

  #back() {
    part("list").hidden = false;
    this.list.focus();
  }
}

function refuse(box, key) {
  const title = document.createElement("strong");
  say(title, key);
  box.replaceChildren(title);
  box.hidden = false;
}

startPage();
new Page();
part("key").focus();
