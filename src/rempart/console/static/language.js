// The language of the page. An element remembers which words it shows, so that a switch can say them anew.
import { WORDS } from "./words.js";
import { recall, remember } from "./storage.js";

const REMEMBERED = "rempart.language";

export function startLanguage() {
  const remembered = recall("localStorage", REMEMBERED);
  const wanted = remembered || navigator.language.slice(0, 2).toLowerCase();
  use(wanted in WORDS ? wanted : "en");
}

export function switchLanguage() {
  const next = language() === "en" ? "fr" : "en";
  remember("localStorage", REMEMBERED, next);
  use(next);
}

export function language() {
  return document.documentElement.lang;
}

// The words for `key`, with each {name} replaced by its value.
export function word(key, values = {}) {
  return typeset(WORDS[language()][key]).replace(/\{(\w+)\}/g, (_, name) => values[name]);
}

export function hasWord(key) {
  return Object.hasOwn(WORDS.en, key);
}

// Show words in an element, now and after every switch of language.
export function say(element, key, values = {}) {
  element.dataset.word = key;
  element.dataset.values = JSON.stringify(values);
  element.textContent = word(key, values);
}

// Take the words away, and the values that stood in them.
export function unsay(element) {
  delete element.dataset.word;
  delete element.dataset.values;
  element.replaceChildren();
}

// Name an element for screen readers, in either language.
export function label(element, key) {
  element.dataset.wordLabel = key;
  element.setAttribute("aria-label", word(key));
}

// French sets a space before high punctuation and inside its quotation marks, at which no line may break.
function typeset(text) {
  return language() === "fr" ? text.replace(/ (?=[;:?!»])|(?<=«) /g, "\u00a0") : text;
}

function use(code) {
  document.documentElement.lang = code;
  for (const element of document.querySelectorAll("[data-word]")) {
    element.textContent = word(element.dataset.word, JSON.parse(element.dataset.values || "{}"));
  }
  for (const element of document.querySelectorAll("[data-word-placeholder]")) {
    element.placeholder = word(element.dataset.wordPlaceholder);
  }
  for (const element of document.querySelectorAll("[data-word-label]")) {
    element.setAttribute("aria-label", word(element.dataset.wordLabel));
  }
}
