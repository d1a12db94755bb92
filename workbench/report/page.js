// Draws the page's figures with the shared plotly file, for the width at hand: a phone, a screen, paper.
(() => {
  "use strict";
  const page = JSON.parse(document.getElementById("figures").textContent);
  const boxes = [...document.querySelectorAll("[data-figure]")];
  const NARROW = 560, PAPER = 680, FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif";
  const coarse = matchMedia("(pointer: coarse)").matches;
  const copy = (value) => JSON.parse(JSON.stringify(value));
  const text = (title) => (title && typeof title === "object" ? title.text : title) || "";

  // At most `lines` lines of `length` letters; an escaped letter such as &lt; counts as one and is never split.
  function wrapped(label, length, lines) {
    const letters = label.match(/&[#\w]+;|<[^<>]*>|[^]/gu) || [], rows = [];
    if (letters.length <= length) return label;
    while (letters.length && rows.length < lines) {
      let end = Math.min(length, letters.length);
      if (end < letters.length) {
        const space = letters.lastIndexOf(" ", end);
        if (space > length / 3) end = space;
      }
      rows.push(letters.splice(0, end).join("").trim());
    }
    return rows.join("<br>") + (letters.length ? "…" : "");
  }

  function axesOf(figure) {
    const keys = new Set(Object.keys(figure.layout).filter((key) => /^[xy]axis\d*$/.test(key)));
    for (const trace of figure.data)
      if ("x" in trace || "y" in trace || "z" in trace)
        for (const letter of ["x", "y"]) keys.add((trace[letter + "axis"] || letter).replace(/^[xy]/, "$&axis"));
    return keys;
  }

  // Long names of categories are cut in the ticks only; the hover tells them whole.
  function shortened(figure, key, length) {
    const alias = {}, letter = key[0], id = key.replace("axis", ""), names = new Set();
    for (const trace of figure.data)
      if ((trace[letter + "axis"] || letter) === id && Array.isArray(trace[letter]))
        for (const value of trace[letter]) if (typeof value === "string") names.add(value);
    if (length < 20 && letter === "y" && names.size <= 40 && [...names].some((name) => name.length > length))
      figure.layout.height = Math.max(figure.layout.height, 110 + 34 * names.size); // a phone has room downwards
    const lines = letter === "x" || (figure.layout.height - 90) / names.size > 30 ? 2 : 1; // two lines need 30 px
    for (const name of names) {
      const short = wrapped(name, length * (lines > 1 ? 1 : 1.3), lines);
      if (short !== name) alias[name] = short;
    }
    return alias;
  }

  function dressed(number, width) {
    const figure = copy(page.figures[number]), { layout } = figure, narrow = width < NARROW;
    layout.template = page.templates[figure.template];
    layout.font = { family: FONT, size: narrow ? 12 : 13, color: "#1c2733", ...layout.font };
    layout.paper_bgcolor = layout.plot_bgcolor = "rgba(0,0,0,0)";
    layout.hoverlabel = { align: "left", namelength: 30, ...layout.hoverlabel };
    layout.height = layout.height || 380;
    layout.margin = { l: 8, r: 16, t: 24, b: 44, ...layout.margin };
    const starts = new Set(), axes = axesOf(figure);
    for (const key of axes) {
      const axis = (layout[key] = layout[key] || {}), across = key[0] === "x";
      if (across) starts.add((axis.domain || [0])[0]);
      Object.assign(axis, { gridcolor: "#e6ebf0", zerolinecolor: "#c6d0d9", ticklabelstandoff: across ? 2 : 6, ...axis, automargin: true });
      axis.labelalias = { ...shortened(figure, key, across ? (narrow ? 11 : 20) : narrow ? 17 : 36), ...axis.labelalias };
      if (Array.isArray(axis.ticktext)) axis.ticktext = axis.ticktext.map((t) => wrapped(String(t), across ? 12 : narrow ? 17 : 36, 2));
      if (coarse || narrow) axis.fixedrange = true;
      if (narrow && across && !axis.tickvals && !axis.dtick) axis.nticks = Math.min(axis.nticks || 5, 5);
      const space = Math.floor((across ? width - (narrow ? 120 : 400) : layout.height - 90) / 8); // letters of 8 pixels beside ticks and legend
      if (text(axis.title)) axis.title = { ...(typeof axis.title === "object" ? axis.title : {}), text: wrapped(text(axis.title), space, 3) };
    }
    for (const trace of figure.data) {
      if (typeof trace.name === "string") trace.name = wrapped(trace.name, narrow ? 36 : 26, 2);
      if (Array.isArray(trace.labels)) trace.labels = trace.labels.map((label) => wrapped(String(label), narrow ? 36 : 26, 2));
    }
    for (const note of layout.annotations || []) if (note.text) note.text = wrapped(note.text, Math.floor(width / 9), 3);
    layout.legend = { ...layout.legend, title: { ...layout.legend?.title, text: wrapped(text(layout.legend?.title), 26, 2) } };
    if (coarse || narrow) layout.dragmode = false; // a finger scrolls the page
    layout.width = starts.size > 1 ? Math.max(width, 320 * starts.size) : width; // panels side by side scroll in their own box
    if (narrow) {
      layout.margin = { ...layout.margin, l: 4, r: 12, t: 16, b: 36 };
      layout.legend = { ...layout.legend, orientation: "h", x: 0, xanchor: "left", y: -(axes.size ? 76 : 10) / Math.max(layout.height - 90, 90), yanchor: "top", title: { text: "" } };
      const bar = { orientation: "h", thickness: 10, x: 0.5, xanchor: "center", y: 1.01, yanchor: "bottom", len: 1 };
      for (const trace of figure.data) if (/^(heatmap|contour|histogram2d)/.test(trace.type)) trace.colorbar = { ...trace.colorbar, ...bar };
      for (const key of Object.keys(layout)) if (/^coloraxis\d*$/.test(key)) layout[key].colorbar = { ...layout[key].colorbar, ...bar };
    }
    return figure;
  }

  function draw(box, width) {
    try {
      const figure = dressed(Number(box.dataset.figure), Math.floor(width));
      return window.Plotly.react(box, figure.data, figure.layout, { displayModeBar: false, showTips: false, doubleClick: "reset" });
    } catch (error) {
      box.textContent = "This figure could not be drawn.";
    }
  }

  const room = (box) => box.parentElement.clientWidth;
  async function drawAll() {
    window.Plotly.setPlotConfig({ logging: 0 });
    let last = innerWidth, timer;
    addEventListener("resize", () => {
      clearTimeout(timer);
      timer = setTimeout(() => innerWidth !== last && ((last = innerWidth), boxes.forEach((box) => draw(box, room(box)))), 150);
    });
    addEventListener("beforeprint", () => boxes.forEach((box) => draw(box, PAPER)));
    addEventListener("afterprint", () => boxes.forEach((box) => draw(box, room(box))));
    for (const box of boxes) {
      await draw(box, room(box));
      await new Promise((next) => setTimeout(next));
    }
    document.documentElement.dataset.drawn = boxes.length;
  }

  const missing = () => boxes.forEach((box) => (box.textContent = "The figures need the folder “assets” beside this page."));
  if (window.Plotly) return drawAll();
  const script = document.createElement("script");
  script.src = document.documentElement.dataset.plotly;
  script.onload = drawAll;
  script.onerror = missing;
  document.head.append(script);
})();
