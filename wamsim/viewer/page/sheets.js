// Pictures that lie side by side in one file: each cell is shown by itself.
(function (wamsim) {
  "use strict";
  const { el, fill } = wamsim;

  const loaded = new Map(); // url -> promise

  /** Load a picture once; the promise fails when it does not come. */
  function preload(url) {
    if (!loaded.has(url)) {
      const picture = new Image();
      const promise = new Promise((done, failed) => {
        picture.onload = () => done(picture);
        picture.onerror = () => {
          loaded.delete(url); // it may come the next time
          failed(new Error(url));
        };
      });
      picture.src = url;
      loaded.set(url, promise);
    }
    return loaded.get(url);
  }

  /**
   * Show one cell of a sheet.
   *
   * @param {string} url The sheet: rows x columns cells without gaps.
   * @param {{rows: number, columns: number, row: number, column: number}} at Which one.
   * @param {{width: number, height: number}} cell Its size in pixels.
   * @param {string} label What it shows, for those who do not see it; "" for decoration.
   */
  function cell(url, at, size, label) {
    const part = (i, n) => (n > 1 ? `${(100 * i) / (n - 1)}%` : "0");
    return el("div.cell", {
      role: label ? "img" : null,
      "aria-label": label || null,
      "aria-hidden": label ? null : "true",
      title: label || null,
      style: {
        "aspect-ratio": `${size.width} / ${size.height}`,
        "background-image": `url("${encodeURI(url)}")`,
        "background-size": `${100 * at.columns}% ${100 * at.rows}%`,
        "background-position": `${part(at.column, at.columns)} ${part(at.row, at.rows)}`,
      },
    });
  }

  const ROOM_PX = 620; // beside which the figures still have a place
  const HEAD_PX = 110;
  const TALL_PX = 112; // of a cell

  /** Whether the pictures of a query leave room for figures beside them. */
  function isNarrow({ pictures }) {
    if (!pictures) return false;
    const wide = (TALL_PX * pictures.cell.width) / pictures.cell.height;
    return HEAD_PX + pictures.columns.length * wide < ROOM_PX;
  }

  const TITLES = {
    real: "Real",
    imagined: "Imagined",
    difference: "Difference",
    ceiling: "Ceiling",
  };
  const TIPS = {
    real: "What the simulator then showed",
    difference: "Absolute difference of the two",
    ceiling: "decode(encode(real)): the best that this tokenizer can draw",
  };

  /**
   * Lay out one query: a row each for real, imagined, difference; a column for each horizon.
   *
   * @param {Element} box Its place.
   * @param {object} who An IMAGINER with pictures.
   * @param {number} q The query.
   * @param {number} fps Env steps a second.
   * @param {object|null} found Of a retrieval: which real frame each cell shows.
   */
  async function query(box, who, q, fps, found) {
    const { pictures } = who;
    const url = pictures.sheets[q];
    const token = (box.sheetToken = {});
    const timer = setTimeout(() => {
      if (box.sheetToken === token) box.classList.add("loading");
    }, 120);
    try {
      await preload(url);
    } catch {
      const sentence = await wamsim.data.why(url);
      if (box.sheetToken === token)
        fill(box, wamsim.notice("These pictures did not come", sentence));
      return;
    } finally {
      clearTimeout(timer);
      if (box.sheetToken === token) box.classList.remove("loading");
    }
    if (box.sheetToken !== token) return;
    const retrieved = pictures.kind === "retrieval";
    const columns = pictures.columns.length;
    const head = el(
      "tr",
      null,
      el("td"),
      pictures.columns.map((h, k) =>
        el(
          `th${who.executed[q][k] ? "" : ".off"}`,
          { scope: "col" },
          el("span", { text: `+${h}` }),
          el("span.sub", {
            text: who.executed[q][k] ? ` ${(h / fps).toFixed(2)} s` : " not executed",
            title: who.executed[q][k]
              ? null
              : "The policy was asked again before this step, or the episode ended",
          }),
        ),
      ),
    );
    const rows = pictures.rows.map((row, r) =>
      el(
        "tr",
        null,
        el(
          "th",
          { scope: "row", title: row === "imagined" ? pictures.note : TIPS[row] },
          TITLES[row] || row,
          row === "imagined" && retrieved ? el("span.sub.warn", { text: "nearest real" }) : null,
        ),
        pictures.columns.map((h, k) =>
          el(
            `td${who.executed[q][k] ? "" : ".off"}`,
            null,
            cell(
              url,
              { rows: pictures.rows.length, columns, row: r, column: k },
              pictures.cell,
              label(row, h, k),
            ),
            row === "imagined" && retrieved ? source(found, q, k) : null,
          ),
        ),
      ),
    );

    function label(row, h, k) {
      const off = who.executed[q][k] ? "" : ", not executed as imagined";
      return `${TITLES[row] || row}, ${h} steps ahead${off}`;
    }

    fill(
      box,
      el(
        "table.sheet",
        {
          "aria-label": "Real and imagined pictures",
          style: { "--columns": columns, "--wide": pictures.cell.width / pictures.cell.height },
        },
        el("thead", null, head),
        el("tbody", null, rows, scores(who, q)),
      ),
    );
  }

  function source(found, q, k) {
    const at = found && found.found[q] && found.found[q][k];
    return at ? el("span.sub.source", { text: `trial ${at.trial}, step ${at.step}` }) : null;
  }

  const LINES = [
    ["similarity", "Similarity", "Cosine of imagined to real latent", 3],
    ["still", "Nothing moves", "Cosine of 'nothing moves' to the real latent", 3],
    ["ssim", "SSIM", "Of the imagined picture to the real one", 3],
    ["ceiling_ssim", "SSIM ceiling", "Of decode(encode(real)) to the real one", 3],
    ["psnr", "PSNR dB", "Of the imagined picture to the real one", 1],
  ];

  function scores(who, q) {
    const { format } = wamsim;
    return LINES.filter(
      ([name]) => who[name] && who[name].some((row) => row.some(format.known)),
    ).map(([name, title, tip, digits]) =>
      el(
        "tr.score",
        null,
        el("th", { scope: "row", title: tip, text: title }),
        who[name][q].map((x, k) => {
          const against = name === "similarity" && format.known(x) ? who.still[q][k] : null;
          const tone = !format.known(against) ? "" : x > against ? ".foreseen" : ".unforeseen";
          return el(`td${tone}`, { text: format.fixed(x, digits) });
        }),
      ),
    );
  }

  wamsim.sheets = { preload, cell, query, isNarrow };
})((window.wamsim = window.wamsim || {}));
