"use strict";
{
  const all = (query, within = document) => [...within.querySelectorAll(query)];
  const data = (element) => JSON.parse(element.textContent);

  // ---- light and dark
  const theme = document.getElementById("theme");
  const system = matchMedia("(prefers-color-scheme: dark)");
  const dark = () => (document.documentElement.dataset.theme ?? (system.matches ? "dark" : "light")) === "dark";
  const named = () => { theme.textContent = dark() ? "Light" : "Dark"; theme.setAttribute("aria-pressed", String(dark())); };
  theme.addEventListener("click", () => { document.documentElement.dataset.theme = dark() ? "light" : "dark"; named(); });
  system.addEventListener("change", named);
  named();

  // ---- the text of points, bars and lines, by pointer and by keyboard
  const tip = document.getElementById("tip");
  const show = (target, x, y) => {
    tip.textContent = target.dataset.tip;
    tip.hidden = false;
    const left = Math.min(x + 14, innerWidth - tip.offsetWidth - 8);
    const top = y + 18 + tip.offsetHeight > innerHeight ? y - tip.offsetHeight - 12 : y + 18;
    tip.style.left = `${Math.max(8, left)}px`;
    tip.style.top = `${Math.max(8, top)}px`;
  };
  const hide = () => { tip.hidden = true; };
  document.addEventListener("pointerover", (event) => {
    const target = event.target.closest?.("[data-tip]");
    if (target) show(target, event.clientX, event.clientY); else hide();
  });
  document.addEventListener("focusin", (event) => {
    if (!event.target.dataset?.tip) return hide();
    const box = event.target.getBoundingClientRect();
    show(event.target, box.right, box.top);
  });
  document.addEventListener("keydown", (event) => { if (event.key === "Escape") hide(); });
  document.addEventListener("scroll", hide, { passive: true });

  // ---- tables: sort by a column's button, filter by words
  const key = (cell) => cell.dataset.sort === undefined ? null : Number(cell.dataset.sort);
  const compare = (a, b) => {
    const [one, other] = [key(a), key(b)];
    if (one !== null && other !== null) return one - other;
    return a.textContent.localeCompare(b.textContent, "en", { numeric: true });
  };
  for (const table of all("table.sorts")) {
    all("thead button", table).forEach((button) => button.addEventListener("click", () => {
      const head = button.closest("th");
      const place = [...head.parentNode.children].indexOf(head);
      const body = table.tBodies[0];
      const rows = [...body.rows];
      const numbers = rows.some((row) => key(row.cells[place]) !== null);
      const before = head.getAttribute("aria-sort");
      const up = before === null ? !numbers || place === 0 : before === "descending";
      for (const other of head.parentNode.children) other.removeAttribute("aria-sort");
      head.setAttribute("aria-sort", up ? "ascending" : "descending");
      const empty = (row) => row.cells[place].textContent === "–";
      rows.sort((a, b) => empty(a) - empty(b) || (up ? 1 : -1) * compare(a.cells[place], b.cells[place]));
      body.append(...rows);
    }));
  }
  const words = (field) => field.value.toLowerCase().split(/\s+/).filter(Boolean);
  for (const box of all(".table")) {
    const field = box.querySelector("input[type=search]");
    field?.addEventListener("input", () => {
      const rows = all("tbody tr", box);
      for (const row of rows) {
        const text = row.textContent.toLowerCase();
        row.hidden = !words(field).every((word) => text.includes(word));
      }
      box.querySelector("output").textContent = `${rows.filter((row) => !row.hidden).length} of ${rows.length} shown`;
    });
  }

  // ---- panels of which one is shown
  for (const box of all(".panels")) {
    const choice = box.querySelector("select");
    choice.addEventListener("change", () => all(":scope > .panel", box).forEach((panel, place) => { panel.hidden = place !== choice.selectedIndex; }));
  }

  // ---- which network to ship
  const budget = document.getElementById("budget");
  budget?.addEventListener("input", () => {
    const said = data(document.getElementById("advices"));
    const limit = Number(budget.value);
    if (!(limit > 0)) return;
    const fits = said.filter(([time]) => time <= limit);
    const [, name, reason] = fits.length ? fits[fits.length - 1]
      : [0, "none", `no network is that fast; the fastest, ${said[0][1]}, takes ${Number(said[0][0].toPrecision(3))} ms.`];
    const strong = document.createElement("strong");
    strong.textContent = name;
    document.getElementById("advice").replaceChildren(strong, `: ${reason}`);
  });

  // ---- sliders from the image over its truth to the prediction
  for (const figure of all(".compare")) {
    const slider = figure.querySelector("input");
    const stack = figure.querySelector(".stack");
    const stops = all(".stops button", figure);
    const move = () => {
      const at = Number(slider.value);
      const truth = Math.min(at, 50) * 2;
      const said = Math.max(at - 50, 0) * 2;
      stack.style.setProperty("--truth", `${truth}%`);
      stack.style.setProperty("--said", `${said}%`);
      stack.style.setProperty("--edge", `${at <= 50 ? truth : said}%`);
      stack.querySelector(".edge").hidden = at % 50 === 0;
      stops.forEach((stop) => stop.setAttribute("aria-pressed", String(Number(stop.dataset.to) === at)));
      const between = at < 50 ? `truth on the left ${truth} percent, image on the right` : `prediction on the left ${said} percent, truth on the right`;
      slider.setAttribute("aria-valuetext", { 0: "image", 50: "truth", 100: "prediction" }[at] ?? between);
    };
    slider.addEventListener("input", move);
    stops.forEach((stop) => stop.addEventListener("click", () => { slider.value = stop.dataset.to; move(); }));
    move();
  }

  // ---- every number, made when it is asked for
  const numbers = document.getElementById("numbers");
  const most = 500;
  let kept = null;
  const fill = () => {
    kept ??= data(numbers.querySelector("script"));
    const field = numbers.querySelector("input");
    const found = kept.rows.filter((row) => {
      const text = row.slice(0, 4).map((place) => kept.texts[place]).join(" ").toLowerCase();
      return words(field).every((word) => text.includes(word));
    });
    const body = numbers.querySelector("tbody");
    body.replaceChildren(...found.slice(0, most).map((row) => {
      const line = document.createElement("tr");
      row.forEach((value, place) => {
        const cell = document.createElement(place ? "td" : "th");
        if (!place) cell.scope = "row";
        cell.textContent = place < 4 ? kept.texts[value] : value ?? "–";
        line.append(cell);
      });
      return line;
    }));
    numbers.querySelector("output").textContent = `${Math.min(found.length, most)} of ${found.length} shown`;
  };
  numbers?.addEventListener("toggle", () => { if (numbers.open && !kept) fill(); });
  numbers?.querySelector("input").addEventListener("input", fill);
}
