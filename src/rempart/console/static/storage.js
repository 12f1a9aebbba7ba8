// What this browser keeps: some things for the tab (sessionStorage), some for longer (localStorage).

const memory = { localStorage: new Map(), sessionStorage: new Map() };

// A browser may forbid storage by policy; reading the property then throws. The page works on, until it is reloaded.
function allowed(area) {
  try {
    return window[area];
  } catch (error) {
    console.info("Storage is forbidden here, so nothing outlives this page.", error.name);
    return null;
  }
}

export function recall(area, name) {
  const store = allowed(area);
  return (store ? store.getItem(name) : memory[area].get(name)) || "";
}

// True when it outlives this page.
export function remember(area, name, value) {
  const store = allowed(area);
  if (!store) {
    memory[area].set(name, value);
    return false;
  }
  try {
    store.setItem(name, value);
  } catch (error) {
    if (error.name !== "QuotaExceededError") throw error;
    console.info("The storage of this tab is full.", name);
    return false;
  }
  return true;
}

export function forget(area, name) {
  const store = allowed(area);
  if (store) store.removeItem(name);
  else memory[area].delete(name);
}
