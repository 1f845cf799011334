// The shell: which page is shown, the bar above it, the theme and the list of keys.
(function (wamsim) {
  "use strict";
  const { el, fill, route } = wamsim;

  const PAGES = [
    ["runs", "Runs"],
    ["leaderboard", "Leaderboard"],
    ["side", "Side by side"],
    ["imagination", "Imagination"],
    ["failures", "Failures"],
  ];
  const PARENT = { run: "runs" };

  const KEYS = [
    ["↑ ↓ PgUp PgDn", "move through a table"],
    ["Enter", "open the row"],
    ["/", "to the search box"],
    ["Space", "play, pause"],
    ["← →", "one step; on Imagination one query"],
    ["Shift + ← →", "ten steps"],
    ["Home End", "first and last step"],
    ["[ ]", "slower, faster"],
    ["?", "this list"],
  ];

  const main = document.getElementById("main");
  const memory = {}; // page -> its last address in this visit
  let shown = null; // {name, view}

  function show({ path, params }) {
    const name = path[0] || "runs";
    const make = wamsim.views[name];
    if (!make) {
      leave();
      document.title = "wamsim";
      markPage(null);
      fill(main, unknown(name));
      return;
    }
    const changed = !shown || shown.name !== name;
    if (changed) {
      const first = !shown;
      leave();
      const root = el("div.page");
      fill(main, root);
      shown = { name, view: make(root) };
      if (!first) main.focus({ preventScroll: true });
    }
    memory[PARENT[name] ? name : PARENT[name] || name] = location.hash;
    markPage(PARENT[name] || name);
    document.title = `${title(name)} · wamsim`;
    shown.view.update({ path, params });
  }

  function leave() {
    if (shown && shown.view.remove) shown.view.remove();
    shown = null;
  }

  function title(name) {
    return (PAGES.find((p) => p[0] === name) || [name, "Run"])[1];
  }

  function unknown(name) {
    return el(
      "div.page",
      null,
      wamsim.notice(
        "There is no such page",
        `This address asks for "${name}". Go on from the list of runs.`,
        el("a.button", { href: "#/runs", text: "Runs" }),
      ),
    );
  }

  function markPage(name) {
    fill(
      document.getElementById("pages"),
      PAGES.map(([page, text]) =>
        el("a", {
          href: page !== name && page !== "runs" && memory[page] ? memory[page] : `#/${page}`,
          text,
          "aria-current": page === name ? "page" : null,
        }),
      ),
    );
  }

  const themeButton = document.getElementById("theme");
  function nameTheme() {
    const now = wamsim.theme.choice();
    themeButton.textContent = { auto: "Auto", light: "Light", dark: "Dark" }[now];
    themeButton.setAttribute("aria-label", `Colours: ${now}. Change`);
    themeButton.title = "Colours: as the system, light, dark";
  }
  themeButton.addEventListener("click", () => {
    wamsim.theme.next();
    nameTheme();
  });
  nameTheme();

  const live = document.getElementById("live");
  const WORDS = {
    report: ["Report", "A static copy of these runs"],
    live: ["Live", "Something is being written or measured; the page follows"],
    still: ["", ""],
    lost: ["No server", "The server does not answer. Start `wamsim view` again."],
  };
  wamsim.data.onStatus((status) => {
    const [text, title] = WORDS[status];
    if (live.textContent !== text) live.textContent = text;
    live.title = title;
    live.hidden = !text;
    live.className = `live ${{ live: "on", lost: "lost" }[status] || ""}`;
  });

  const keys = document.getElementById("keys");
  fill(
    keys,
    el(
      "div.heading",
      null,
      el("h1", { id: "keys-title", text: "Keys" }),
      el("button.button.quiet.push", {
        type: "button",
        text: "Close",
        on: { click: () => keys.close() },
      }),
    ),
    el(
      "dl.keys",
      null,
      KEYS.map(([key, what]) => [el("dt", null, each(key)), el("dd", { text: what })]),
    ),
  );
  function each(text) {
    return text.split(" ").map((key) => (key === "+" ? " + " : [el("kbd", { text: key }), " "]));
  }
  document.getElementById("help").addEventListener("click", () => keys.showModal());

  document.getElementById("skip").addEventListener("click", (event) => {
    event.preventDefault(); // the fragment is the page's state
    main.focus();
  });

  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || wamsim.typing(event)) return;
    if (event.key === "?" && !keys.open) keys.showModal();
    if (event.key === "/" && !keys.open) {
      const box = main.querySelector('input[type="search"]');
      if (box) {
        event.preventDefault();
        box.focus();
      }
    }
  });

  route.onChange(show);
  route.tell();
})((window.wamsim = window.wamsim || {}));
