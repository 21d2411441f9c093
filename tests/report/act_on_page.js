// What a reader does on the page, and what the page then shows; test_page.py judges it.
const all = (query) => [...document.querySelectorAll(query)];
const one = (query) => document.querySelector(query);
const fire = (target, kind, how = {}) =>
  target.dispatchEvent(new (kind.startsWith("pointer") ? PointerEvent : Event)(kind, { bubbles: true, ...how }));
const names = () => all("#networks tbody tr").filter((row) => !row.hidden)
  .map((row) => row.querySelector("th").firstChild.nextSibling.textContent.trim());
const write = (field, text) => { field.value = text; fire(field, "input"); };
const said = {};
said.start = names();
const head = (title) => all("#networks thead button").find((button) => button.textContent === title);
head("ms").click(); said.slowest = names(); said.sorted = head("ms").closest("th").getAttribute("aria-sort");
head("ms").click(); said.fastest = names();
write(one("#networks input[type=search]"), "front streets"); said.filtered = names();
said.shown = one("#networks output").textContent;
write(one("#networks input[type=search]"), "");
fire(one(".mark"), "pointerover", { clientX: 20, clientY: 20 }); said.hover = [one("#tip").hidden, one("#tip").textContent];
fire(document.body, "pointerover"); said.away = one("#tip").hidden;
one(".mark.best").focus(); said.focus = [one("#tip").hidden, one("#tip").textContent];
document.dispatchEvent(new KeyboardEvent("keydown", { key: "Escape" })); said.escaped = one("#tip").hidden;
write(one("#budget"), "6"); said.six = one("#advice").textContent;
write(one("#budget"), "0.5"); said.none = one("#advice").textContent;
const slider = one(".compare input");
const clip = (layer) => getComputedStyle(one(`.compare ${layer}`)).clipPath;
said.slides = [0, 25, 50, 75, 100].map((at) => {
  write(slider, String(at));
  return [clip(".truth"), clip(".prediction"), slider.getAttribute("aria-valuetext")];
});
all(".compare .stops button")[1].click(); said.stop = slider.value;
const choice = one("#classes select"); choice.selectedIndex = 2; fire(choice, "change");
said.panels = all("#classes .panel").map((panel) => panel.hidden);
one("#numbers").open = true;
const before = getComputedStyle(document.body).backgroundColor; one("#theme").click();
said.theme = [before, getComputedStyle(document.body).backgroundColor, one("#theme").getAttribute("aria-pressed")];
said.wide = document.documentElement.scrollWidth <= innerWidth;
said.requests = performance.getEntriesByType("resource").map((entry) => entry.name).filter((name) => !name.startsWith("data:"));
setTimeout(() => {
  write(one("#numbers input"), "half night iou/road");
  said.numbers = all("#numbers tbody tr").map((row) => [...row.cells].map((cell) => cell.textContent));
  said.faults = faults;
  const result = document.createElement("script"); result.type = "application/json"; result.id = "said";
  result.textContent = JSON.stringify(said); document.body.append(result);
}, 50);
