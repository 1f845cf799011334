// Light and dark: the system's choice, or the reader's. Runs before the first paint.
(function (wamsim) {
  "use strict";

  const KEY = "wamsim-theme";
  const CHOICES = ["auto", "light", "dark"];
  const listeners = [];
  const system = window.matchMedia("(prefers-color-scheme: dark)");

  function stored() {
    try {
      const found = localStorage.getItem(KEY);
      return CHOICES.includes(found) ? found : "auto";
    } catch {
      return "auto"; // some browsers keep nothing for pages from disk
    }
  }

  let choice = stored();
  apply();

  function apply() {
    if (choice === "auto") delete document.documentElement.dataset.theme;
    else document.documentElement.dataset.theme = choice;
  }

  function choose(next) {
    choice = next;
    apply();
    try {
      localStorage.setItem(KEY, next);
    } catch {
      // the choice then lasts as long as the page
    }
    for (const listener of listeners) listener();
  }

  system.addEventListener("change", () => listeners.forEach((listener) => listener()));

  /** The value of a colour variable now, as "rgb(...)"; for Plotly, which knows no variables. */
  function colour(name) {
    const probe = document.createElement("span");
    probe.style.color = `var(--${name})`;
    document.body.append(probe);
    const value = getComputedStyle(probe).color;
    probe.remove();
    return value;
  }

  wamsim.theme = {
    choice: () => choice,
    next: () => choose(CHOICES[(CHOICES.indexOf(choice) + 1) % CHOICES.length]),
    colour,
    onChange: (listener) => {
      listeners.push(listener);
      return () => listeners.splice(listeners.indexOf(listener), 1);
    },
  };
})((window.wamsim = window.wamsim || {}));
