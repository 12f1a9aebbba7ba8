// The server's API. Every failure becomes an `ApiError`; a fetch that was aborted stays an AbortError.
import { events } from "./events.js";

const DONE = "[DONE]";

// `code` is the server's own, or "network" or "incomplete"; `exchange` is the ledger's id of it where there is one.
export class ApiError extends Error {
  constructor(message, code, exchange = "") {
    super(message);
    this.name = "ApiError";
    this.code = code;
    this.exchange = exchange;
  }
}

// Names of the models that this key may use.
export async function listModels(key, signal) {
  const list = await read("/v1/models", key, signal);
  return list.data.map((model) => model.id);
}

// Whether an engine is down, so that models may be missing from the list. Health is told to everybody.
export async function engineIsDown(signal) {
  const response = await reach("/readyz", { signal });
  const { engines } = await jsonOf(response);
  return Object.values(engines || {}).some((state) => state !== "up");
}

// What an exchange became in the ledger.
export async function lookUp(exchange, key, signal) {
  return await read(`/rempart/v1/exchanges/${encodeURIComponent(exchange)}`, key, signal);
}

// Send a conversation. Gives the exchange's id and the pieces of the answer as they arrive.
export async function ask({ key, model, messages, signal }) {
  const response = await send("/v1/chat/completions", key, {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify({ model, messages, stream: true }),
    signal,
  });
  const exchange = response.headers.get("x-rempart-exchange") || "";
  if (!response.ok) throw await refusal(response, exchange);
  return { exchange, pieces: pieces(response.body, exchange) };
}

async function read(path, key, signal) {
  const response = await send(path, key, { signal });
  if (!response.ok) throw await refusal(response, "");
  return await response.json();
}

async function send(path, key, options) {
  // A header takes no other characters than these; fetch would report one as a failure of the network.
  if (!/^[\x21-\x7e]+$/.test(key)) throw new ApiError("", "invalid_api_key");
  return await reach(path, { ...options, headers: { ...options.headers, authorization: `Bearer ${key}` } });
}

async function reach(path, options) {
  try {
    return await fetch(path, { ...options, credentials: "omit", cache: "no-store", redirect: "error" });
  } catch (error) {
    throw asApiError(error, "");
  }
}

// An answer that is not OpenAI's shape comes from something in between, such as a proxy: its status must do.
async function refusal(response, exchange) {
  const error = (await jsonOf(response)).error || {};
  return new ApiError(error.message || `HTTP ${response.status}`, error.code || "other", exchange);
}

async function jsonOf(response) {
  const json = (response.headers.get("content-type") || "").startsWith("application/json");
  return json ? await response.json() : {};
}

async function* pieces(body, exchange) {
  let done = false;
  try {
    for await (const payload of events(body)) {
      if (payload === DONE) done = true;
      else if (!done) yield piece(JSON.parse(payload), exchange);
    }
  } catch (error) {
    throw asApiError(error, exchange);
  }
  if (!done) throw new ApiError("", "incomplete", exchange);
}

function piece(chunk, exchange) {
  if (chunk.error) throw new ApiError(chunk.error.message || "", chunk.error.code || "other", exchange);
  const choice = chunk.choices?.[0] || {};
  const delta = choice.delta || {};
  return {
    text: delta.content || "",
    thought: delta.reasoning_content || delta.reasoning || "",
    finish: choice.finish_reason || "",
  };
}

function asApiError(error, exchange) {
  if (error instanceof ApiError || error.name === "AbortError") return error;
  if (error instanceof SyntaxError) return new ApiError(error.message, "incomplete", exchange);
  return new ApiError("", "network", exchange);
}
