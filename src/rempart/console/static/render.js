// Markdown of a model, which is text of a stranger, becomes nodes that are safe to show.
// Two lines of defence: markdown-it lets no HTML through and knows no images; DOMPurify keeps only the tags named here.
// The libraries are plain scripts loaded before this module; see vendor/VENDOR.md.
import { word } from "./language.js";

const TAGS = [
  "a", "blockquote", "br", "code", "em", "h3", "h4", "h5", "h6", "hr", "li", "ol", "p", "pre", "s", "strong", "table",
  "tbody", "td", "th", "thead", "tr", "ul",
];
const ATTRIBUTES = ["class", "href", "rel", "start", "target", "title"];
// DOMPurify holds every attribute against `LINK` but those it is told are no address.
const NO_ADDRESS = ["rel", "start", "target"];
const LINK = /^(?:https?|mailto):/i;

const markdown = makeMarkdown();

// A fragment with the text's structure. No innerHTML of the page is ever set.
export function render(text) {
  return globalThis.DOMPurify.sanitize(markdown.render(text), {
    ALLOWED_TAGS: TAGS,
    ALLOWED_ATTR: ATTRIBUTES,
    ALLOWED_URI_REGEXP: LINK,
    ADD_URI_SAFE_ATTR: NO_ADDRESS,
    ALLOW_DATA_ATTR: false,
    ALLOW_ARIA_ATTR: false,
    RETURN_DOM_FRAGMENT: true,
  });
}

function makeMarkdown() {
  const made = globalThis.markdownit({ html: false, linkify: false, breaks: true });
  made.validateLink = (address) => LINK.test(address.trim());
  const rules = made.renderer.rules;
  const plain = (tokens, at, options, env, self) => self.renderToken(tokens, at, options);
  // An image would tell another server that this answer was read. Its description stays.
  rules.image = (tokens, at) => made.utils.escapeHtml(word("image", { text: tokens[at].content }));
  rules.link_open = (tokens, at, ...others) => {
    tokens[at].attrSet("rel", "noreferrer noopener");
    tokens[at].attrSet("target", "_blank");
    tokens[at].attrSet("title", tokens[at].attrGet("href"));
    return plain(tokens, at, ...others);
  };
  // The page's own headings end at h2.
  rules.heading_open = rules.heading_close = (tokens, at, ...others) => {
    tokens[at].tag = `h${Math.min(6, Number(tokens[at].tag[1]) + 2)}`;
    return plain(tokens, at, ...others);
  };
  // Alignment comes as a style attribute, which the page's policy forbids.
  rules.th_open = rules.td_open = (tokens, at, ...others) => {
    const style = tokens[at].attrGet("style");
    tokens[at].attrs = style ? [["class", style.replace("text-align:", "align-")]] : null;
    return plain(tokens, at, ...others);
  };
  return made;
}
