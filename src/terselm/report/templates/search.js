(function () {
  "use strict";
  const root = document.documentElement;
  const page = (id) => document.getElementById(id);

  /* Theme: as the system has it, until the reader says otherwise. */
  const system = window.matchMedia("(prefers-color-scheme: dark)");
  const button = page("theme");
  const dark = () => (root.dataset.theme ? root.dataset.theme === "dark" : system.matches);
  function showTheme() {
    button.textContent = dark() ? "Light" : "Dark";
    button.setAttribute("aria-pressed", String(dark()));
    button.setAttribute("aria-label", dark() ? "Use light colours" : "Use dark colours");
    drawFront();
  }
  button.hidden = false;
  button.addEventListener("click", function () {
    root.dataset.theme = dark() ? "light" : "dark";
    showTheme();
  });
  system.addEventListener("change", showTheme);

  /* The front. */
  const chart = page("front");
  const figure = JSON.parse(page("figure").textContent);
  const color = (name) => getComputedStyle(root).getPropertyValue("--" + name).trim();

  function drawFront() {
    const layout = JSON.parse(JSON.stringify(figure.layout));
    const data = JSON.parse(JSON.stringify(figure.data));
    const narrow = chart.clientWidth < 560;
    const axis = { gridcolor: color("grid"), zeroline: false, linecolor: color("line"), fixedrange: true };
    Object.assign(layout.xaxis, axis, { showgrid: true });
    Object.assign(layout.yaxis, axis);
    layout.paper_bgcolor = layout.plot_bgcolor = "rgba(0,0,0,0)";
    layout.font = { color: color("faint"), family: getComputedStyle(document.body).fontFamily, size: 13 };
    layout.hoverlabel = Object.assign(layout.hoverlabel, {
      bgcolor: color("raised"), bordercolor: color("faint"), font: { color: color("ink"), size: 13 },
    });
    layout.annotations.forEach(function (each) { each.font.color = color("ink"); });
    layout.shapes.forEach(function (each) {
      if (each.name === "beyond") {
        each.fillcolor = "rgba(" + color("beyond") + ",0.13)";
        each.line = { width: 0 };
      }
    });
    data.forEach(function (trace) {
      if (trace.meta === "front") trace.line.color = color("accent");
      else if (trace.meta !== "ring") trace.marker.line.color = dark() ? "#e8e8e4" : "#3a3a38";
      if (narrow && trace.marker && trace.marker.colorbar) {
        Object.assign(trace.marker.colorbar, {
          orientation: "h", x: 0.5, y: -0.17, yanchor: "top", len: 1, thickness: 9,
        });
        trace.marker.colorbar.title.side = "bottom";
      }
    });
    if (narrow) {
      Object.assign(layout.margin, { l: 44, b: 190, r: 4 });
      layout.xaxis.tickfont = { size: 11 };
      Object.assign(layout.legend, { font: { size: 12 }, entrywidth: 105, y: -0.38, yanchor: "top" });
      layout.xaxis.tickvals = layout.xaxis.tickvals.filter((_, place) => place % 2 === 0);
      layout.xaxis.ticktext = layout.xaxis.ticktext.filter((_, place) => place % 2 === 0);
    }
    Plotly.react(chart, data, layout, { responsive: true, displayModeBar: false });
  }

  /* A point that is touched shows its recipe and its command below the picture. */
  const panel = page("point");
  function describe(event) {
    const number = event.points[0].customdata;
    const row = number >= 0 ? page("c" + number) : null;
    panel.hidden = false;
    panel.textContent = "";
    if (!row) {
      panel.textContent = "The source model.";
      return;
    }
    const title = document.createElement("p");
    const link = document.createElement("a");
    link.href = "#c" + number;
    link.textContent = number + ": " + row.querySelector("th").dataset.value;
    title.append(link);
    panel.append(title, row.querySelector(".recipe").cloneNode(true), row.querySelector(".command").cloneNode(true));
  }

  /* Copying. */
  function copied(button, done) {
    button.textContent = done ? "Copied" : "Select it";
    setTimeout(function () { button.textContent = "Copy"; }, 1500);
  }
  document.querySelectorAll(".copy").forEach(function (each) {
    each.hidden = false;
    each.setAttribute("aria-label", "Copy the command");
  });
  document.addEventListener("click", function (event) {
    const button = event.target.closest(".copy");
    if (!button) return;
    const code = button.parentElement.querySelector("code");
    if (navigator.clipboard) {
      navigator.clipboard.writeText(code.textContent).then(
        function () { copied(button, true); }, function () { select(code); copied(button, false); });
    } else {
      select(code);
      copied(button, document.execCommand("copy"));
    }
  });
  function select(element) {
    const range = document.createRange();
    range.selectNodeContents(element);
    getSelection().removeAllRanges();
    getSelection().addRange(range);
  }

  /* Sorting and finding. */
  const table = page("table");
  const body = table.tBodies[0];
  const heads = Array.from(table.tHead.rows[0].cells);
  function sortBy(column, descending) {
    const value = function (row) {
      const text = row.cells[column].dataset.value;
      return column === 1 ? text.toLowerCase() : Number(text);
    };
    const rows = Array.from(body.rows).filter((row) => !("fixed" in row.dataset));
    rows.sort(function (one, other) {
      const a = value(one), b = value(other);
      return (a < b ? -1 : a > b ? 1 : 0) * (descending ? -1 : 1);
    });
    body.append.apply(body, rows);
    heads.forEach(function (head, place) {
      if (place === column) head.setAttribute("aria-sort", descending ? "descending" : "ascending");
      else head.removeAttribute("aria-sort");
    });
  }
  heads.forEach(function (head, column) {
    const order = document.createElement("button");
    order.type = "button";
    order.className = "order";
    order.textContent = head.textContent;
    head.textContent = "";
    head.append(order);
    order.addEventListener("click", function () {
      sortBy(column, head.getAttribute("aria-sort") === "ascending");
    });
  });
  const tools = document.querySelector(".tools");
  if (tools) {
    tools.hidden = false;
    const texts = new Map(Array.from(body.rows, (row) => [row, row.cells[1].textContent.toLowerCase()]));
    const filter = function () {
      const words = page("find").value.toLowerCase().split(/\s+/).filter(Boolean);
      const show = page("show").value;
      let count = 0;
      Array.from(body.rows).forEach(function (row) {
        if ("fixed" in row.dataset) return;
        const right = show === "all" || (show === "front" && "front" in row.dataset) ||
          (show === "within" && "within" in row.dataset) || show === "kind " + row.dataset.kind;
        row.hidden = !(right && words.every((word) => texts.get(row).includes(word)));
        if (!row.hidden) count += 1;
      });
      page("count").textContent = count + " of " + (texts.size - 1);
    };
    page("find").addEventListener("input", filter);
    page("show").addEventListener("change", filter);
    page("sort").addEventListener("change", function (event) { sortBy(Number(event.target.value), false); });
    filter();
  }

  /* A link to a candidate opens it. */
  function openTarget() {
    const row = location.hash.length > 1 ? page(location.hash.slice(1)) : null;
    if (row && row.matches("tr")) {
      row.hidden = false;
      row.querySelector("details").open = true;
      row.scrollIntoView({ block: "center" });
    }
  }
  window.addEventListener("hashchange", openTarget);

  showTheme();
  chart.on("plotly_hover", describe);
  chart.on("plotly_click", describe);
  openTarget();
})();
